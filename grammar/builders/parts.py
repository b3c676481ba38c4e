"""What builders share: picking tokens, nodes and clauses out of the children of a rule."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, TypeVar

from dql.grammar.ast import Expr, Node, OrderItem, Span
from dql.grammar.lexer import Token
from dql.grammar.literals import name_value, string_value

Children = list[Any]
Builder = Callable[[Children, Span], Any]
N = TypeVar("N", bound=Node)


@dataclass(frozen=True, slots=True)
class Part:
    """A clause on its way to the node it belongs to."""

    name: str
    value: Any
    span: Span


def keywords(children: Children) -> set[str]:
    """Types of the tokens among the children."""
    return {child.type for child in children if isinstance(child, Token)}


def nodes(children: Children, kind: type[N]) -> tuple[N, ...]:
    """The children of a kind of node, in order."""
    return tuple(child for child in children if isinstance(child, kind))


def only(children: Children, kind: type[N]) -> N | None:
    """The first child of a kind of node, if there is one."""
    return next((child for child in children if isinstance(child, kind)), None)


def exprs(children: Children) -> tuple[Expr, ...]:
    """The expressions among the children."""
    return nodes(children, Expr)


def after(children: Children, *types: str) -> Any:
    """The child after the first token of one of the types; None without it."""
    for i, child in enumerate(children):
        if isinstance(child, Token) and child.type in types:
            return children[i + 1]
    return None


def clause(children: Children, name: str, default: Any = None) -> Any:
    """The value of the part of that name."""
    return next((child.value for child in children if isinstance(child, Part) and child.name == name), default)


def order(children: Children) -> tuple[OrderItem, ...]:
    """The items of ORDER BY, () without one."""
    return tuple(clause(children, "order_by", ()))


def token_names(children: Children) -> tuple[str, ...]:
    """The names among the tokens, without quotes."""
    return tuple(name_value(child.text) for child in children if isinstance(child, Token) and child.type == "NAME")


def label(children: Children) -> str | None:
    """The name or string after AS."""
    token = after(children, "AS")
    if token is None:
        return None
    return string_value(token.text) if token.type == "STRING" else name_value(token.text)


def span_of(child: Any) -> Span:
    """Where a token, part or node stands."""
    return (child.start, child.end) if isinstance(child, Token) else child.span


def make_part(name: str, pick: Callable[[Children], Any]) -> Builder:
    """A builder of parts of that name."""
    return lambda children, span: Part(name, pick(children), span)
