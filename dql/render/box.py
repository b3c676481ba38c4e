"""Boxed tables: `duckbox` fits the terminal, `box` and `table` print everything."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import pyarrow as pa
from wcwidth import clip, width

from dql.render.cells import is_numeric, short_type, string_rows
from dql.render.sheet import Sheet
from dql.sanitize import sanitize_cell

_NARROWEST = 20  # columns are cut down to this width before whole columns are left out
_DOT = "·"


@dataclass(frozen=True)
class _Border:
    top: str
    middle: str
    bottom: str
    bar: str
    dash: str


_BOX = _Border("┌┬┐", "├┼┤", "└┴┘", "│", "─")
_ASCII = _Border("+++", "+++", "+++", "|", "-")


@dataclass(frozen=True)
class _Column:
    name: str
    kind: str | None
    right: bool
    cells: Sequence[str]

    def natural_width(self) -> int:
        texts = [self.name, *self.cells] if self.kind is None else [self.name, self.kind, *self.cells]
        return max(_width(text) for text in texts)


def duckbox(sheet: Sheet) -> Iterator[str]:
    """DuckDB's box: types under names, as many rows and columns as fit, and a footer."""
    table = sheet.table
    shown = _first_and_last(table, sheet.max_rows)
    split_after = (shown.num_rows + 1) // 2 if shown.num_rows < table.num_rows else None
    columns, widths = _fit(_columns(replace(sheet, table=shown), kinds=True), sheet.width)
    yield from _grid(columns, widths, _BOX, split_after=split_after)
    yield from _footer(table, shown.num_rows, sum(c is not None for c in columns), widths)


def box(sheet: Sheet) -> Iterator[str]:
    """Every row and column, in box-drawing characters."""
    yield from _whole(sheet, _BOX)


def ascii_table(sheet: Sheet) -> Iterator[str]:
    """Every row and column, in plain ASCII lines."""
    yield from _whole(sheet, _ASCII)


def _whole(sheet: Sheet, border: _Border) -> Iterator[str]:
    columns = _columns(sheet, kinds=False)
    yield from _grid(columns, [column.natural_width() for column in columns], border)


def _columns(sheet: Sheet, *, kinds: bool) -> list[_Column]:
    rows = list(string_rows(sheet.table, sheet.null))
    cells = list(zip(*rows, strict=True)) if rows else [()] * sheet.table.num_columns
    return [
        _Column(sanitize_cell(name), short_type(kind) if kinds else None, is_numeric(kind), column)
        for name, kind, column in zip(sheet.table.column_names, sheet.types, cells, strict=True)
    ]


def _first_and_last(table: pa.Table, max_rows: int) -> pa.Table:
    if max_rows <= 0 or table.num_rows <= max_rows:
        return table
    top = (max_rows + 1) // 2
    return pa.concat_tables([table.slice(0, top), table.slice(table.num_rows - (max_rows - top))])


def _fit(body: list[_Column], limit: int) -> tuple[list[_Column | None], list[int]]:
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
    columns: list[_Column | None] = [body[i] for i in kept]
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


def _grid(
    columns: Sequence[_Column | None], widths: Sequence[int], border: _Border, *, split_after: int | None = None
) -> Iterator[str]:
    yield _rule(border.top, border, widths)
    yield _line([_center("…" if c is None else c.name, w) for c, w in zip(columns, widths, strict=True)], border)
    if any(c is not None and c.kind is not None for c in columns):
        kinds = ["…" if c is None else (c.kind or "") for c in columns]
        yield _line([_center(kind, w) for kind, w in zip(kinds, widths, strict=True)], border)
    count = max((len(c.cells) for c in columns if c is not None), default=0)
    yield _rule(border.middle if count else border.bottom, border, widths)
    for row in range(count):
        if row == split_after:
            yield from [_line([_center(_DOT, w) for w in widths], border)] * 3
        cells = [("…", False) if c is None else (c.cells[row], c.right) for c in columns]
        yield _line([_set(text, w, right) for (text, right), w in zip(cells, widths, strict=True)], border)
    if count:
        yield _rule(border.bottom, border, widths)


def _rule(corners: str, border: _Border, widths: Sequence[int]) -> str:
    return corners[0] + corners[1].join(border.dash * (w + 2) for w in widths) + corners[2]


def _line(cells: Sequence[str], border: _Border) -> str:
    return border.bar + border.bar.join(f" {cell} " for cell in cells) + border.bar


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


def _width(text: str) -> int:
    return width(text, control_codes="ignore")


def _cut(text: str, columns: int) -> str:
    if _width(text) <= columns:
        return text
    return clip(text, 0, columns - 1, control_codes="ignore").rstrip(" ") + "…" if columns > 1 else "…"


def _set(text: str, columns: int, right: bool) -> str:
    text = _cut(text, columns)
    space = " " * (columns - _width(text))
    return space + text if right else text + space


def _center(text: str, columns: int) -> str:
    text = _cut(text, columns)
    space = columns - _width(text)
    return " " * (space // 2) + text + " " * (space - space // 2)
