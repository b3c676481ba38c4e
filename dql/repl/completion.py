"""What may come next: pure functions of the text before the cursor and the names there are.

The grammar says which keywords and which kinds of name can stand at the cursor; here the kinds become names.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

from dql.grammar.complete import Expected
from dql.grammar.names import INFERENCE_NAMES, RESERVED, words
from dql.repl.lexing import Piece, pieces

_MOST = 200  # candidates shown at once
_BEFORE_TABLE = words("DESCRIBE SUMMARIZE INTO TABLE UPDATE VIEW FROM JOIN")
_BEFORE_PATH = words("FROM JOIN INTO TO USING DESCRIBE SUMMARIZE COPY ATTACH")
_ENDS_FROM = words("SELECT WHERE GROUP HAVING QUALIFY ORDER LIMIT OFFSET USING WITH INTO ON UNION EXCEPT INTERSECT SET")
_TYPES = words("VARCHAR BOOLEAN INTEGER BIGINT DOUBLE DATE TIMESTAMP DECIMAL( ENUM( STRUCT(")


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

    def expected(self, text_before_cursor: str) -> Expected:
        """What can be typed at the end of the text."""


def complete(before: str, after: str, names: Names, grammar: Grammar) -> list[Candidate]:
    """Candidates for the text around the cursor, best first; none inside comments and strings.

    A string that names a file completes paths, and a hole in a template completes columns: neither is plain text.
    """
    seen = [piece for piece in pieces(before) if piece.kind != "comment" or not piece.closed]
    if seen and not seen[-1].closed:
        return _inside(seen, before + after, names)
    word = seen.pop() if seen and seen[-1].kind == "word" and seen[-1].end == len(before) else None
    prefix = word.text if word else ""
    expected = grammar.expected(before)
    kinds, keywords = expected.kinds, expected.keywords
    if not kinds and not keywords and prefix:  # DuckDB's own statements, which the grammar leaves to it
        kinds, keywords = frozenset({"name", "expression"}), tuple(sorted(grammar.keywords()))
    found = [*_names(kinds, seen, before + after, names), *_spelled(keywords, prefix, seen)]
    return [Candidate(named.name, len(prefix), named.detail) for named in _matching(found, prefix)]


def _inside(seen: list[Piece], text: str, names: Names) -> list[Candidate]:
    """Inside a string, quoted name or comment that is still open."""
    last = seen[-1]
    if last.kind == "comment":
        return []
    if last.kind == "quoted":
        everything = [*_columns(text, names), *_tables(names), *map(_quoted, names.models)]
        bare = (replace(named, name=named.name.strip('"')) for named in everything)
        return [Candidate(f'"{n.name}"', len(last.text), n.detail) for n in _matching(bare, last.text[1:])]
    body = last.text.lstrip("eE")[1:]
    if len(seen) > 1 and seen[-2].upper in _BEFORE_PATH:
        return [Candidate(path.name, len(body), path.detail) for path in names.paths(body)][:_MOST]
    hole = body.replace("{{", "  ").rpartition("{")
    if hole[1] and "}" not in hole[2]:
        within = list(pieces(hole[2]))
        prefix = within[-1].text if within and within[-1].end == len(hole[2]) and within[-1].kind == "word" else ""
        columns = _matching(_columns(text, names), prefix)
        return [Candidate(column.name, len(prefix), column.detail) for column in columns]
    return []


def _names(kinds: frozenset[str], seen: list[Piece], text: str, names: Names) -> Iterator[Named]:
    """Names of the kinds that fit, after what is written already."""
    previous = seen[-1].upper if seen else ""
    if "field" in kinds:
        yield from _fields(seen, text, names)
    if "table" in kinds or ("name" in kinds and previous in _BEFORE_TABLE):
        yield from _tables(names)
    if "model" in kinds:
        yield from map(_quoted, names.models)
    if "setting" in kinds:
        yield from names.settings
    if "expression" in kinds or ("name" in kinds and previous in ("(", "AGAINST")):
        yield from _columns(text, names)
    if "expression" in kinds:
        yield from names.functions
    if "type" in kinds:
        yield from map(Named, sorted(_TYPES))


def _tables(names: Names) -> list[Named]:
    return [_quoted(Named(table, f"{len(columns)} columns")) for table, columns in names.tables.items()]


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
        if piece.upper in ("FROM", "JOIN") or piece.upper in _ENDS_FROM:
            in_from = piece.upper in ("FROM", "JOIN")
        starts = i > 0 and in_from and (seen[i - 1].upper in ("FROM", "JOIN") or seen[i - 1].text == ",")
        if starts and (piece.kind in ("word", "quoted") or (piece.kind == "string" and piece.closed)):
            yield _alias(seen, i), piece


def _alias(seen: list[Piece], i: int) -> str:
    following = [piece for piece in seen[i + 1 : i + 3] if piece.upper != "AS"]
    if following and following[0].kind in ("word", "quoted") and following[0].upper not in RESERVED:
        return following[0].text.strip('"').lower()
    return seen[i].text.strip("'\"").lower()


def _fields(seen: list[Piece], text: str, names: Names) -> list[Named]:
    """Columns after `alias.`; the dotted AI functions after `AI.`."""
    qualifier = seen[-2].text.strip('"').lower() if len(seen) > 1 else ""
    known = {table.lower(): columns for table, columns in names.tables.items()}
    for alias, source in _sources(text):
        if alias == qualifier:
            return [_quoted(column) for column in _source_columns(source, known, names)]
    if qualifier in known:
        return [_quoted(column) for column in known[qualifier]]
    dotted = qualifier + "."
    return [Named(f.name[len(dotted) :], f.detail) for f in names.functions if f.name.lower().startswith(dotted)]


def _spelled(keywords: Iterable[str], prefix: str, seen: list[Piece]) -> list[Named]:
    """Keywords in the case the user writes them in."""
    written = prefix or next((piece.text for piece in reversed(seen) if piece.upper in RESERVED), "")
    return [Named(word.lower() if written.islower() else word) for word in keywords if word not in INFERENCE_NAMES]


def _matching(found: Iterable[Named], prefix: str) -> list[Named]:
    """Names that begin with the prefix, then those with a later word that does; each name once."""
    low = prefix.lower()
    unique = {named.name: named for named in reversed(list(found)) if named.name != prefix}
    ordered = list(reversed(unique.values()))
    begins = [named for named in ordered if named.name.lower().lstrip('"').startswith(low)]
    within = [named for named in ordered if low and f"_{low}" in named.name.lower() and named not in begins]
    return [*begins, *within][:_MOST]


def _quoted(named: Named) -> Named:
    """A name as a query spells it: in double quotes where it is no plain word."""
    if named.name.isidentifier() and named.name.upper() not in RESERVED:
        return named
    return replace(named, name='"' + named.name.replace('"', '""') + '"')
