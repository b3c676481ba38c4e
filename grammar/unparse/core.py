"""The printer's door and what all printers share."""

from collections.abc import Iterable
from functools import singledispatch

from dql.grammar.ast import Node
from dql.grammar.literals import quote_name


@singledispatch
def to_sql(node: Node) -> str:
    """Canonical text of any node, on one line; islands verbatim.

    Parsing it gives the node back. Where a tree was built by hand with operands that bind looser than their operator,
    brackets are added; nothing else is.
    """
    raise TypeError(f"no text for {type(node).__name__}")


def join(nodes: Iterable[Node], separator: str = ", ") -> str:
    """Texts of the nodes with a separator between them."""
    return separator.join([to_sql(node) for node in nodes])


def words(*parts: str | None) -> str:
    """The parts that are there, with a space between them."""
    return " ".join([part for part in parts if part])


def clause(keyword: str, node: Node | None) -> str:
    """`KEYWORD node`, or nothing."""
    return f"{keyword} {to_sql(node)}" if node is not None else ""


def path(parts: Iterable[str]) -> str:
    """A dotted name."""
    return ".".join([quote_name(part) for part in parts])


def names(parts: Iterable[str]) -> str:
    """`a, b`."""
    return ", ".join([quote_name(part) for part in parts])
