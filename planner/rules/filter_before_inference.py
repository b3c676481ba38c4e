from dql.grammar import ast
from dql.planner.logical import Filter, Infer, LogicalPlan, column_names, transform_plan


def filter_before_inference(plan: LogicalPlan) -> LogicalPlan:
    """A filter that reads no answer goes below the calls: they run only for the rows it leaves."""

    def rewrite(node: LogicalPlan) -> LogicalPlan:
        return (_push(node.predicate, node.child) or node) if isinstance(node, Filter) else node

    return transform_plan(plan, rewrite)


def _push(predicate: ast.Expr, below: LogicalPlan) -> LogicalPlan | None:
    """`below` with the filter under its topmost calls, or None where those are read or there are none."""
    if isinstance(below, Filter):
        child = _push(predicate, below.child)
        return Filter(child, below.predicate) if child is not None else None
    if isinstance(below, Infer) and not column_names(predicate) & {call.out.name for call in below.calls}:
        return Infer(_push(predicate, below.child) or Filter(below.child, predicate), below.calls)
    return None
