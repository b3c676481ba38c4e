"""The names that completion offers, gathered from the session and the file system."""

import os
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING

import duckdb

from dql.repl.completion import Named, Names

if TYPE_CHECKING:
    from dql.session import Session

_MOST_PATHS = 100
_FILES = frozenset({".parquet", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".arrow", ".feather", ".gguf", ".dql"})
_FILES |= {".sql", ".gz", ".zst", ".db", ".duckdb"}


def session_names(session: "Session") -> Names:
    """A snapshot of what the session knows; taken between queries, on the thread that runs them."""
    return Names(
        tables={t.name: [Named(c.name, c.type) for c in t.columns] for t in session.tables()},
        models=[Named(m.name, _model_detail(m.installed, m.description or m.uri)) for m in session.models().list()],
        functions=[*inference_functions(session), *plain_functions()],
        settings=[
            Named(s.name, " · ".join(part for part in (s.unit, s.description) if part)) for s in session.settings()
        ],
        file_columns=file_columns,
        paths=paths,
    )


def inference_functions(session: "Session") -> list[Named]:
    """The session's functions that run a model, with their signatures."""
    return [Named(f"{f.name}(", f.signature) for f in session.functions()]


@lru_cache(maxsize=1)
def plain_functions() -> tuple[Named, ...]:
    """DuckDB's scalar and aggregate functions with the names of their parameters."""
    with duckdb.connect() as connection:
        found = connection.execute(
            "SELECT function_name, any_value(parameters) FROM duckdb_functions() "
            "WHERE function_type IN ('scalar', 'aggregate', 'macro') AND regexp_full_match(function_name, '[a-z]\\w*') "
            "GROUP BY function_name ORDER BY function_name"
        ).fetchall()
    return tuple(Named(f"{name}(", f"{name}({', '.join(parameters or ())})") for name, parameters in found)


def file_columns(path: str) -> Sequence[Named]:
    """Columns of a local file; () where there is none or it cannot be read."""
    place = Path(path).expanduser()
    if any(char in path for char in "*?[") or not place.is_file():
        return ()
    return _described(str(place), place.stat().st_mtime_ns)


@lru_cache(maxsize=32)
def _described(path: str, modified: int) -> tuple[Named, ...]:
    try:
        with duckdb.connect() as connection:
            relation = connection.from_query(f"FROM '{path.replace(chr(39), chr(39) * 2)}'")
            return tuple(Named(name, str(kind)) for name, kind in zip(relation.columns, relation.types, strict=True))
    except duckdb.Error:  # completion has no one to tell; running the query says what is wrong
        return ()


def paths(prefix: str) -> Sequence[Named]:
    """Files and folders that begin with `prefix`, folders with a slash at the end."""
    folder, _, start = prefix.rpartition("/")
    place = Path(folder + "/" if prefix.startswith("/") else folder or ".").expanduser()
    if not place.is_dir() or not os.access(place, os.R_OK):
        return ()
    lead = f"{folder}/" if "/" in prefix else ""
    entries = sorted(e.name + ("/" if e.is_dir() else "") for e in os.scandir(place) if _wanted(e, start))
    return [Named(lead + name) for name in entries[:_MOST_PATHS]]


def _wanted(entry: "os.DirEntry[str]", start: str) -> bool:
    if not entry.name.startswith(start) or (entry.name.startswith(".") and not start):
        return False
    return entry.is_dir() or Path(entry.name).suffix.lower() in _FILES


def _model_detail(installed: bool, description: str) -> str:
    return description if installed else f"{description} (not here yet)"
