"""The logical plan: what is to be computed, as frozen nodes over columns with plan-wide unique names.

Expressions are syntax trees whose columns are those names, so a rule may move a node without renaming anything.
Relational text that inference does not touch stays one `Scan`, DuckDB's own SQL over the outputs of other plans.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from typing import Literal, TypeVar

from dql.grammar import ast
from dql.grammar.walk import children as ast_children
from dql.grammar.walk import transform, walk
from dql.grammar.walk import with_children as ast_with

N = TypeVar("N", bound=ast.Node)
_VOLATILE = frozenset(("random", "uuid", "gen_random_uuid", "uuidv4", "uuidv7", "nextval", "currval"))

Operator = Literal["generate", "classify", "filter", "score", "count_tokens"]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a plan: its unique name, its SQL type ("" where DuckDB alone knows) and what the user calls it."""

    name: str
    type: str = ""
    label: str = field(default="", compare=False)

    @property
    def ref(self) -> ast.Column:
        return ast.Column((self.name,))


@dataclass(frozen=True, slots=True)
class Prompt(ast.Expr):
    """The text argument of a call: literal text and holes in turn. A bare value is one hole in the operator's frame."""

    parts: tuple["str | ast.Expr | ast.Star", ...]
    bare: bool = False


@dataclass(frozen=True, slots=True)
class Labels:
    """The labels of a classification with their descriptions ("" where there is none)."""

    names: tuple[str, ...]
    descriptions: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Decoding:
    """How a generation ends and how its tokens are drawn; the same fields as the settings of those names."""

    max_tokens: int = 128
    stop: tuple[str, ...] = ()
    temperature: float = 0.0
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    seed: int | None = None

    @property
    def is_function(self) -> bool:
        """Whether equal prompts give equal answers."""
        return self.temperature == 0 or self.seed is not None


@dataclass(frozen=True, slots=True)
class Stage:
    """A call's place in a cascade: the `number` of models asked before it, and whether it is the `last`.

    sure: the parameter that holds the confidence from which a model before the last is believed. Calls of one cascade
    share it. weights: the precision that it is asked in, "" for the plan's own.
    """

    sure: str
    number: int
    last: bool
    weights: str = ""


@dataclass(frozen=True, slots=True)
class InferCall:
    """One inference call of a query. It runs for the rows where every guard is TRUE and no hole is NULL.

    `prompt` and `guards` read columns of the node's child. cascade: models that are asked before `model`, until one is
    sure, in the precision `lower` where that is given; alternatives: models that may take its place; draft: one that
    guesses ahead for it. stage: of a call that is part of a cascade already taken apart.
    """

    op: Operator
    prompt: Prompt
    model: str
    labels: Labels = Labels(())
    multi: bool = False
    low: int = 0
    high: int = 10
    system: str | None = None
    instruction: str | None = None
    examples: tuple[tuple[str, str], ...] = ()
    calibrate: bool = False
    decoding: Decoding = Decoding()
    details: bool = False
    cascade: tuple[str, ...] = ()
    lower: str = ""
    alternatives: tuple[str, ...] = ()
    draft: str | None = None
    stage: Stage | None = None
    out: Column = Column("")
    guards: tuple[ast.Expr, ...] = ()
    text: str = field(default="", compare=False)
    span: ast.Span = field(default=(0, 0), compare=False)

    @property
    def question(self) -> "InferCall":
        """The call without where its answer goes and which rows need it: equal questions have equal answers."""
        return replace(self, out=Column(""), guards=())

    def reads(self) -> set[str]:
        """Names of the columns that the prompt and the guards read."""
        return column_names(self.prompt) | {n for g in self.guards for n in column_names(g)}


@dataclass(frozen=True, slots=True)
class LogicalPlan:
    """A node; frozen."""

    @property
    def columns(self) -> tuple[Column, ...]:
        """What the node yields, in order."""
        raise TypeError(f"{type(self).__name__} has no columns")

    @property
    def computed(self) -> tuple[Column, ...]:
        """What the node yields, and what it needs on the way."""
        return self.columns


@dataclass(frozen=True, slots=True)
class Unary(LogicalPlan):
    """A node over one child that yields its child's columns."""

    child: LogicalPlan

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.child.columns


@dataclass(frozen=True, slots=True)
class Scan(LogicalPlan):
    """A DuckDB query whose select list yields `outputs` in order; it reads `inputs` as tables of the given names.

    sides: of a join of stored tables and files, the one that each output comes from, "" where that is not plain.
    files: those of them that are files, which may have other rows when they are read again.
    """

    outputs: tuple[Column, ...]
    sql: str
    inputs: tuple[tuple[str, LogicalPlan], ...] = ()
    label: str = ""
    sides: tuple[str, ...] = ()
    files: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.outputs


@dataclass(frozen=True, slots=True)
class Filter(Unary):
    """Rows for which the predicate is TRUE."""

    predicate: ast.Expr


@dataclass(frozen=True, slots=True)
class Infer(Unary):
    """Its child's columns, then one per call. Calls of one node do not read each other."""

    calls: tuple[InferCall, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        return (*self.child.columns, *(call.out for call in self.calls))


@dataclass(frozen=True, slots=True)
class Window(Unary):
    """Its child's columns, then one per window function over all its rows."""

    added: tuple[Column, ...]
    exprs: tuple[ast.Expr, ...]
    named: tuple[ast.NamedWindow, ...] = ()

    @property
    def columns(self) -> tuple[Column, ...]:
        return (*self.child.columns, *self.added)


@dataclass(frozen=True, slots=True)
class Project(Unary):
    """One expression per output column."""

    outputs: tuple[Column, ...]
    exprs: tuple[ast.Expr, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.outputs


@dataclass(frozen=True, slots=True)
class Aggregate(Unary):
    """One row per group. `exprs` are the grouping keys and aggregates; `grouping` is the GROUP BY clause's items."""

    outputs: tuple[Column, ...]
    exprs: tuple[ast.Expr, ...]
    grouping: tuple[ast.Expr | ast.GroupingSets, ...]

    @property
    def columns(self) -> tuple[Column, ...]:
        return self.outputs


@dataclass(frozen=True, slots=True)
class Distinct(Unary):
    """One row of equal ones; with `on`, the first for each value of those expressions in the order of `keys`."""

    on: tuple[ast.Expr, ...] = ()
    keys: tuple[ast.OrderItem, ...] = ()


@dataclass(frozen=True, slots=True)
class Sort(Unary):
    """Rows in order of the keys."""

    keys: tuple[ast.OrderItem, ...]


@dataclass(frozen=True, slots=True)
class Limit(Unary):
    """At most `limit` rows after `offset`; both are expressions without columns."""

    limit: ast.Limit | None
    offset: ast.Expr | None = None


def children(plan: LogicalPlan) -> tuple[LogicalPlan, ...]:
    """The plans that a node reads."""
    if isinstance(plan, Scan):
        return tuple(child for _, child in plan.inputs)
    return (plan.child,) if isinstance(plan, Unary) else ()


def with_children(plan: LogicalPlan, new: tuple[LogicalPlan, ...]) -> LogicalPlan:
    """`plan` over other children; the same object where they are the same."""
    if all(a is b for a, b in zip(children(plan), new, strict=True)):
        return plan
    if isinstance(plan, Scan):
        return replace(plan, inputs=tuple((name, child) for (name, _), child in zip(plan.inputs, new, strict=True)))
    return replace(plan, child=new[0])  # type: ignore[call-arg]


def transform_plan(plan: LogicalPlan, rewrite: Callable[[LogicalPlan], LogicalPlan]) -> LogicalPlan:
    """Rebuild bottom-up: `rewrite` sees each node after its children and returns it or another."""
    return rewrite(with_children(plan, tuple(transform_plan(child, rewrite) for child in children(plan))))


def map_expressions(plan: LogicalPlan, rewrite: Callable[[ast.Expr], ast.Expr]) -> LogicalPlan:
    """`plan` with `rewrite` applied to the expressions of this node alone."""

    def part(node: ast.Node) -> ast.Node:
        return rewrite(node) if isinstance(node, ast.Expr) else ast_with(node, [part(c) for c in ast_children(node)])

    def call(found: InferCall) -> InferCall:
        prompt = rewrite(found.prompt)
        assert isinstance(prompt, Prompt)
        return replace(found, prompt=prompt, guards=tuple(rewrite(g) for g in found.guards))

    changes: dict[str, object] = {}
    for spec in fields(plan):
        value = getattr(plan, spec.name)
        if isinstance(value, ast.Node):
            changes[spec.name] = part(value)
        elif isinstance(value, tuple) and value and isinstance(value[0], ast.Node):
            changes[spec.name] = tuple(part(item) for item in value)
        elif spec.name == "calls":
            changes[spec.name] = tuple(call(item) for item in value)
    return replace(plan, **changes) if changes else plan


def walk_plan(plan: LogicalPlan) -> Iterator[LogicalPlan]:
    """The node and all below it, parents first."""
    yield plan
    for child in children(plan):
        yield from walk_plan(child)


def column_names(expr: ast.Node) -> set[str]:
    """Names of the columns that an expression over plan columns reads."""
    return {node.path[0] for node in walk(expr) if isinstance(node, ast.Column)}


def infer(child: LogicalPlan, calls: tuple[InferCall, ...]) -> LogicalPlan:
    """`child` with calls on top; no calls, no node."""
    return Infer(child, calls) if calls else child


def terms(predicate: ast.Expr) -> tuple[ast.Expr, ...]:
    """The operands of a conjunction, parentheses around it removed."""
    while isinstance(predicate, ast.Paren):
        predicate = predicate.expr
    if isinstance(predicate, ast.And):
        return tuple(t for term in predicate.terms for t in terms(term))
    return (predicate,)


def conjunction(parts: Sequence[ast.Expr]) -> ast.Expr | None:
    """All of the parts as one predicate; None where there are none."""
    wrapped = tuple(part if isinstance(part, ast.Paren) else ast.Paren(part) for part in parts)
    return None if not wrapped else wrapped[0] if len(wrapped) == 1 else ast.And(wrapped)


def over_outputs(node: N, outputs: Sequence[Column], exprs: Sequence[ast.Expr]) -> N | None:
    """`node` over the input of a projection rather than its outputs; None where it reads what is drawn afresh."""
    values = {c.name: e if isinstance(e, ast.Column) else ast.Paren(e) for c, e in zip(outputs, exprs, strict=True)}
    if any(is_volatile(values[name]) for name in column_names(node) & values.keys()):
        return None

    def visit(current: ast.Node) -> ast.Node:
        return values.get(current.path[0], current) if isinstance(current, ast.Column) else current

    return transform(node, visit)  # type: ignore[return-value]


def is_volatile(node: ast.Node) -> bool:
    """Whether evaluating an expression twice may give two values."""
    return any(isinstance(n, ast.Call) and n.name[-1].lower() in _VOLATILE for n in walk(node))


def is_repeatable(expr: ast.Expr) -> bool:
    """Whether an expression may be evaluated elsewhere or again: it has one value, and is no query."""
    return not is_volatile(expr) and not any(isinstance(node, ast.Query) for node in walk(expr))


def user_names(plans: Sequence[LogicalPlan]) -> dict[str, str]:
    """What the user calls each plan column: an output's alias, else the column or expression it came from."""
    names: dict[str, str] = {}
    nodes = [node for plan in plans for node in walk_plan(plan)]
    for node in reversed(nodes):
        for column in node.computed:
            names.setdefault(column.name, column.label)
    for node in nodes:
        if isinstance(node, Project | Aggregate):
            for column, expr in zip(node.outputs, node.exprs, strict=True):
                if isinstance(expr, ast.Column) and names[column.name]:
                    names[expr.path[0]] = names[column.name]
    return names
