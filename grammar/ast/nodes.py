"""What every node is: frozen, with the place in the text it came from."""

from dataclasses import dataclass, field

Span = tuple[int, int]  # half-open character range in the whole text that was parsed
Path = tuple[str, ...]  # a dotted name, without quotes


@dataclass(frozen=True, slots=True)
class Node:
    """Anything in the tree. Two nodes are equal when they mean the same text; where they stood does not count."""

    span: Span = field(default=(0, 0), compare=False, repr=False, kw_only=True)


@dataclass(frozen=True, slots=True)
class Expr(Node):
    """A scalar expression."""


@dataclass(frozen=True, slots=True)
class QueryBody(Node):
    """What a query says between its CTEs and its ORDER BY."""


@dataclass(frozen=True, slots=True)
class Table(Node):
    """One item of FROM."""


@dataclass(frozen=True, slots=True)
class Statement(Node):
    """One statement of a text."""


@dataclass(frozen=True, slots=True)
class Word(Node):
    """A name whose meaning the planner decides: a bound, a unit, an option, a setting's value (`int8`)."""

    text: str
