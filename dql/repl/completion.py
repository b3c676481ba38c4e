"""What may come next: pure functions of the text before the cursor and the names there are."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from dql.grammar.names import RESERVED, words
from dql.repl.lexing import Piece, pieces

_MOST = 200  # candidates shown at once
_RELATION_WORDS = words("FROM JOIN TABLE DESCRIBE SUMMARIZE AGAINST VIEW")
_PATH_WORDS = words("FROM JOIN INTO TO USING TABLE DESCRIBE SUMMARIZE COPY")
_CLAUSES = _RELATION_WORDS | words(
    """SELECT WHERE GROUP ORDER HAVING QUALIFY LIMIT OFFSET USING WITH INTO ON SET RESET SHOW DROP CREATE EXPLAIN
    GENERATE CLASSIFY SCORE EXTRACT EMBED MODEL UNION EXCEPT INTERSECT VALUES COPY EVALUATE"""
)
_NO_NAMES = words("INTO LIMIT OFFSET SHOW CREATE EXPLAIN UNION EXCEPT INTERSECT")


@dataclass(frozen=True, slots=True)
class Candidate:
    """One completion: `text` takes the place of the last `replaces` characters; `detail` is shown beside it."""

    text: str
    replaces: int
    detail: str = ""


@dataclass(frozen=True, slots=True)
class Named:
    """A name with what is said about it: a column's type, a function's signature, a setting's unit."""

    name: str
    detail: str = ""


@dataclass(frozen=True)
class Names:
    """What the session knows. `file_columns` looks into a file that a query reads from; () where it cannot."""

    tables: Mapping[str, Sequence[Named]] = field(default_factory=dict)
    models: Sequence[Named] = ()
    functions: Sequence[Named] = ()
    settings: Sequence[Named] = ()
    file_columns: Callable[[str], Sequence[Named]] = lambda path: ()
    paths: Callable[[str], Sequence[Named]] = lambda prefix: ()


class Grammar(Protocol):
    """What completion asks of the grammar."""

    def keywords(self) -> frozenset[str]:
        """Every keyword, upper case."""

    def expected(self, text: str) -> frozenset[str]:
        """Keywords, upper case, that may follow `text`, the beginning of one statement."""


def complete(before: str, after: str, names: Names, grammar: Grammar) -> list[Candidate]:
    """Candidates for the text around the cursor, best first; none inside comments and strings.

    A string that names a file completes paths, and a hole in a template completes columns: neither is plain text.
    """
    statement = _statement(list(pieces(before)))
    if statement and not statement[-1].closed:
        return _inside(statement, before, after, names)
    word = statement.pop() if statement and _touches(statement[-1], before) else None
    prefix = word.text.strip('"') if word else ""
    replaces = len(word.text) if word else 0
    if statement and statement[-1].text == ".":
        return _ranked(_qualified(statement, before + after, names), prefix, replaces)
    start = statement[0].start if statement else len(before) - replaces
    legal = grammar.expected(before[start : len(before) - replaces])
    spelled = _keywords(legal, prefix, statement)
    return _ranked([*_names(statement, before + after, names), *spelled], prefix, replaces)


def _statement(seen: list[Piece]) -> list[Piece]:
    """The pieces of the statement that the text ends in, closed comments left out."""
    ends = [i for i, piece in enumerate(seen) if piece.text == ";"]
    tail = seen[ends[-1] + 1 :] if ends else seen
    return [piece for piece in tail if piece.kind != "comment" or not piece.closed]


def _touches(piece: Piece, before: str) -> bool:
    return piece.end == len(before) and piece.kind == "word"


def _inside(statement: list[Piece], before: str, after: str, names: Names) -> list[Candidate]:
    """Inside a string, quoted name or comment that is still open."""
    last = statement[-1]
    if last.kind == "comment":
        return []
    if last.kind == "quoted":
        bare = (replace(n, name=n.name.strip('"')) for n in _names(statement[:-1], before + after, names))
        fitting = _matching([n for n in bare if not n.name.endswith("(")], last.text[1:])
        return [Candidate(f'"{n.name}"', len(last.text), n.detail) for n in fitting]
    body = last.text.lstrip("eE")[1:]
    if len(statement) > 1 and statement[-2].upper in _PATH_WORDS:
        return [Candidate(path.name, len(body), path.detail) for path in names.paths(body)][:_MOST]
    hole = body.replace("{{", "  ").rpartition("{")
    if hole[1] and "}" not in hole[2]:
        within = list(pieces(hole[2]))
        prefix = within[-1].text if within and within[-1].end == len(hole[2]) and within[-1].kind == "word" else ""
        return _ranked(_columns(before + after, names), prefix, len(prefix))
    return []


def _names(statement: list[Piece], text: str, names: Names) -> Iterator[Named]:
    """Names that fit the clause the cursor is in."""
    clause, position = _clause(statement)
    starts_item = not statement or statement[-1].text in (",", "(") or statement[-1].upper in _CLAUSES
    if not statement or (clause in _NO_NAMES and starts_item):
        return
    if clause in _RELATION_WORDS:
        if starts_item:
            yield from (_quoted(Named(t, f"{len(columns)} columns")) for t, columns in names.tables.items())
    elif clause in ("MODEL", "USING"):
        yield from map(_quoted, names.models) if starts_item else ()
    elif clause in ("SET", "RESET") or (clause == "WITH" and position > 0):
        yield from names.settings if starts_item else ()
    elif not _ends_operand(statement[-1]):
        yield from _columns(text, names)
        yield from names.functions


def _ends_operand(piece: Piece) -> bool:
    """Whether an expression may end here, so that a name cannot follow."""
    return (
        piece.kind in ("string", "number", "quoted", "param")
        or piece.text in (")", "]")
        or (piece.kind == "word" and piece.upper not in _BEFORE_OPERAND)
    )


_BEFORE_OPERAND = _CLAUSES | words(
    "AND OR NOT IN LIKE ILIKE BETWEEN BY WHEN THEN ELSE CASE DISTINCT ALL IS AS FILTER OVER"
)


def _clause(statement: list[Piece]) -> tuple[str, int]:
    """The clause word the end of the statement is in, at its own depth of brackets, and its place."""
    depth = 0
    for position in range(len(statement) - 1, -1, -1):
        piece = statement[position]
        depth += {")": 1, "(": -1}.get(piece.text, 0)
        if depth < 0:
            depth = 0
            before = statement[position - 1].upper if position else ""
            if before in ("ANY", "CASCADE"):  # USING ANY (a, b)
                return "MODEL", position - 1
            if before in ("USING", "VALUES"):  # columns: JOIN … USING (id), USING (the row's model)
                return "SELECT", position - 1
        elif depth == 0 and piece.upper in _CLAUSES:
            return piece.upper, position
    return "", -1


def _columns(text: str, names: Names) -> list[Named]:
    """Columns of the tables and files that the text reads from; of all tables where it reads from none."""
    sources = list(_sources(text))
    known = {table.lower(): columns for table, columns in names.tables.items()}
    found: dict[str, Named] = {}
    for _, source in sources:
        for column in _source_columns(source, known, names):
            found.setdefault(column.name, column)
    if not sources:
        for columns in names.tables.values():
            found.update({column.name: column for column in columns})
    return [_quoted(column) for column in found.values()]


def _source_columns(source: Piece, known: Mapping[str, Sequence[Named]], names: Names) -> Sequence[Named]:
    if source.kind == "string":
        return names.file_columns(source.text[1:-1].replace("''", "'"))
    return known.get(source.text.strip('"').lower(), ())


def _sources(text: str) -> Iterator[tuple[str, Piece]]:
    """(alias, name or string) of each relation after FROM and JOIN, and after the commas of a FROM clause."""
    seen = [piece for piece in pieces(text) if piece.kind != "comment"]
    in_from = False
    for i, piece in enumerate(seen):
        if piece.kind == "word" and piece.upper in _CLAUSES | {"AND", "OR"}:
            in_from = piece.upper in ("FROM", "JOIN")
        starts = i > 0 and in_from and (seen[i - 1].upper in ("FROM", "JOIN") or seen[i - 1].text == ",")
        if starts and (piece.kind in ("word", "quoted") or (piece.kind == "string" and piece.closed)):
            yield _alias(seen, i), piece


def _alias(seen: list[Piece], i: int) -> str:
    following = [piece for piece in seen[i + 1 : i + 3] if piece.upper != "AS"]
    if following and following[0].kind in ("word", "quoted") and following[0].upper not in _CLAUSES:
        return following[0].text.strip('"').lower()
    return seen[i].text.strip("'\"").lower()


def _qualified(statement: list[Piece], text: str, names: Names) -> list[Named]:
    """Columns after `alias.`; the dotted AI functions after `AI.`."""
    qualifier = statement[-2].text.strip('"').lower() if len(statement) > 1 else ""
    known = {table.lower(): columns for table, columns in names.tables.items()}
    for alias, source in _sources(text):
        if alias == qualifier:
            return [_quoted(column) for column in _source_columns(source, known, names)]
    if qualifier in known:
        return [_quoted(column) for column in known[qualifier]]
    dotted = qualifier + "."
    return [Named(f.name[len(dotted) :], f.detail) for f in names.functions if f.name.lower().startswith(dotted)]


def _keywords(legal: frozenset[str], prefix: str, statement: list[Piece]) -> list[Named]:
    """Keywords in the case the user writes them in."""
    written = prefix or next((p.text for p in reversed(statement) if p.upper in _CLAUSES), "")
    return [Named(word.lower() if written.islower() else word) for word in sorted(legal)]


def _ranked(found: Iterable[Named], prefix: str, replaces: int) -> list[Candidate]:
    unique = {named.name: named for named in reversed(list(found))}
    matching = _matching(list(reversed(unique.values())), prefix)
    return [Candidate(named.name, replaces, named.detail) for named in matching][:_MOST]


def _matching(found: Sequence[Named], prefix: str) -> list[Named]:
    """Names that begin with the prefix, then those with a word that does."""
    low = prefix.lower()
    begins = [named for named in found if named.name.lower().lstrip('"').startswith(low)]
    within = [n for n in found if low and not n.name.lower().startswith(low) and f"_{low}" in n.name.lower()]
    return [named for named in [*begins, *within] if named.name != prefix]


def _quoted(named: Named) -> Named:
    """A name as a query spells it: in double quotes where it is no plain word."""
    if named.name.isidentifier() and named.name.upper() not in RESERVED:
        return named
    return replace(named, name='"' + named.name.replace('"', '""') + '"')
