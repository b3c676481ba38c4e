"""Draws boxed tables: borders, cells set flush or centred, long text wrapped."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from wcwidth import clip, width, wrap

_DOT = "·"


@dataclass(frozen=True)
class Border:
    """Corners and joints left to right for the top, middle and bottom rule, and the two kinds of line."""

    top: str
    middle: str
    bottom: str
    bar: str
    dash: str


BOX = Border("┌┬┐", "├┼┤", "└┴┘", "│", "─")
ASCII = Border("+++", "+++", "+++", "|", "-")


@dataclass(frozen=True)
class Column:
    """A column ready to draw: its name, its type if that is shown, its cells, and whether they are flush right."""

    name: str
    kind: str | None
    right: bool
    cells: Sequence[str]

    def natural_width(self) -> int:
        """Characters of the widest line."""
        texts = [self.name, self.kind or "", *self.cells]
        return max(cell_width(line) for text in texts for line in text.split("\n"))


def draw(
    columns: Sequence[Column | None],
    widths: Sequence[int],
    border: Border,
    *,
    lines: int = 1,
    split_after: int | None = None,
) -> Iterator[str]:
    """The box, line by line. None stands for columns left out; rows are left out below row `split_after`. A cell may
    take `lines` lines; once one takes several, rules part the rows.
    """
    yield _rule(border.top, border, widths)
    yield _line([_center("…" if c is None else c.name, w) for c, w in zip(columns, widths, strict=True)], border)
    if any(c is not None and c.kind is not None for c in columns):
        kinds = ["…" if c is None else (c.kind or "") for c in columns]
        yield _line([_center(kind, w) for kind, w in zip(kinds, widths, strict=True)], border)
    count = max((len(c.cells) for c in columns if c is not None), default=0)
    yield _rule(border.middle if count else border.bottom, border, widths)
    rows = [_row(columns, widths, row, lines) for row in range(count)]
    parted = any(len(row) > 1 for row in rows)
    for number, row in enumerate(rows):
        if number == split_after:
            yield from [_line([_center(_DOT, w) for w in widths], border)] * 3
        elif parted and number:
            yield _rule(border.middle, border, widths)
        yield from (_line(cells, border) for cells in row)
    if count:
        yield _rule(border.bottom, border, widths)


def cell_width(text: str) -> int:
    """Columns that a text without control characters takes on a terminal."""
    return width(text, control_codes="ignore")


def _row(columns: Sequence[Column | None], widths: Sequence[int], row: int, lines: int) -> list[list[str]]:
    """The lines of one row, each a list of cells."""
    cells = [
        (["…"], False) if c is None else (_wrapped(c.cells[row], w, lines), c.right)
        for c, w in zip(columns, widths, strict=True)
    ]
    height = max(len(parts) for parts, _ in cells)
    return [
        [_set(parts[i] if i < len(parts) else "", w, right) for (parts, right), w in zip(cells, widths, strict=True)]
        for i in range(height)
    ]


def _wrapped(text: str, columns: int, most: int) -> list[str]:
    if most == 1 or columns < 2 or ("\n" not in text and cell_width(text) <= columns):
        return [text.replace("\n", "\\n")]
    found: list[str] = []
    for part in text.split("\n"):
        found += wrap(part, columns, control_codes="ignore", propagate_sgr=False, break_on_hyphens=False) or [""]
    return found if len(found) <= most else [*found[: most - 1], f"{found[most - 1]} …"]


def _rule(corners: str, border: Border, widths: Sequence[int]) -> str:
    return corners[0] + corners[1].join(border.dash * (w + 2) for w in widths) + corners[2]


def _line(cells: Sequence[str], border: Border) -> str:
    return border.bar + border.bar.join(f" {cell} " for cell in cells) + border.bar


def _cut(text: str, columns: int) -> str:
    if cell_width(text) <= columns:
        return text
    return clip(text, 0, columns - 1, control_codes="ignore").rstrip(" ") + "…" if columns > 1 else "…"


def _set(text: str, columns: int, right: bool) -> str:
    text = _cut(text, columns)
    space = " " * (columns - cell_width(text))
    return space + text if right else text + space


def _center(text: str, columns: int) -> str:
    text = _cut(text, columns)
    space = columns - cell_width(text)
    return " " * (space // 2) + text + " " * (space - space // 2)
