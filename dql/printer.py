"""Writes results where they belong: a terminal, a pipe, a file or a pager."""

import contextlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, TYPE_CHECKING

from dql.errors import ConfigError
from dql.render import mode_named, render
from dql.sanitize import sanitize_cell

if TYPE_CHECKING:
    import pyarrow as pa

    from dql.result import Result

_SUFFIXES = {".csv": "csv", ".tsv": "tabs", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".md": "markdown"}
_SUFFIXES |= {".html": "html", ".tex": "latex", ".sql": "insert", ".txt": "box"}


@dataclass(frozen=True)
class Style:
    """How results are shown. mode None picks by place: duckbox on a terminal, csv in a pipe, a file by its suffix.

    max_rows and columns (characters a line) bound `duckbox`; 0 is no bound, columns None is the terminal's width.
    """

    mode: str | None = None
    max_rows: int = 40
    null: str | None = None
    insert_table: str = "table"
    columns: int | None = None


def mode_for(style: Style, place: IO[str] | Path) -> str:
    """The output mode for a stream or file. Raises ConfigError for a file whose suffix names no mode."""
    if style.mode is not None:
        return mode_named(style.mode)
    if not isinstance(place, Path):
        return "duckbox" if place.isatty() else "csv"
    if (mode := _SUFFIXES.get(place.suffix.lower())) is None:
        hint = f"end the name in one of {', '.join(_SUFFIXES)}, set the mode, or write tables with INTO '{place}'"
        raise ConfigError(f"cannot tell the output format of {str(place)!r}", hint=hint)
    return mode


def write_result(result: "Result", stream: IO[str], style: Style, mode: str) -> None:
    """The rows of a result; the text of an EXPLAIN as it is, unless a mode was asked for that programs read."""
    table = result.arrow()
    for_people = style.mode is None or mode in ("duckbox", "box", "table", "line")
    if result.statement_kind == "explain" and table.num_columns == 1 and for_people:
        stream.writelines(sanitize_cell(str(cell), keep="\n") + "\n" for cell in table.column(0).to_pylist())
        stream.flush()
    else:
        write_table(table, result.types, stream, style, mode)


def write_table(table: "pa.Table", types: list[str] | None, stream: IO[str], style: Style, mode: str) -> None:
    """A table in the given mode and style; types None are those of its Arrow types."""
    pieces = render(
        table,
        mode,
        types=types,
        width=terminal_columns(stream) if style.columns is None else style.columns,
        max_rows=style.max_rows,
        null_value=style.null,
        name=style.insert_table,
    )
    stream.writelines(pieces)
    stream.flush()


def terminal_columns(stream: IO[str]) -> int:
    """Characters a line may take on `stream`; 120 where it is not a terminal."""
    return shutil.get_terminal_size((120, 40)).columns if stream.isatty() else 120


@contextlib.contextmanager
def replaced_file(path: Path) -> Iterator[IO[str]]:
    """A stream for the new content of `path`; the old file stays until the block ends without an error."""
    part = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        with part.open("w", encoding="utf-8") as stream:
            yield stream
        part.replace(path)
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}: {error.strerror}", hint="name a file in a folder you may write"
        ) from error
    finally:
        part.unlink(missing_ok=True)


@contextlib.contextmanager
def paged(command: str) -> Iterator[IO[str]]:
    """The standard input of a pager; a user who leaves it early is no error."""
    environment = {"LESS": "-SRXF", **os.environ}
    process = subprocess.Popen(command, shell=True, stdin=subprocess.PIPE, text=True, encoding="utf-8", env=environment)
    assert process.stdin is not None
    try:
        yield process.stdin
    except BrokenPipeError:
        return
    finally:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.close()
        _wait(process)


def _wait(process: "subprocess.Popen[str]") -> None:
    while True:  # Ctrl-C belongs to the pager
        with contextlib.suppress(KeyboardInterrupt):
            process.wait()
            return


def stdout() -> IO[str]:
    """Standard output that never fails on a character: what its encoding lacks is shown escaped."""
    if hasattr(sys.stdout, "reconfigure"):
        sys.stdout.reconfigure(errors="backslashreplace")
    return sys.stdout
