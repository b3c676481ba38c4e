from dataclasses import replace

from dql.grammar import ast
from dql.grammar.walk import transform
from dql.planner.logical import Infer, LogicalPlan, map_expressions, transform_plan
from dql.planner.row_text import RowText


def order_fields(plan: LogicalPlan) -> LogicalPlan:
    """RowText of `{*}` come in the order in which most prompts begin alike; the language leaves it to the planner."""

    def ordered(node: ast.Node) -> ast.Node:
        if not isinstance(node, RowText) or not node.best:
            return node
        names, values = [node.names[i] for i in node.best], [node.values[i] for i in node.best]
        return replace(node, names=tuple(names), values=tuple(values), best=())

    def rewrite(expr: ast.Expr) -> ast.Expr:
        return transform(expr, ordered)  # type: ignore[return-value]

    return transform_plan(plan, lambda node: map_expressions(node, rewrite) if isinstance(node, Infer) else node)
