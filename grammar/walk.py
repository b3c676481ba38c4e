"""Walking and rewriting any tree; nothing here recurses, so depth costs no stack."""

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

from dql.grammar.ast.nodes import Node


def children(node: Node) -> Iterator[Node]:
    """The nodes directly below, in the order of their fields."""
    for name in node.__dataclass_fields__:
        value = getattr(node, name)
        if isinstance(value, Node):
            yield value
        elif isinstance(value, tuple):
            yield from (item for item in value if isinstance(item, Node))


def walk(node: Node) -> Iterator[Node]:
    """The node and all below it, parents first, in the order of their fields."""
    pending = [node]
    while pending:
        node = pending.pop()
        yield node
        pending.extend(reversed(list(children(node))))


def transform(node: Node, rewrite: Callable[[Node], Node]) -> Node:
    """Rebuild bottom-up: `rewrite` sees each node after its children were rewritten and returns it or another.

    Where nothing changes the very same objects come back.
    """
    done: list[Node] = []
    pending: list[tuple[Node, bool]] = [(node, False)]
    while pending:
        current, ready = pending.pop()
        below = list(children(current))
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
    """`node` with its children, in the order of `children`, replaced by `new`."""
    values: dict[str, Any] = {}
    remaining = iter(new)
    for name in node.__dataclass_fields__:
        value = getattr(node, name)
        if isinstance(value, Node):
            values[name] = next(remaining)
        elif isinstance(value, tuple):
            values[name] = tuple(next(remaining) if isinstance(item, Node) else item for item in value)
    return replace(node, **values)
