"""Expressions made ready for binding: macros expanded, inference calls checked and marked, their templates parsed."""

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from dql.errors import BindError, PlanError
from dql.grammar import ast
from dql.grammar.parser import parse_type
from dql.grammar.template import substitute
from dql.grammar.walk import children, transform, with_children
from dql.planner.calls import bind_call, is_inference
from dql.planner.environment import Environment, Macro
from dql.planner.guards import Inference

N = TypeVar("N", bound=ast.Node)
_MAX_EXPANSION = 50  # macros inside macros; a cycle would never end


def prepare(node: ast.Node, env: Environment, holes: Callable[[ast.Expr], ast.Expr], depth: int = 0) -> ast.Node:
    """`node` with each inference call as an `Inference`, its holes prepared too. Queries below are left alone.

    holes: what is done to a template's hole and to the body of a macro first, as it has been done to `node`.
    """

    def prepared(expr: ast.Expr) -> ast.Expr:
        found = prepare(holes(expr), env, holes, depth)
        assert isinstance(found, ast.Expr)
        return found

    if isinstance(node, ast.Query):
        return node
    if isinstance(node, ast.Call) and is_inference(node, env):
        if (macro := env.macros.get(node.name[-1].lower())) is not None:
            if depth > _MAX_EXPANSION:
                raise PlanError(f"function {node.name[-1]} calls itself", span=node.span)
            expanded = holes(expand(node, macro))
            return replace(prepare(expanded, env, holes, depth + 1), span=node.span)
        below = with_children(node, [prepare(child, env, holes, depth) for child in children(node)])
        assert isinstance(below, ast.Call)
        return bind_call(below, env, prepared)
    return with_children(node, [prepare(child, env, holes, depth) for child in children(node)])


def typed(node: N) -> N:
    """`node` with every `Inference` as a NULL of its type: what DuckDB is shown to tell names and types."""

    def as_null(current: ast.Node) -> ast.Node:
        if isinstance(current, Inference):
            return ast.Cast(ast.Constant("NULL"), parse_type(current.call.out.type))
        return current

    return transform(node, as_null)  # type: ignore[return-value]


def expand(call: ast.Call, macro: Macro) -> ast.Expr:
    """The body of a macro with the call's arguments in the place of its parameters, in templates as well."""
    names = [p.name.lower() for p in macro.params]
    values = {p.name.lower(): p.default for p in macro.params if p.default is not None}
    for i, arg in enumerate(call.args):
        if isinstance(arg, ast.NamedArg) and isinstance(arg.value, ast.Expr):
            values[arg.name.lower()] = arg.value
        elif isinstance(arg, ast.Expr) and i < len(names):
            values[names[i]] = arg
        else:
            usage = f"{call.name[-1]}({', '.join(names)})"
            raise BindError(f"{call.name[-1]} takes {len(names)} arguments", span=arg.span, hint=f"write {usage}")
    for name in names:
        if name not in values:
            raise BindError(f"{call.name[-1]} needs {name}", span=call.span)
    return substitute(blamed(macro.body, call.span), {name: ast.Paren(value) for name, value in values.items()})


def blamed(node: N, span: ast.Span) -> N:
    """`node`, written elsewhere, with this place for all that may be wrong with it."""

    def visit(current: ast.Node) -> ast.Node:
        return replace(current, span=span, raw="") if isinstance(current, ast.String) else replace(current, span=span)

    return transform(node, visit)  # type: ignore[return-value]
