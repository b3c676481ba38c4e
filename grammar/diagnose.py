"""Why a text does not parse: the place, what was found, and how to mend it."""

from collections.abc import Iterator
from difflib import get_close_matches

from dql.errors import ParseError
from dql.grammar.expected import AN_EXPRESSION, expected_words, one_of
from dql.grammar.lexer import Lexer
from dql.grammar.names import FUNCTION_WORDS, INFERENCE_NAMES, RESERVED, words
from dql.grammar.scanner import scan
from dql.grammar.tables import END, Tables
from dql.grammar.tokens import Tokens

_MAX_REPAIRED = 2_000  # tokens: past this no repair is tried
_ALIKE = 0.72
_CLAUSES = (
    *("FROM", "WHERE", "GROUP", "HAVING", "WINDOW", "QUALIFY", "ORDER", "LIMIT", "OFFSET", "USING", "WITH", "INTO"),
)
_ONLY_DUCKDB = words(
    """PIVOT UNPIVOT PIVOT_WIDER PIVOT_LONGER FETCH APPROX NEAREST ONLY SYMMETRIC ASYMMETRIC VARIADIC UNPACK
    OVERLAPS MATCH_RECOGNIZE GLOBAL !"""
)
_USAGE = {
    "GENERATE": "GENERATE 'template' [RETURNING type] [AS name]",
    "CLASSIFY": "CLASSIFY body IN ('a', 'b') [AS name]",
    "SCORE": "SCORE 'question' BETWEEN 1 AND 5 [AS name]",
    "EXTRACT": "EXTRACT body RETURNING STRUCT(field type, …) [AS name]",
    "EMBED": "EMBED body [AS name]",
}


class Diagnosis:
    """One statement (or expression) that does not parse: tokens lo to hi, read from rule `start`."""

    def __init__(self, tables: Tables, tokens: Tokens, lo: int, hi: int, start: str) -> None:
        self.tables, self.tokens, self.lo, self.hi, self.start = tables, tokens, lo, hi, start
        self.at, self.stack = _follow(tables, tokens, lo, hi, start)

    def error(self) -> ParseError:
        """The error for the first token that cannot stand where it does."""
        tokens, at = self.tokens, self.at
        repair = self._nearest()
        if repair:
            place, word = repair
            return tokens.error(f"unexpected {tokens.spelling(place)!r}", place, f"did you mean {word}?")
        if self._table_function():
            hint = "a function with inference is one expression; for rows write CREATE VIEW … AS SELECT …"
            return tokens.error("a function with inference yields no table", at - 1, hint)
        before = tokens.upper[at - 2] if at - self.lo >= 2 else ""
        if before == "AS" and tokens.upper[at - 1] in RESERVED and tokens.kind[at - 1] == "WORD":
            spelling = tokens.spelling(at - 1)
            hint = f'to use it as the name, write "{spelling}"'
            return tokens.error(f"AS needs a name before {spelling!r}", at - 1, hint)
        if at >= self.hi:
            return self._ended()
        found = tokens.spelling(at)
        shown = found if len(found) < 40 else f"{found[:36]}…"
        return tokens.error(f"unexpected {shown!r}", at, self._special() or self._expected())

    def _ended(self) -> ParseError:
        end = self.tokens.end[self.hi - 1]
        last = self.tokens.spelling(self.hi - 1)
        message = f"the text ends too early, after {last if len(last) < 40 else last[:36] + '…'!r}"
        hint = self._usage() or self._expected()
        return ParseError(message, text=self.tokens.text, span=(end, end + 1), hint=hint)

    def _expected(self) -> str:
        things = expected_words(self.tables, self.stack)
        hint = f"expected {one_of(things)}" if things else "nothing can follow here"
        reserved = self.tokens.kind[self.at] == "WORD" and self.tokens.upper[self.at] in RESERVED
        if self.at < self.hi and reserved and self.tables.takes(self.stack, "NAME"):
            hint += f'; to use it as a name, write "{self.tokens.spelling(self.at)}"'
        return hint

    def _special(self) -> str | None:
        """A hint for a mistake that is known by its shape."""
        return (
            self._quote_in_string()
            or self._path_of_json()
            or self._model_name()
            or self._several_models()
            or self._outermost()
            or self._clause_order()
            or self._bare_values()
            or self._duckdb_only()
            or self._usage()
        )

    def _table_function(self) -> bool:
        """`CREATE FUNCTION f(x) AS TABLE SELECT …`."""
        words = self.tokens.upper[self.lo : self.at]
        return words[:1] == ["CREATE"] and words[-2:] == ["AS", "TABLE"] and bool({"FUNCTION", "MACRO"} & set(words))

    def _quote_in_string(self) -> str | None:
        """`'{AI_CLASSIFY(body, ['bug'])}'`: a string that ended at a quote that was meant to be in it."""
        tokens, at = self.tokens, self.at
        if tokens.kind[at - 1] != "STRING" or tokens.kind[at] == "EOF" or tokens.start[at] != tokens.end[at - 1]:
            return None
        if tokens.upper[at] in (",", ")", ";"):
            return None
        return "a quote inside a string is doubled: 'it''s'; or write the text between $$ and $$"

    def _path_of_json(self) -> str | None:
        """`AI_CLASSIFY(…):labels[0]`, as Snowflake reads a field."""
        if self.tokens.upper[self.at] == ":" and self.tokens.upper[self.at - 1] == ")":
            return "the call yields the label or text itself: leave out ':…'; a field of a struct is (…).name"
        return None

    def _model_name(self) -> str | None:
        """`USING smollm2-135m`, `USING ANY (smollm2-135m, …`: a model's name that is no word."""
        tokens, at = self.tokens, self.at
        before = at - 2
        while tokens.upper[before] == "," and before > self.lo + 2:
            before -= 2
        listed = tokens.upper[before] == "(" and tokens.upper[before - 1] in ("ANY", "CASCADE")
        first = tokens.upper[before - 2 if listed else at - 2]
        if first not in ("USING", "ADAPTER", "DRAFT", "FOR", "MODEL") or not tokens.is_name(at - 1):
            return None
        if tokens.start[at] != tokens.end[at - 1] or tokens.upper[at] in (",", ")", ";"):
            return None
        end = at
        while (
            end + 1 < self.hi and tokens.start[end + 1] == tokens.end[end] and tokens.upper[end + 1] not in (",", ")")
        ):
            end += 1
        return f"quote a model's name that is no plain word: '{tokens.text[tokens.start[at - 1] : tokens.end[end]]}'"

    def _several_models(self) -> str | None:
        tokens, at = self.tokens, self.at
        if tokens.upper[at] == "," and tokens.upper[at - 2] == "USING":
            return "USING takes one model; write ANY (a, b) to let the planner choose, or CASCADE (small, large)"
        return None

    def _outermost(self) -> str | None:
        word = self.tokens.upper[self.at]
        if word in ("WITH", "INTO") and self._opening(self.at) is not None:
            return f"{word} belongs to the outermost query, after the last bracket; only USING may stand in a subquery"
        return None

    def _clause_order(self) -> str | None:
        """`LIMIT 5 WHERE a`, `WHERE a WHERE b`."""
        tokens, word = self.tokens, self.tokens.upper[self.at]
        if word not in _CLAUSES or AN_EXPRESSION in expected_words(self.tables, self.stack):
            return None
        before = [tokens.upper[i] for i in self._level(self.at)]
        if word in before and word not in ("FROM", "USING"):
            return f"{_spelled(word)} is given twice; {_once(word)}"
        later = [clause for clause in _CLAUSES[_CLAUSES.index(word) + 1 :] if clause in before]
        return f"{_spelled(word)} comes before {_spelled(later[0])}" if later else None

    def _bare_values(self) -> str | None:
        if self.tokens.upper[self.at] == "VALUES" and self.tokens.upper[self.at - 1] in ("FROM", "JOIN", ","):
            return "put VALUES in brackets: FROM (VALUES (1), (2)) AS t"
        return None

    def _duckdb_only(self) -> str | None:
        tokens, at = self.tokens, self.at
        for i in (at, at - 1):
            word = tokens.upper[i] if i >= self.lo else ""
            unread = word in _ONLY_DUCKDB or (word in RESERVED | FUNCTION_WORDS and word not in self.tables.words)
            if unread and tokens.kind[i] != "QUOTED":
                return (
                    f"{tokens.spelling(i)} is not read in a query with inference: "
                    "put that part, without inference, into a subquery or CTE"
                )
        return None

    def _usage(self) -> str | None:
        """How the verb is written, if the error is among its items."""
        previous = list(self._level(self.at))
        opening = self._opening(self.at)
        first = self.lo if opening is None else opening + 1
        verbs = [i for i in previous if self.tokens.upper[i] in _USAGE and (i == first or self._after_head(i))]
        if verbs and not any(self.tokens.upper[i] in _CLAUSES for i in previous if i > verbs[-1]):
            return f"{self._expected()}; write {_USAGE[self.tokens.upper[verbs[-1]]]}"
        return None

    def _after_head(self, i: int) -> bool:
        return self.tokens.upper[i - 1] in ("AS", "EXPLAIN", "ANALYZE", "EVALUATE", ")", "UNION", "ALL", "EXCEPT")

    def _opening(self, i: int) -> int | None:
        """The innermost bracket around token i."""
        for j in range(i - 1, self.lo - 1, -1):
            if self.tokens.upper[j] in ("(", "[", "{") and self.tokens.match[j] >= i:
                return j
        return None

    def _level(self, i: int) -> Iterator[int]:
        """Tokens before i in the same brackets, in order."""
        opening = self._opening(i)
        j = self.lo if opening is None else opening + 1
        while j < i:
            yield j
            j = max(self.tokens.match[j], j) + 1

    def _nearest(self) -> tuple[int, str] | None:
        """The word about the error that, read as the keyword it resembles, lets the parse go furthest."""
        if self.hi - self.lo > _MAX_REPAIRED:
            return None
        known = sorted(word for word in self.tables.words if len(word) > 2)
        best: tuple[int, tuple[int, str] | None] = (self.at, None)
        for place in (self.at, self.at - 1, self.at - 2):
            if not self.lo <= place < self.hi or self.tokens.kind[place] != "WORD":
                continue
            word = self.tokens.upper[place]
            if word in INFERENCE_NAMES or (word in self.tables.words and place < self.at):
                continue
            for near in get_close_matches(word, known, 3, _ALIKE):
                reached = self._reach(place, near) if near != word else -1
                if reached > max(best[0], place + 1):  # the word and one more
                    best = reached, (place, near)
        return best[1]

    def _reach(self, place: int, word: str) -> int:
        """How far the text parses with the word in that place."""
        tokens = self.tokens
        first, end = tokens.start[self.lo], tokens.end[self.hi - 1]
        text = tokens.text[first : tokens.start[place]] + word + tokens.text[tokens.end[place] : end]
        try:
            repaired = scan(text, tokens.functions, tokens.tables)
        except ParseError:
            return -1
        reached, _ = _follow(self.tables, repaired, 0, len(repaired.kind) - 1, self.start)
        return reached + self.lo


def _spelled(clause: str) -> str:
    return f"{clause} BY" if clause in ("GROUP", "ORDER") else clause


def _once(clause: str) -> str:
    if clause in ("WHERE", "HAVING", "QUALIFY"):
        return "join the conditions with AND"
    return "write all bounds and settings in one WITH" if clause == "WITH" else "keep one of them"


def _follow(tables: Tables, tokens: Tokens, lo: int, hi: int, start: str) -> tuple[int, list[int]]:
    """The first raw token that cannot be taken (hi is the end, hi + 1 if all fits) and the parser's stack before it."""
    stack = [tables.starts[start][0]]
    for token in Lexer(tables, tokens, lo, hi).read(stack):
        if not tables.advance(stack, token.type):
            return token.index, stack
    return (hi + 1 if tables.takes(stack, END) else hi), stack
