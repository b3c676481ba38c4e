from dql.grammar import ast
from dql.planner.logical import (
    Filter,
    Infer,
    Limit,
    LogicalPlan,
    Project,
    Sort,
    column_names,
    over_outputs,
    transform_plan,
    with_children,
)

Keys = tuple[ast.OrderItem, ...]


def stop_in_order(plan: LogicalPlan) -> LogicalPlan:
    """Under a LIMIT, rows are sorted before a filter with inference where the order reads none of its answers.

    A filter keeps the order, so the first rows that pass are the result, and no row after them is asked about.
    """

    def rewrite(node: LogicalPlan) -> LogicalPlan:
        match node:
            case Limit(child=Sort(child=Filter(child=below, predicate=predicate), keys=keys)) if _is_count(node):
                sorted_below = _push(keys, below)
                if sorted_below is not None:
                    return with_children(node, (Filter(sorted_below, predicate),))
        return node

    return transform_plan(plan, rewrite)


def _is_count(node: Limit) -> bool:
    return node.limit is not None and not node.limit.percent


def _push(keys: Keys, below: LogicalPlan) -> LogicalPlan | None:
    """`below` with its rows sorted under its topmost calls, or None where the order reads those or there are none."""
    match below:
        case Infer() if not {n for key in keys for n in column_names(key)} & {c.out.name for c in below.calls}:
            return with_children(below, (_push(keys, below.child) or Sort(below.child, keys),))
        case Filter():
            inner: Keys | None = keys
        case Project():
            moved = [over_outputs(key, below.outputs, below.exprs) for key in keys]
            inner = None if None in moved else tuple(key for key in moved if key is not None)
        case _:
            return None
    child = _push(inner, below.child) if inner is not None else None
    return with_children(below, (child,)) if child is not None else None
