"""Boxed tables: `duckbox` fits the terminal, `box` and `table` print everything."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa

from dql.render.cells import is_numeric, short_type, string_rows
from dql.render.grid import ASCII, BOX, Border, Column, draw
from dql.render.sheet import Sheet
from dql.sanitize import sanitize_cell

_NARROWEST = 20  # columns are cut down to this width before whole columns are left out
_ROOM = 24  # lines that a few rows with long text may take together


def duckbox(sheet: Sheet) -> Iterator[str]:
    """DuckDB's box: types under names, as many rows and columns as fit, and a footer. The text of few rows is wrapped,
    that of many is cut.
    """
    table = sheet.table
    shown = _first_and_last(table, sheet.max_rows)
    split_after = (shown.num_rows + 1) // 2 if shown.num_rows < table.num_rows else None
    lines = max(1, _ROOM // max(1, shown.num_rows * -(-shown.num_columns // 4)))
    columns, widths = _fit(_columns(replace(sheet, table=shown), kinds=True, wrapped=lines > 1), sheet.width)
    yield from draw(columns, widths, BOX, lines=lines, split_after=split_after)
    yield from _footer(table, shown.num_rows, sum(c is not None for c in columns), widths)


def box(sheet: Sheet) -> Iterator[str]:
    """Every row and column, in box-drawing characters."""
    yield from _whole(sheet, BOX)


def ascii_table(sheet: Sheet) -> Iterator[str]:
    """Every row and column, in plain ASCII lines."""
    yield from _whole(sheet, ASCII)


def _whole(sheet: Sheet, border: Border) -> Iterator[str]:
    columns = _columns(sheet, kinds=False)
    yield from draw(columns, [column.natural_width() for column in columns], border)


def _columns(sheet: Sheet, *, kinds: bool, wrapped: bool = False) -> list[Column]:
    rows = list(string_rows(sheet.table, sheet.null, keep="\n" if wrapped else ""))
    cells = list(zip(*rows, strict=True)) if rows else [()] * sheet.table.num_columns
    return [
        Column(sanitize_cell(name), short_type(kind) if kinds else None, is_numeric(kind), column)
        for name, kind, column in zip(sheet.table.column_names, sheet.types, cells, strict=True)
    ]


def _first_and_last(table: pa.Table, max_rows: int) -> pa.Table:
    if max_rows <= 0 or table.num_rows <= max_rows:
        return table
    top = (max_rows + 1) // 2
    return pa.concat_tables([table.slice(0, top), table.slice(table.num_rows - (max_rows - top))])


def _fit(body: list[Column], limit: int) -> tuple[list[Column | None], list[int]]:
    """The columns that fit in `limit` characters and their widths; None stands for those left out of the middle."""
    natural = [column.natural_width() for column in body]
    kept: list[int] = list(range(len(body)))
    elided = False
    while len(kept) > 1 and _framed([min(natural[i], _NARROWEST) for i in kept], elided) > limit > 0:
        del kept[len(kept) // 2]
        elided = True
    widths = [natural[i] for i in kept]
    if limit > 0:
        room = limit - _framed([0] * len(kept), elided)
        widths = _share(widths, max(room, len(kept)))
    columns: list[Column | None] = [body[i] for i in kept]
    if elided:
        middle = next(n for n, i in enumerate([*kept, len(body)]) if i != n)
        columns.insert(middle, None)
        widths.insert(middle, 1)
    return columns, widths


def _framed(widths: Sequence[int], elided: bool) -> int:
    return sum(widths) + 3 * len(widths) + 1 + (4 if elided else 0)


def _share(natural: Sequence[int], room: int) -> list[int]:
    """Widths that sum to at most `room`: narrow columns keep theirs, wide ones share what is left evenly."""
    widths = list(natural)
    left, waiting = room, sorted(range(len(natural)), key=lambda i: natural[i])
    for position, i in enumerate(waiting):
        fair = left // (len(waiting) - position)
        widths[i] = max(1, min(natural[i], fair))
        left -= widths[i]
    return widths


def _footer(table: pa.Table, shown_rows: int, shown_columns: int, widths: Sequence[int]) -> Iterator[str]:
    rows, columns = table.num_rows, table.num_columns
    parts = []
    if rows == 0 or rows > 20 or shown_rows < rows:
        parts.append(
            f"{rows:,} row{'' if rows == 1 else 's'}" + (f" ({shown_rows:,} shown)" if shown_rows < rows else "")
        )
    if shown_columns < columns:
        parts.append(f"{columns:,} columns ({shown_columns:,} shown)")
    if parts:
        gap = sum(widths) + 3 * len(widths) + 1 - 4 - sum(len(part) for part in parts)
        yield "  " + (" " * max(3, gap)).join(parts)
