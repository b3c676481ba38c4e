"""The clauses that only dql has: USING, WITH bounds, INTO."""

from dataclasses import dataclass

from dql.grammar.ast.expressions import Constant, Param, String
from dql.grammar.ast.nodes import Expr, Node, Path, Word


@dataclass(frozen=True, slots=True)
class ModelRef(Node):
    """A registered name (`smollm2`) or, with `literal`, a string (`'hf:org/repo'`, `'weights.gguf'`)."""

    name: str
    literal: bool = False


@dataclass(frozen=True, slots=True)
class RowModel(Node):
    """`(expr)`: each row names its model or adapter."""

    expr: Expr


@dataclass(frozen=True, slots=True)
class SingleModel(Node):
    """`model [ADAPTER adapter] [DRAFT model]`."""

    model: ModelRef
    adapter: ModelRef | RowModel | None = None
    draft: ModelRef | None = None


@dataclass(frozen=True, slots=True)
class AnyModel(Node):
    """`ANY (a, b)`: the planner picks one."""

    models: tuple[SingleModel, ...]


@dataclass(frozen=True, slots=True)
class CascadeModel(Node):
    """`CASCADE (small, large)`: the next one answers where the one before is unsure."""

    models: tuple[SingleModel, ...]


@dataclass(frozen=True, slots=True)
class Using(Node):
    """`USING model`."""

    model: SingleModel | AnyModel | CascadeModel | RowModel


@dataclass(frozen=True, slots=True)
class Quantity(Node):
    """`200ms`, `-1`, `5%`, `50 rows/s`: a number with its sign and, perhaps, a unit (`rows/s` is one word)."""

    number: str
    unit: Word | None = None


@dataclass(frozen=True, slots=True)
class SettingList(Node):
    """`['a', 'b']` or, in options, `(a, b)`."""

    items: tuple["SettingValue", ...]


SettingValue = Quantity | String | Constant | Param | Word | SettingList


@dataclass(frozen=True, slots=True)
class Bound(Node):
    """`latency p99 < 1s`, `quality >= 0.95 OF 'bf16' CONFIDENCE 0.95`; op is `< <= > >=` or another comparison."""

    name: Word
    op: str
    value: SettingValue
    qualifier: Word | None = None
    of: ModelRef | None = None
    confidence: Quantity | None = None


@dataclass(frozen=True, slots=True)
class Objective(Node):
    """`MINIMIZE cost`, `MAXIMIZE throughput`."""

    direction: str
    name: Word


@dataclass(frozen=True, slots=True)
class Setting(Node):
    """`name = value`."""

    name: Word
    value: SettingValue


@dataclass(frozen=True, slots=True)
class Contract(Node):
    """`WITH item, item, …`."""

    items: tuple[Bound | Objective | Setting, ...]


@dataclass(frozen=True, slots=True)
class Option(Node):
    """`FORMAT parquet`, `HEADER`: one of a parenthesised list of options."""

    name: Word
    value: SettingValue | None = None


@dataclass(frozen=True, slots=True)
class Into(Node):
    """`INTO 'path'` or `INTO table`: exactly one of `path` and `table` is given; the rest goes with a path."""

    path: String | None = None
    table: Path = ()
    partition_by: tuple[str, ...] = ()
    options: tuple[Option, ...] = ()
