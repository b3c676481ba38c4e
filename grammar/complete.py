"""What can be typed next, by the parser's own tables, so that completion cannot drift from the grammar."""

from dataclasses import dataclass
from functools import cache

from dql.errors import ParseError
from dql.grammar.lexer import Lexer
from dql.grammar.names import DQL_HEADS, DUCKDB_HEADS, INTERVAL_UNITS, RESERVED
from dql.grammar.routing import statements
from dql.grammar.scanner import scan, unclosed
from dql.grammar.tables import Tables, load
from dql.grammar.tokens import Tokens

# What each rule that could start here stands for.
_KINDS = {
    "bound": "setting",
    "expr": "expression",
    "hole": "expression",
    "model_ref": "model",
    "named_table": "table",
    "operand": "expression",
    "option": "option",
    "predicate": "expression",
    "setting_name": "setting",
    "setting_word": "value",
    "signed": "expression",
    "type": "type",
}
_WORDS = {"USING_SAMPLE": ("USING SAMPLE",), "WITH_LA": ("WITH",), "INTERVAL_UNIT": tuple(sorted(INTERVAL_UNITS))}


@dataclass(frozen=True, slots=True)
class Expected:
    """What can follow a text.

    prefix: the word being typed, "" after a space or symbol. keywords: those that can stand in its place, upper case,
    sorted. kinds: what else can: "expression" (columns, functions, literals), "table", "model", "setting", "option",
    "type", "value", "field" (what stands after a dot), "name" (a new name), "string", "number".
    """

    prefix: str = ""
    keywords: tuple[str, ...] = ()
    kinds: frozenset[str] = frozenset()


def expected(text_before_cursor: str) -> Expected:
    """What can be typed at the end of the text; nothing inside a string or comment, or after what does not parse."""
    try:
        closers = unclosed(text_before_cursor)
        tokens = scan(f"{text_before_cursor}\n{closers}")
    except ParseError:
        return Expected()
    typed = sum(1 for end in tokens.end[:-1] if end <= len(text_before_cursor))
    if _in_comment(text_before_cursor[tokens.end[typed - 1] if typed else 0 :]):
        return Expected()
    prefix = ""
    if typed and tokens.kind[typed - 1] == "WORD" and tokens.end[typed - 1] == len(text_before_cursor):
        typed -= 1
        prefix = tokens.spelling(typed)
    lo = next((lo for lo, hi in statements(tokens) if lo < typed <= hi), None)
    if lo is None:
        return Expected(prefix, tuple(sorted(DQL_HEADS | DUCKDB_HEADS)))
    return _after(load(), tokens, lo, typed, prefix)


@cache
def keywords() -> frozenset[str]:
    """Every word that can be a keyword, upper case: for highlighting."""
    return frozenset(load().words) | RESERVED | DUCKDB_HEADS


def _in_comment(tail: str) -> bool:
    """Does a text of white space and comments end within a line comment?"""
    return "--" in tail[max(tail.rfind("\n"), tail.rfind("*/")) + 1 :]


def _after(tables: Tables, tokens: Tokens, lo: int, hi: int, prefix: str) -> Expected:
    stack = [tables.starts["statement"][0]]
    try:
        for token in Lexer(tables, tokens, lo, hi, islands=False).read(stack):
            if not tables.advance(stack, token.type):
                return Expected(prefix)
    except ParseError:  # more than the cap on tokens
        return Expected(prefix)
    legal = tables.legal(stack)
    spelled = {terminal: (word,) for word, terminal in tables.words.items()} | _WORDS
    found = sorted({word for terminal in legal for word in spelled.get(terminal, ())})
    kinds = frozenset(("field",)) if tokens.upper[hi - 1] == "." else _kinds(tables, tables.settled(stack), legal)
    return Expected(prefix, tuple(found), kinds)


def _kinds(tables: Tables, stack: list[int], legal: frozenset[str]) -> frozenset[str]:
    waiting = tables.gotos[stack[-1]]
    kinds = {kind for rule, kind in _KINDS.items() if rule in waiting and tables.firsts[rule] & legal}
    if "NAME" in legal and not kinds:
        kinds.add("name")
    if "expression" not in kinds:
        kinds |= {kind for terminal, kind in (("STRING", "string"), ("NUMBER", "number")) if terminal in legal}
    return frozenset(kinds)
