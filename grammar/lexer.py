"""Raw tokens to terminals, decided by what the parser can take at each place.

A word is a keyword only where the parser would shift it, else it is a name; a query without inference is one terminal.
"""

from collections.abc import Callable, Iterator, Sequence

from dql.grammar.blocks import is_sample, query_end
from dql.grammar.names import INTERVAL_UNITS, ISLAND_HEADS, RESERVED
from dql.grammar.tables import Tables
from dql.grammar.tokens import Tokens

MAX_TOKENS = 50_000
_COMPARISONS = frozenset(("==", "<>", "!=", "<", ">", "<=", ">="))
_AFTER_LIMIT = frozenset((")", "OFFSET", "USING", "WITH", "INTO", "AGAINST", ";"))


class Token:
    """A terminal with its text and place; `index` is its first raw token.

    The text of a SUBQUERY is without its brackets, and starts at `text_start`; its place is with them.
    """

    __slots__ = ("end", "index", "start", "text", "text_start", "type")

    def __init__(self, type: str, text: str, start: int, end: int, index: int, text_start: int) -> None:
        self.type, self.text, self.start, self.end, self.index = type, text, start, end, index
        self.text_start = text_start

    def __repr__(self) -> str:
        return f"{self.type}:{self.text!r}"


Decide = Callable[[Tokens, int], bool]


def _next_is(*symbols: str) -> Decide:
    return lambda tokens, i: tokens.upper[i + 1] in symbols


def _after(*words: str) -> Decide:
    return lambda tokens, i: tokens.upper[i - 1] in words


def _opens_frame(tokens: Tokens, i: int) -> bool:
    return tokens.upper[i + 1] not in (
        ")",
        "PARTITION",
        "ORDER",
        "ROWS",
        "RANGE",
        "GROUPS",
    )  # a window's name is before


def _opens_interval(tokens: Tokens, i: int) -> bool:
    return tokens.kind[i + 1] in ("STRING", "NUMBER") or tokens.upper[i + 1] == "("


def _before_name(tokens: Tokens, i: int) -> bool:
    return tokens.is_name(i + 1)


# Where the parser could take a word both as keyword and as name, its neighbour decides; without an entry: keyword.
_DECIDE: dict[str, Decide] = {
    "AI.EXTRACT": _next_is("("),
    "AI_EXTRACT": _next_is("("),
    "AT": _next_is("TIME"),
    "CASCADE": _next_is("("),
    "EXISTS": _next_is("("),
    "FILTER": _next_is("("),
    "GROUPING": _next_is("SETS"),
    "GROUPS": _opens_frame,
    "INTERVAL": _opens_interval,
    "MAP": _next_is("{"),
    "MAXIMIZE": _before_name,
    "MINIMIZE": _before_name,
    "PRECISION": _after("DOUBLE"),
    "RANGE": _opens_frame,
    "ROWS": _opens_frame,
    "TRY_CAST": _next_is("("),
    "VARYING": _after("CHARACTER", "CHAR", "BIT"),
}


class Lexer:
    """Reads tokens lo to hi of a text. Without `islands`, queries without inference are read in structure too."""

    def __init__(self, tables: Tables, tokens: Tokens, lo: int, hi: int, *, islands: bool = True) -> None:
        self._tables, self._tokens, self._lo, self._hi, self._islands = tables, tokens, lo, hi, islands

    def read(self, states: Sequence[int]) -> Iterator[Token]:
        """The terminals, each decided by the parser's stack when it is asked for.

        Raises ParseError past the cap on their number.
        """
        tokens, i = self._tokens, self._lo
        kind, start, end, text = tokens.kind, tokens.start, tokens.end, tokens.text
        for _ in range(MAX_TOKENS):
            if i >= self._hi:
                return
            if kind[i] == "WORD":
                terminal, first, after = self._word(i, states)
            elif kind[i] == "SYMBOL":
                terminal, first, after = self._symbol(i, states)
            else:
                terminal, first, after = "NAME" if kind[i] == "QUOTED" else kind[i], i, i + 1
            last = after - 2 if terminal == "SUBQUERY" else after - 1
            yield Token(terminal, text[start[first] : end[last]], start[i], end[after - 1], i, start[first])
            i = after
        hint = "put the parts without inference into subqueries, which are not counted, or split the statement"
        raise tokens.error(f"the statement has more than {MAX_TOKENS:,} words with inference about them", i, hint)

    def _symbol(self, i: int, states: Sequence[int]) -> tuple[str, int, int]:
        """The terminal, its first raw token, and the raw token after it."""
        tokens, takes = self._tokens, self._tables.takes
        symbol = tokens.upper[i]
        if symbol == "(":
            return self._bracket(i, states)
        if (
            symbol == "%"
            and (i + 1 == self._hi or tokens.upper[i + 1] in _AFTER_LIMIT)
            and takes(states, "PERCENT_WORD")
        ):
            return "PERCENT_WORD", i, i + 1  # LIMIT 10%
        terminal = self._tables.symbols.get(symbol) or ("CMP" if symbol in _COMPARISONS else "OP")
        return terminal, i, i + 1

    def _bracket(self, i: int, states: Sequence[int]) -> tuple[str, int, int]:
        tokens, takes, close = self._tokens, self._tables.takes, self._tokens.match[i]
        infers = tokens.infers(i, close)
        if tokens.opens_query[i] and not self._opens_row(i, states):
            if not self._islands:
                return "QOPEN", i, i + 1
            if not infers and takes(states, "QUERY_ISLAND"):  # (SELECT 1) UNION SELECT 2
                island = self._island(i)
                if island > i:
                    return "QUERY_ISLAND", i, island
            if infers or query_end(tokens, i + 1, close) < close:
                return "QOPEN", i, i + 1
            return "SUBQUERY", i + 1, close + 1
        if not infers and close > i + 1 and takes(states, "SUBQUERY") and not takes(states, "LPAR"):
            # cte AS (DELETE … RETURNING …)
            return "SUBQUERY", i + 1, close + 1
        return "LPAR", i, i + 1

    def _opens_row(self, i: int, states: Sequence[int]) -> bool:
        """Whether a bracket is that of a row of VALUES, though all of it is a query: VALUES ((SELECT 1))."""
        queries = any(self._tables.takes(states, terminal) for terminal in ("QUERY_ISLAND", "QOPEN", "SUBQUERY"))
        return not queries and i > self._lo and self._tokens.upper[i - 1] in ("VALUES", ",")

    def _island(self, i: int) -> int:
        """End of the query without inference that starts at i, or i if inference is in it."""
        end = query_end(self._tokens, i, self._hi, evaluated=self._tokens.upper[self._lo] == "EVALUATE")
        return i if self._tokens.infers(i, end) else end

    def _word(self, i: int, states: Sequence[int]) -> tuple[str, int, int]:
        tokens, takes = self._tokens, self._tables.takes
        word = tokens.upper[i]
        if self._islands and word in ISLAND_HEADS and takes(states, "QUERY_ISLAND"):
            island = self._island(i)
            if island > i:
                return "QUERY_ISLAND", i, island
        if word == "NOT" and tokens.upper[i + 1] == "NULL" and takes(states, "NOTNULL"):
            return "NOTNULL", i, i + 2
        return self._terminal(word, i, states), i, i + 1

    def _terminal(self, word: str, i: int, states: Sequence[int]) -> str:
        tokens, takes = self._tokens, self._tables.takes
        before, after = tokens.upper[i - 1] if i > self._lo else "", tokens.upper[i + 1]
        keyword = self._tables.words.get("AI_EXTRACT" if word == "AI.EXTRACT" else word, "")
        if before == "." or not (keyword or word in RESERVED or word in INTERVAL_UNITS):
            return "NAME"
        special = self._special(word, i, before, after)
        if special and takes(states, special):
            return special
        if word == "VALUES" and after == "(":  # no function's name
            return keyword
        if word in RESERVED:  # a keyword everywhere, but a name after AS
            as_label = before == "AS" and not takes(states, keyword) and takes(states, "NAME")
            return "NAME" if as_label else keyword or word
        if not takes(states, keyword):
            return "NAME"
        decide = _DECIDE.get(word)
        if decide is not None and not decide(tokens, i) and takes(states, "NAME"):
            return "NAME"
        return keyword

    def _special(self, word: str, i: int, before: str, after: str) -> str | None:
        """The terminal of a word that needs a second word to be told apart."""
        tokens = self._tokens
        if word == "WITH" and (after == "ORDINALITY" or (after == "TIME" and tokens.upper[i + 2] == "ZONE")):
            return "WITH_LA"
        if word == "USING" and is_sample(tokens, i):
            return "USING_SAMPLE"
        if word == "EXCEPT" and before == "*" and after == "(" and not tokens.opens_query[i + 1]:
            return "EXCLUDE"  # * EXCEPT (a)
        if word == "UNION" and after == "(" and not tokens.opens_query[i + 1]:
            return "NAME"  # x::UNION(a INT)
        return "INTERVAL_UNIT" if word in INTERVAL_UNITS else None
