"""The table of output modes and the one function that writes them."""

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import pyarrow as pa

from dql.errors import ConfigError, name_hint
from dql.render import box, machine, markup
from dql.render.cells import sql_types
from dql.render.sheet import Sheet


class _Mode(NamedTuple):
    write: Callable[[Sheet], Iterator[str]]
    description: str
    null: str = "NULL"


def _nothing(_: Sheet) -> Iterator[str]:
    return iter(())


_MODES = {
    "duckbox": _Mode(box.duckbox, "a box that fits the terminal"),
    "box": _Mode(box.box, "a box with every row and column"),
    "table": _Mode(box.ascii_table, "the same in plain ASCII"),
    "csv": _Mode(machine.csv_lines, "comma-separated, quoted where needed", null=""),
    "tabs": _Mode(machine.tabs, "tab-separated, one line a row", null=""),
    "list": _Mode(machine.bars, "separated by |, one line a row", null=""),
    "json": _Mode(machine.json_array, "one JSON array"),
    "jsonl": _Mode(machine.jsonl, "one JSON object a line"),
    "line": _Mode(machine.lines, "one value a line, for long text"),
    "markdown": _Mode(markup.markdown, "a Markdown table"),
    "html": _Mode(markup.html_table, "an HTML table"),
    "latex": _Mode(markup.latex, "a LaTeX tabular"),
    "insert": _Mode(markup.insert, "SQL INSERT statements"),
    "trash": _Mode(_nothing, "nothing: the query runs, no rows are shown"),
}
MODES = {name: mode.description for name, mode in _MODES.items()}
_OTHER_NAMES = {"jsonlines": "jsonl", "ndjson": "jsonl", "tsv": "tabs", "md": "markdown"}  # DuckDB's and others' words


def mode_named(name: str) -> str:
    """The mode called `name`, by its own or another tool's word for it. Raises ConfigError for an unknown one."""
    mode = _OTHER_NAMES.get(name.lower(), name.lower())
    if mode not in MODES:
        raise ConfigError(f"no output mode called {name!r}", hint=name_hint(name, MODES))
    return mode


def render(
    table: pa.Table,
    mode: str,
    *,
    types: Sequence[str] | None = None,
    width: int = 120,
    max_rows: int = 40,
    null_value: str | None = None,
    name: str = "table",
) -> Iterator[str]:
    """`table` as text, in pieces of whole lines; they hold no control character but line breaks, and tabs where a
    mode keeps them.

    types: SQL names of the column types, by default DuckDB's for the Arrow types. width: characters a line of
    `duckbox` may take, 0 for no limit. max_rows: rows `duckbox` shows, 0 for all; other modes write every row.
    null_value: what NULL reads as, by default `NULL` for people and nothing in csv, tabs and list; JSON has `null`.
    name: the table that `insert` names. Raises ConfigError for an unknown mode.
    """
    chosen = _MODES[mode_named(mode)]
    if table.num_columns == 0:
        return iter(())
    null = chosen.null if null_value is None else null_value
    sheet = Sheet(table, sql_types(table) if types is None else types, null, width, max_rows, name)
    return (piece + "\n" for piece in chosen.write(sheet))
