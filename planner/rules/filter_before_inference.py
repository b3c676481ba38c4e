from dql.grammar import ast
from dql.planner.logical import (
    Aggregate,
    Distinct,
    Filter,
    Infer,
    LogicalPlan,
    Project,
    Sort,
    column_names,
    over_outputs,
    transform_plan,
    with_children,
)


def filter_before_inference(plan: LogicalPlan) -> LogicalPlan:
    """A filter that reads no answer goes below the calls: they run only for the rows it leaves."""

    def rewrite(node: LogicalPlan) -> LogicalPlan:
        return (_push(node.predicate, node.child) or node) if isinstance(node, Filter) else node

    return transform_plan(plan, rewrite)


def _push(predicate: ast.Expr, below: LogicalPlan) -> LogicalPlan | None:
    """`below` with the filter under its topmost calls, or None where those are read or there are none."""
    match below:
        case Infer() if not column_names(predicate) & {call.out.name for call in below.calls}:
            return Infer(_push(predicate, below.child) or Filter(below.child, predicate), below.calls)
        case Filter() | Sort() | Distinct(on=()):
            inner: ast.Expr | None = predicate
        case Project():
            inner = over_outputs(predicate, below.outputs, below.exprs)
        case Aggregate() if column_names(predicate) <= _keys(below):
            inner = over_outputs(predicate, below.outputs, below.exprs)
        case _:
            return None
    child = _push(inner, below.child) if inner is not None else None
    return with_children(below, (child,)) if child is not None else None


def _keys(below: Aggregate) -> set[str]:
    """Columns that are the same in all rows of a group; none where rows are in several groups."""
    if not all(isinstance(key, ast.Column) for key in below.grouping):
        return set()
    return {c.name for c, expr in zip(below.outputs, below.exprs, strict=True) if expr in below.grouping}
