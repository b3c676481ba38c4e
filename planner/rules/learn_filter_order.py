from dql.grammar import ast
from dql.planner.logical import (
    Distinct,
    Filter,
    LogicalPlan,
    Scan,
    children,
    column_names,
    map_expressions,
    with_children,
)
from dql.planner.sift import sifted


def learn_filter_order(plan: LogicalPlan) -> LogicalPlan:
    """Operands of AND and OR with inference are asked in an order that is learnt while they are asked.

    Neither has an order in SQL, and a row is asked only what those before it left open, whichever they are.
    """
    return _visit(plan, {column.name for column in plan.columns})


def _visit(node: LogicalPlan, read_above: set[str]) -> LogicalPlan:
    if isinstance(node, Filter) and (found := sifted(node, read_above)) is not None:
        conditions = found.conditions
        read = {name for call in conditions.calls for name in call.reads()} | column_names(conditions.predicate)
        return with_children(found, (_visit(found.child, read_above | read),))
    new: list[LogicalPlan] = []
    for child in children(node):
        is_read_whole = isinstance(node, Scan) or (isinstance(node, Distinct) and not node.on)
        new.append(_visit(child, {c.name for c in child.columns} if is_read_whole else read_above | _reads(node)))
    return with_children(node, tuple(new))


def _reads(node: LogicalPlan) -> set[str]:
    """Columns that the node's own expressions read."""
    names: set[str] = set()

    def note(expr: ast.Expr) -> ast.Expr:
        names.update(column_names(expr))
        return expr

    map_expressions(node, note)
    return names
