"""What every output mode is given."""

from collections.abc import Sequence
from dataclasses import dataclass

import pyarrow as pa


@dataclass(frozen=True)
class Layout:
    """How a table is laid out.

    width: characters a line of `duckbox` may take, 0 for no limit. max_rows: rows `duckbox` shows, 0 for all; the
    other modes write every row. null: what NULL reads as; None is the mode's own (`NULL` for people, empty for csv,
    tabs and list; JSON always has `null`). name: the table that INSERT statements name.
    """

    width: int = 120
    max_rows: int = 40
    null: str | None = None
    name: str = "table"


@dataclass(frozen=True)
class Sheet:
    """A table with all that its writer needs: SQL type names, the text of NULL, the layout."""

    table: pa.Table
    types: Sequence[str]
    null: str
    layout: Layout
