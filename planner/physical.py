"""The physical plan: what the executor runs, as plain frozen data. Relational text is DuckDB SQL; a call is a
placement on the engine. A plan of this kind can be printed, compared and sent elsewhere.
"""

from collections.abc import Callable
from dataclasses import dataclass, field, replace

from dql.planner.hardware import Kind
from dql.planner.logical import Decoding, Labels, Operator, Stage


@dataclass(frozen=True, slots=True)
class Placement:
    """How one call runs: one point of the search space.

    device: the kind of device that holds the model. prefix: 'tree' where what prompts begin with is computed once,
    'none' where each prompt is computed whole. reuse: equal prompts are answered once. max_rows: most rows decoding at
    once. step_tokens: most tokens of a step. kv_slots: most KV slots of the run, None for as many as there are;
    draft_slots: those of the model that guesses ahead for it, 0 where it does not because it does not fit.
    deterministic: a row's answer does not depend on the batch, to the last bit.
    """

    weights: str = "fp32"
    kv_cache: str = "fp32"
    prefix: str = "tree"
    reuse: bool = True
    max_rows: int = 256
    step_tokens: int = 1024
    kv_slots: int | None = None
    draft_slots: int | None = None
    deterministic: bool = False
    tensor_parallel: int = 1
    pipeline_parallel: int = 1
    data_parallel: int = 1
    device: Kind = "cpu"

    @property
    def splits(self) -> bool:
        """Whether what all prompts of a call begin with is computed in a higher precision than the rest."""
        return self.device == "cpu" and self.weights == "int8"

    @property
    def devices(self) -> int:
        """Devices that it takes."""
        return self.tensor_parallel * self.pipeline_parallel * self.data_parallel


@dataclass(frozen=True, slots=True)
class CallExec:
    """One call over a batch: its prompt's text with numbered holes, and the columns that fill them.

    guard: the column that is TRUE where the call runs, or None for every row. out: the answer's column and SQL type.
    """

    op: Operator
    template: tuple[str | int, ...]
    bare: bool
    holes: tuple[str, ...]
    guard: str | None
    out: str
    type: str
    model: str
    labels: Labels = field(default_factory=lambda: Labels(()))
    multi: bool = False
    low: int = 0
    high: int = 10
    system: str | None = None
    instruction: str | None = None
    examples: tuple[tuple[str, str], ...] = ()
    calibrate: bool = False
    decoding: Decoding = field(default_factory=Decoding)
    details: bool = False
    alternatives: tuple[str, ...] = ()
    draft: str | None = None
    stage: Stage | None = None
    label: str = ""
    placement: Placement = field(default_factory=Placement)


@dataclass(frozen=True, slots=True)
class PhysicalPlan:
    """A node. Every node yields Arrow batches, the first of them perhaps empty, so that the schema is always known."""


@dataclass(frozen=True, slots=True)
class FragmentExec(PhysicalPlan):
    """A DuckDB query over whole inputs, each kept in a scratch table that the query knows by the input's name."""

    sql: str
    inputs: tuple[tuple[str, PhysicalPlan], ...] = ()


@dataclass(frozen=True, slots=True)
class MapExec(PhysicalPlan):
    """A row-wise DuckDB query, run on each batch of its child; it knows the batch as `name`."""

    child: PhysicalPlan
    sql: str
    name: str


@dataclass(frozen=True, slots=True)
class InferExec(PhysicalPlan):
    """Its child's columns and one column per call. With `stops_early`, batches start small: a LIMIT may end the run."""

    child: PhysicalPlan
    calls: tuple[CallExec, ...]
    stops_early: bool = False


@dataclass(frozen=True, slots=True)
class StepExec:
    """Calls over rows that SQL gives their holes and guards; it knows the rows as `name`."""

    sql: str
    name: str
    calls: tuple[CallExec, ...]


@dataclass(frozen=True, slots=True)
class ConditionExec:
    """A condition on rows: its steps, one after the other, then SQL whose one column is TRUE where it is met."""

    steps: tuple[StepExec, ...]
    sql: str
    name: str


@dataclass(frozen=True, slots=True)
class ConditionsExec:
    """Parts of which all, or with `any` one, must be met; each is asked about the rows that the others left open."""

    parts: tuple["ConditionExec | ConditionsExec", ...]
    any: bool = False


@dataclass(frozen=True, slots=True)
class SiftExec(PhysicalPlan):
    """Its child's rows that meet the conditions, with the answers named in `kept`; the order is learnt on the way."""

    child: PhysicalPlan
    conditions: ConditionsExec
    kept: tuple[str, ...]
    stops_early: bool = False


@dataclass(frozen=True, slots=True)
class LimitExec(PhysicalPlan):
    """The first `limit` rows after `offset`; its child stops when they are there."""

    child: PhysicalPlan
    limit: int | None
    offset: int = 0


@dataclass(frozen=True, slots=True)
class ErrorPolicy:
    """What a failed row does: `on_error` null, skip or fail; `limit` is a count (int) or share (float) or None.

    rejects: the Parquet file that lists failed rows. row_timeout: seconds that a row may run.
    """

    on_error: str = "null"
    limit: int | float | None = None
    on_overflow: str = "null"
    rejects: str | None = None
    row_timeout: float | None = None


@dataclass(frozen=True, slots=True)
class QueryPlan:
    """A whole query: its root and its columns as the user sees them."""

    root: PhysicalPlan
    names: tuple[str, ...]
    types: tuple[str, ...]


def rewritten(
    query: QueryPlan,
    *,
    calls: Callable[[CallExec], CallExec] = lambda call: call,
    sql: Callable[[str], str] = lambda text: text,
) -> QueryPlan:
    """The plan with every call and every text of SQL changed."""

    def conditions(node: ConditionsExec) -> ConditionsExec:
        return replace(
            node, parts=tuple(conditions(p) if isinstance(p, ConditionsExec) else part(p) for p in node.parts)
        )

    def part(node: ConditionExec) -> ConditionExec:
        steps = (replace(step, sql=sql(step.sql), calls=tuple(map(calls, step.calls))) for step in node.steps)
        return replace(node, sql=sql(node.sql), steps=tuple(steps))

    def visit(node: PhysicalPlan) -> PhysicalPlan:
        match node:
            case InferExec():
                return replace(node, child=visit(node.child), calls=tuple(map(calls, node.calls)))
            case SiftExec():
                return replace(node, child=visit(node.child), conditions=conditions(node.conditions))
            case MapExec():
                return replace(node, child=visit(node.child), sql=sql(node.sql))
            case LimitExec():
                return replace(node, child=visit(node.child))
            case FragmentExec():
                return FragmentExec(sql(node.sql), tuple((name, visit(child)) for name, child in node.inputs))
        return node

    return replace(query, root=visit(query.root))
