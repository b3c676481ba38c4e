"""Text to syntax trees: the one door of the grammar."""

from functools import cache
from typing import Any

from dql.errors import ParseError
from dql.grammar.ast import Expr, PlainSql, Star, Statement, TypeName
from dql.grammar.builders import BUILDERS
from dql.grammar.diagnose import Diagnosis
from dql.grammar.driver import Driver, Unexpected
from dql.grammar.lexer import Lexer
from dql.grammar.routing import is_structured, statements
from dql.grammar.scanner import scan
from dql.grammar.tables import load
from dql.grammar.tokens import Tokens

_NONE: frozenset[str] = frozenset()


def parse(
    text: str, inference_names: frozenset[str] = _NONE, inference_tables: frozenset[str] = _NONE
) -> tuple[Statement, ...]:
    """The statements of a text, which `;` divides.

    `inference_names` are macros whose body holds inference, `inference_tables` views that do, in any case. A statement
    without inference and without a clause of dql's own comes back as PlainSql. Spans are character offsets in `text`.

    Raises ParseError, with place and hint, on anything that is no statement. Names, types and units are not checked.
    """
    functions = frozenset(name.upper() for name in inference_names)
    tables = frozenset(name.upper() for name in inference_tables)
    tokens = scan(text, functions, tables)
    found: list[Statement] = []
    for lo, hi in statements(tokens):
        if is_structured(tokens, lo, hi):
            statement: Statement = _run(tokens, lo, hi, "statement")
            found.append(statement)
        else:
            span = tokens.start[lo], tokens.end[hi - 1]
            found.append(PlainSql(text[span[0] : span[1]], span=span))
    return tuple(found)


def parse_expression(text: str, inference_names: frozenset[str] = _NONE) -> Expr:
    """One scalar expression; raises ParseError."""
    tokens = scan(text, frozenset(name.upper() for name in inference_names))
    expression: Expr = _run(tokens, 0, len(tokens.kind) - 1, "expr")
    return expression


def parse_hole(text: str, inference_names: frozenset[str] = _NONE) -> Expr | Star:
    """What may stand in a template's braces: an expression, `*` or `t.*`; raises ParseError."""
    tokens = scan(text, frozenset(name.upper() for name in inference_names))
    hole: Expr | Star = _run(tokens, 0, len(tokens.kind) - 1, "hole")
    return hole


def parse_type(text: str) -> TypeName:
    """One type, `STRUCT(a INTEGER, b VARCHAR[])`; raises ParseError."""
    tokens = scan(text)
    found: TypeName = _run(tokens, 0, len(tokens.kind) - 1, "type")
    return found


@cache
def _driver() -> Driver:
    return Driver(load(), BUILDERS)


def _run(tokens: Tokens, lo: int, hi: int, start: str) -> Any:
    driver = _driver()
    try:
        return driver.run(Lexer(driver.tables, tokens, lo, hi), start)
    except Unexpected:
        raise Diagnosis(driver.tables, tokens, lo, hi, start).error() from None
    except ParseError as error:
        raise error.located(tokens.text) from None
