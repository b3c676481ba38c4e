"""Scalar expressions but for calls."""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dql.grammar.ast.nodes import Expr, Node, Path

if TYPE_CHECKING:
    from dql.grammar.ast.calls import TypeName
    from dql.grammar.ast.queries import Query


@dataclass(frozen=True, slots=True)
class Column(Expr):
    """`a`, `t.a`, `t.a.field`: which part is table, column or struct field, the binder knows."""

    path: Path


@dataclass(frozen=True, slots=True)
class String(Expr):
    """A string literal. `value` is its content, `raw` its spelling in the text with quotes ('' if built by hand)."""

    value: str
    raw: str = field(default="", compare=False, repr=False)


@dataclass(frozen=True, slots=True)
class Number(Expr):
    """A number as written: `1_000`, `.5`, `1e3`."""

    text: str


@dataclass(frozen=True, slots=True)
class Constant(Expr):
    """TRUE, FALSE, NULL or DEFAULT."""

    word: str


@dataclass(frozen=True, slots=True)
class Param(Expr):
    """`$name`, `$1` (name "1") or `?` (name "?")."""

    name: str


@dataclass(frozen=True, slots=True)
class Positional(Expr):
    """`#1`: the first column of the input."""

    index: int


@dataclass(frozen=True, slots=True)
class TypedLiteral(Expr):
    """`DATE '2026-01-01'`."""

    type: str
    value: String


@dataclass(frozen=True, slots=True)
class Interval(Expr):
    """`INTERVAL '1 day'`, `INTERVAL 3 DAYS`, `INTERVAL (n) HOURS`: the value is a String, Number or Paren."""

    value: Expr
    unit: str | None = None


@dataclass(frozen=True, slots=True)
class Paren(Expr):
    """`(expr)`."""

    expr: Expr


@dataclass(frozen=True, slots=True)
class Row(Expr):
    """`(a, b)`; one item prints as `(a,)`, none as `()`."""

    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class ListExpr(Expr):
    """`[a, b]`, `ARRAY[a, b]` or `ARRAY(a, b)`."""

    items: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Entry(Node):
    """`key: value` of a struct or map."""

    key: Expr
    value: Expr


@dataclass(frozen=True, slots=True)
class StructExpr(Expr):
    """`{'a': 1}` or `MAP {'a': 1}`."""

    entries: tuple[Entry, ...]
    is_map: bool = False


@dataclass(frozen=True, slots=True)
class Comprehension(Expr):
    """`[item FOR name, … IN source IF condition]`; a second name is the index."""

    item: Expr
    names: tuple[str, ...]
    source: Expr
    condition: Expr | None = None


@dataclass(frozen=True, slots=True)
class When(Node):
    """`WHEN condition THEN result`."""

    condition: Expr
    result: Expr


@dataclass(frozen=True, slots=True)
class Case(Expr):
    """`CASE [operand] WHEN … [ELSE otherwise] END`."""

    operand: Expr | None
    whens: tuple[When, ...]
    otherwise: Expr | None = None


@dataclass(frozen=True, slots=True)
class Cast(Expr):
    """kind is "CAST" or "TRY_CAST" (call form) or "::"."""

    expr: Expr
    type: "TypeName"
    kind: str = "CAST"


@dataclass(frozen=True, slots=True)
class And(Expr):
    """Two or more terms."""

    terms: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Or(Expr):
    """Two or more terms."""

    terms: tuple[Expr, ...]


@dataclass(frozen=True, slots=True)
class Not(Expr):
    """`NOT operand`."""

    operand: Expr


@dataclass(frozen=True, slots=True)
class Is(Expr):
    """`operand IS [NOT] NULL | TRUE | FALSE | UNKNOWN`; ISNULL, NOTNULL and NOT NULL too."""

    operand: Expr
    what: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class IsDistinct(Expr):
    """`left IS [NOT] DISTINCT FROM right`."""

    left: Expr
    right: Expr
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Comparison(Expr):
    """`left < right`; operator is one of `= == <> != < <= > >=`. Chains are refused, as DuckDB does."""

    left: Expr
    operator: str
    right: "Expr | Quantified"


@dataclass(frozen=True, slots=True)
class Quantified(Node):
    """`ANY (…)` or `ALL (…)` on the right of an operator; SOME is ANY."""

    word: str
    operand: "Expr | Query"


@dataclass(frozen=True, slots=True)
class In(Expr):
    """`operand [NOT] IN container`: a Row or Paren of values, a list, a Subquery or a column."""

    operand: Expr
    container: Expr
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Between(Expr):
    """`operand [NOT] BETWEEN low AND high`."""

    operand: Expr
    low: Expr
    high: Expr
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Like(Expr):
    """word is LIKE, ILIKE, GLOB or SIMILAR TO."""

    operand: Expr
    word: str
    pattern: Expr
    escape: Expr | None = None
    negated: bool = False


@dataclass(frozen=True, slots=True)
class Operation(Expr):
    """A flat chain of operators of one precedence: `a + b - c`, `a * b / c`, `a || b`, `j -> 'x'`."""

    operands: tuple["Expr | Quantified", ...]
    operators: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Unary(Expr):
    """`-a`, `+a`, `~a` and other prefix operators."""

    operator: str
    operand: Expr


@dataclass(frozen=True, slots=True)
class AtTimeZone(Expr):
    """`operand AT TIME ZONE zone`."""

    operand: Expr
    zone: Expr


@dataclass(frozen=True, slots=True)
class Collate(Expr):
    """`operand COLLATE name`."""

    operand: Expr
    collation: Path


@dataclass(frozen=True, slots=True)
class Subscript(Expr):
    """`operand[index]`."""

    operand: Expr
    index: Expr


@dataclass(frozen=True, slots=True)
class Slice(Expr):
    """`operand[start:stop:step]`."""

    operand: Expr
    start: Expr | None = None
    stop: Expr | None = None
    step: Expr | None = None


@dataclass(frozen=True, slots=True)
class FieldAccess(Expr):
    """`operand.name` where the operand is no plain name: `(s).a`, `f(x).a`, `l[1].a`."""

    operand: Expr
    name: str


@dataclass(frozen=True, slots=True)
class Lambda(Expr):
    """`lambda x, i: body`."""

    params: tuple[str, ...]
    body: Expr


@dataclass(frozen=True, slots=True)
class Subquery(Expr):
    """A query in parentheses as a value or as the right side of IN."""

    query: "Query"


@dataclass(frozen=True, slots=True)
class Exists(Expr):
    """`EXISTS (query)`."""

    query: "Query"


@dataclass(frozen=True, slots=True)
class ArraySubquery(Expr):
    """`ARRAY(query)`."""

    query: "Query"
