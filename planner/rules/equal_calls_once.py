from collections.abc import Mapping
from dataclasses import replace

from dql.grammar import ast
from dql.grammar.walk import transform
from dql.planner.logical import (
    Filter,
    Infer,
    InferCall,
    Limit,
    LogicalPlan,
    Sort,
    Unary,
    Window,
    infer,
    is_volatile,
    map_expressions,
    transform_plan,
)


def equal_calls_once(plan: LogicalPlan) -> LogicalPlan:
    """Calls that ask the same of a row are made once; the others read that answer."""
    renamed: dict[str, str] = {}

    def rewrite(node: LogicalPlan) -> LogicalPlan:
        node = map_expressions(node, lambda expr: _rename(expr, renamed)) if renamed else node
        if not isinstance(node, Infer):
            return node
        kept: list[InferCall] = []
        for call in node.calls:
            same = _answered(call, node.child) or next((k for k in kept if _equal(k, call)), None)
            if same is None:
                kept.append(call)
                continue
            renamed[call.out.name] = same.out.name
            if same in kept:
                kept[kept.index(same)] = replace(same, guards=_either(same, call))
        return infer(node.child, tuple(kept)) if len(kept) < len(node.calls) else node

    return transform_plan(plan, rewrite)


def _equal(one: InferCall, other: InferCall) -> bool:
    return one.question == other.question and one.decoding.is_function and not is_volatile(one.prompt)


def _answered(call: InferCall, below: LogicalPlan) -> InferCall | None:
    """An equal call further down whose answer every row still carries."""
    while isinstance(below, Unary) and isinstance(below, Infer | Filter | Sort | Limit | Window):
        for known in below.calls if isinstance(below, Infer) else ():
            if _equal(known, call) and (not known.guards or known.guards == call.guards):
                return known
        below = below.child
    return None


def _either(one: InferCall, other: InferCall) -> tuple[ast.Expr, ...]:
    """Guards under which either call runs."""
    if one.guards == other.guards:
        return one.guards
    if not one.guards or not other.guards:
        return ()
    return (ast.Or((_all(one.guards), _all(other.guards))),)


def _all(guards: tuple[ast.Expr, ...]) -> ast.Expr:
    return ast.Paren(guards[0] if len(guards) == 1 else ast.And(guards))


def _rename(expr: ast.Expr, renamed: Mapping[str, str]) -> ast.Expr:
    def visit(node: ast.Node) -> ast.Node:
        if isinstance(node, ast.Column) and node.path[0] in renamed:
            return replace(node, path=(renamed[node.path[0]], *node.path[1:]))
        return node

    found = transform(expr, visit)
    assert isinstance(found, ast.Expr)
    return found
