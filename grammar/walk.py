"""Walking and rewriting any tree; nothing here recurses, so depth costs no stack."""

from collections.abc import Callable, Iterator
from dataclasses import fields, replace
from functools import cache
from typing import Any

from dql.grammar.ast.nodes import Node, Path, Span

_PLAIN = (str, str | None, bool, bool | None, int, Path, Span)


def children(node: Node) -> list[Node]:
    """The nodes directly below, in the order of their fields."""
    found: list[Node] = []
    kind: Any = type(node)
    for name in _may_hold_nodes(kind):
        value = getattr(node, name)
        if value.__class__ is tuple:
            found += [item for item in value if isinstance(item, Node)]
        elif isinstance(value, Node):
            found.append(value)
    return found


@cache
def _may_hold_nodes(kind: type[Node]) -> tuple[str, ...]:
    """Fields of a class that are not plain text, numbers or flags: every walk of every tree asks for them."""
    return tuple(field.name for field in fields(kind) if field.type not in _PLAIN)


def walk(node: Node) -> Iterator[Node]:
    """The node and all below it, parents first, in the order of their fields."""
    pending = [node]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(reversed(children(node)))


def transform(node: Node, rewrite: Callable[[Node], Node]) -> Node:
    """Rebuild bottom-up: `rewrite` sees each node after its children were rewritten and returns it or another.

    Where nothing changes the very same objects come back.
    """
    done: list[Node] = []
    pending: list[tuple[Node, bool]] = [(node, False)]
    while pending:
        current, ready = pending.pop()
        below = children(current)
        if not ready:
            pending.append((current, True))
            pending.extend((child, False) for child in reversed(below))
            continue
        new = done[len(done) - len(below) :]
        del done[len(done) - len(below) :]
        if any(a is not b for a, b in zip(below, new, strict=True)):
            current = with_children(current, new)
        done.append(rewrite(current))
    return done[0]


def with_children(node: Node, new: list[Node]) -> Node:
    """`node` with its children, in the order of `children`, replaced by `new`; the same object where they are."""
    values: dict[str, Any] = {}
    remaining = iter(new)
    kind: Any = type(node)
    for name in _may_hold_nodes(kind):
        value = getattr(node, name)
        if value.__class__ is tuple:
            items = tuple(next(remaining) if isinstance(item, Node) else item for item in value)
            if any(a is not b for a, b in zip(items, value, strict=True)):
                values[name] = items
        elif isinstance(value, Node) and (other := next(remaining)) is not value:
            values[name] = other
    return replace(node, **values) if values else node
