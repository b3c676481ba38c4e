"""Calls that stand where their type cannot: found while nothing has run, and said in the user's words."""

from collections.abc import Iterator

from dql.errors import BindError
from dql.grammar import ast
from dql.grammar.walk import walk
from dql.planner.guards import Inference


def check_types(select: ast.Select) -> None:
    """Raise BindError for a text or a struct as a condition, and for a field of a call that yields no struct."""
    for clause in (select.where, select.having, select.qualify):
        for call in _conditions(clause):
            if call.call.details:
                hint = "write (…).value, or leave out details"
                raise BindError("with details => true a call yields a struct, no condition", span=call.span, hint=hint)
            if call.call.out.type.startswith("VARCHAR"):
                hint = "ask for a condition with AI_FILTER('…'), or compare the text: … = 'yes'"
                raise BindError("a text is no condition", span=call.span, hint=hint)
    for node in walk(select):
        if not isinstance(node, ast.FieldAccess):
            continue
        operand = _inside(node.operand)
        if isinstance(operand, Inference) and not operand.call.details:
            hint = "with details => true in the call its result is a struct with value, confidence, …"
            raise BindError(f"this call yields {operand.call.out.type}, without fields", span=operand.span, hint=hint)


def _conditions(node: ast.Node | None) -> Iterator[Inference]:
    """The calls whose value decides alone."""
    node = _inside(node) if node is not None else None
    if isinstance(node, Inference):
        yield node
    elif isinstance(node, ast.And | ast.Or):
        for term in node.terms:
            yield from _conditions(term)
    elif isinstance(node, ast.Not):
        yield from _conditions(node.operand)


def _inside(node: ast.Node) -> ast.Node:
    while isinstance(node, ast.Paren):
        node = node.expr
    return node
