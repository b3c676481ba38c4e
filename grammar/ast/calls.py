"""Calls with their arguments and windows, and types."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from dql.grammar.ast.expressions import Number, String
from dql.grammar.ast.nodes import Expr, Node, Path

if TYPE_CHECKING:
    from dql.grammar.ast.queries import SelectItem


@dataclass(frozen=True, slots=True)
class NamedArg(Node):
    """`name => value`."""

    name: str
    value: "Expr | TypeArg"


@dataclass(frozen=True, slots=True)
class ReturningArg(Node):
    """`text RETURNING type`."""

    expr: Expr
    type: "TypeName"


@dataclass(frozen=True, slots=True)
class TypeArg(Node):
    """A type where a value could stand: the second argument of AI_EXTRACT."""

    type: "TypeName"


@dataclass(frozen=True, slots=True)
class FromArg(Node):
    """`extract(year FROM d)`, `substring(s FROM 2 FOR 3)`, `trim(BOTH 'x' FROM s)`, `overlay(s PLACING p FROM 2)`.

    side is BOTH, LEADING or TRAILING; `subject` stands before FROM and may be missing after a side.
    """

    subject: Expr | None
    source: Expr
    side: str | None = None
    placing: Expr | None = None
    length: Expr | None = None


@dataclass(frozen=True, slots=True)
class StarPattern(Node):
    """`* [NOT] LIKE 'pattern'`; word is LIKE, ILIKE, GLOB or SIMILAR TO."""

    word: str
    pattern: str
    negated: bool = False


@dataclass(frozen=True, slots=True)
class StarRename(Node):
    """`column AS name` of RENAME."""

    column: Path
    name: str


@dataclass(frozen=True, slots=True)
class Star(Node):
    """`*` or `t.*` in a select list, as an argument, or as a template hole; `replace` items have an alias."""

    qualifier: Path = ()
    exclude: tuple[Path, ...] = ()
    replace: tuple["SelectItem", ...] = ()
    rename: tuple[StarRename, ...] = ()
    like: StarPattern | None = None


Argument = Expr | Star | NamedArg | ReturningArg | TypeArg | FromArg


@dataclass(frozen=True, slots=True)
class OrderItem(Node):
    """`expr [ASC | DESC] [NULLS FIRST | LAST]`; `expr` is None for ORDER BY ALL.

    descending is None where the session's default order holds.
    """

    expr: Expr | None
    descending: bool | None = None
    nulls: str | None = None


@dataclass(frozen=True, slots=True)
class FrameBound(Node):
    """kind is UNBOUNDED PRECEDING, UNBOUNDED FOLLOWING, CURRENT ROW, or PRECEDING or FOLLOWING with an expression."""

    kind: str
    expr: Expr | None = None


@dataclass(frozen=True, slots=True)
class Frame(Node):
    """unit is ROWS, RANGE or GROUPS; exclude is CURRENT ROW, GROUP, TIES or NO OTHERS."""

    unit: str
    start: FrameBound
    end: FrameBound | None = None
    exclude: str | None = None


@dataclass(frozen=True, slots=True)
class WindowSpec(Node):
    """`([base] PARTITION BY … ORDER BY … frame)`."""

    base: str | None = None
    partition_by: tuple[Expr, ...] = ()
    order_by: tuple[OrderItem, ...] = ()
    frame: Frame | None = None


@dataclass(frozen=True, slots=True)
class Call(Expr):
    """A function call, inference or not: which names count as inference is `grammar.names.INFERENCE_NAMES`.

    `name` is as written; `AI.IF` is one part, "AI.IF". nulls is IGNORE or RESPECT; over is a window's name or spec.
    `a.f(x)` is name ("a", "f"): a schema or a method's target, which the binder decides.
    """

    name: Path
    args: tuple[Argument, ...] = ()
    distinct: bool = False
    order_by: tuple[OrderItem, ...] = ()
    nulls: str | None = None
    within_group: tuple[OrderItem, ...] = ()
    filter: Expr | None = None
    over: str | WindowSpec | None = None


@dataclass(frozen=True, slots=True)
class MethodCall(Expr):
    """`target.f(args)` where the target is no plain name."""

    target: Expr
    call: Call


@dataclass(frozen=True, slots=True)
class StructField(Node):
    """`name type [CHECK (expr)] [VERBATIM] [DESCRIPTION 'text']`."""

    name: str
    type: "TypeName"
    check: Expr | None = None
    verbatim: bool = False
    description: str | None = None


@dataclass(frozen=True, slots=True)
class TypeName(Node):
    """`VARCHAR`, `DECIMAL(10, 2)`, `ENUM('a', 'b')`, `MAP(VARCHAR, INT)`, `STRUCT(a INT)[3][]`.

    `name` is as written but for the two-word spellings: DOUBLE PRECISION is DOUBLE, CHARACTER VARYING VARCHAR,
    TIMESTAMP WITH TIME ZONE TIMESTAMPTZ, TIME WITH TIME ZONE TIMETZ. `dimensions` are the list suffixes, None for `[]`.
    """

    name: Path
    args: tuple["Number | String | TypeName | StructField", ...] = ()
    dimensions: tuple[int | None, ...] = ()
