"""The raw tokens of a text."""

from dataclasses import dataclass, field

from dql.errors import ParseError
from dql.grammar.literals import name_value


@dataclass(slots=True)
class Tokens:
    """The tokens of a text as parallel lists; a token is known by its index. The last one is of kind EOF.

    functions, tables: the names with inference it was scanned with. upper: the word in upper case, the symbol, or ""
    for what is neither. match: index of the other bracket or -1. opens_query: whether this `(` opens a query.
    inference: number of inference marks before each token.
    """

    text: str
    functions: frozenset[str] = frozenset()
    tables: frozenset[str] = frozenset()
    kind: list[str] = field(default_factory=list)
    start: list[int] = field(default_factory=list)
    end: list[int] = field(default_factory=list)
    upper: list[str] = field(default_factory=list)
    match: list[int] = field(default_factory=list)
    opens_query: list[bool] = field(default_factory=list)
    inference: list[int] = field(default_factory=list)

    def infers(self, lo: int, hi: int) -> bool:
        """Is there inference in tokens lo to hi?"""
        return self.inference[hi] > self.inference[lo]

    def name(self, i: int) -> str:
        """The token as a name in upper case, without quotes; "" if it is none."""
        return name_value(self.spelling(i)).upper() if self.kind[i] == "QUOTED" else self.upper[i]

    def spelling(self, i: int) -> str:
        """The token as written."""
        return self.text[self.start[i] : self.end[i]]

    def is_name(self, i: int) -> bool:
        """A word or a quoted name."""
        return self.kind[i] in ("WORD", "QUOTED")

    def error(self, message: str, i: int, hint: str | None = None) -> ParseError:
        """A ParseError at token i."""
        return ParseError(message, text=self.text, span=(self.start[i], self.end[i]), hint=hint)
