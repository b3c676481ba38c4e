"""Constant expressions as Python data: options, labels and settings must be known before a query runs."""

from collections.abc import Mapping

from dql.errors import BindError
from dql.grammar import ast
from dql.planner.bind_contract import parameter

_LIST_CALLS = {"array", "list_value", "list_pack", "array_construct"}


def constant(node: ast.Node, params: Mapping[str, object]) -> object:
    """The value of a literal, list, struct or parameter. Raises BindError where it depends on a row."""
    match node:
        case ast.String():
            return node.value
        case ast.Number():
            return number(node.text)
        case ast.Constant():
            return {"TRUE": True, "FALSE": False}.get(node.word)
        case ast.Param():
            return parameter(node, params)
        case ast.Paren():
            return constant(node.expr, params)
        case ast.Unary(operator="-"):
            value = constant(node.operand, params)
            if isinstance(value, int | float):
                return -value
        case ast.ListExpr() | ast.Row():
            return [constant(item, params) for item in node.items]
        case ast.Call() if node.name[-1].lower() in _LIST_CALLS:
            return [constant(arg, params) for arg in node.args]
        case ast.StructExpr():
            return {_key(entry.key, params): constant(entry.value, params) for entry in node.entries}
        case ast.Column() if len(node.path) == 1 and node.path[0].lower() in ("true", "false"):
            return node.path[0].lower() == "true"
    raise BindError("this must be a constant", span=node.span, hint="write a literal or a parameter such as $labels")


def number(text: str) -> int | float:
    """A number as SQL writes it."""
    plain = text.replace("_", "")
    return int(plain) if plain.isdecimal() else float(plain)


def _key(node: ast.Expr, params: Mapping[str, object]) -> str:
    if isinstance(node, ast.Column):
        return node.path[-1]
    return str(constant(node, params))
