"""Modes that other documents take in: markdown, html, latex, insert. Markup in data is text."""

import html
import re
from collections.abc import Iterator

import pyarrow as pa

from dql.render.cells import is_numeric, string_rows, text_columns
from dql.render.sheet import Sheet
from dql.sanitize import CONTROL, sanitize_cell

_MARKDOWN = re.compile(r"[\\`*\[\]|~]|(?<!\w)_|_(?!\w)")
_LATEX = {char: "\\" + char for char in "&%$#_{}"} | {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}"}
_LATEX |= {"^": r"\textasciicircum{}", "<": r"\textless{}", ">": r"\textgreater{}"}
_CONTROL_RUN = re.compile(f"({CONTROL})")


def markdown(sheet: Sheet) -> Iterator[str]:
    """A GitHub-flavoured table; line breaks in cells become `<br>`."""
    yield _bars(_markdown(name) for name in sheet.table.column_names)
    yield "|" + "|".join("---:" if is_numeric(kind) else "---" for kind in sheet.types) + "|"
    for row in _raw_rows(sheet.table):
        yield _bars(sheet.null if cell is None else _markdown(cell) for cell in row)


def html_table(sheet: Sheet) -> Iterator[str]:
    """One `<table>` element, everything in it escaped."""
    yield "<table>"
    yield "<thead><tr>" + "".join(f"<th>{_html(name)}</th>" for name in sheet.table.column_names) + "</tr></thead>"
    yield "<tbody>"
    for row in string_rows(sheet.table, sheet.null):
        yield "<tr>" + "".join(f"<td>{_html(cell)}</td>" for cell in row) + "</tr>"
    yield "</tbody>"
    yield "</table>"


def latex(sheet: Sheet) -> Iterator[str]:
    """One `tabular` environment, numbers flush right."""
    yield r"\begin{tabular}{" + "".join("r" if is_numeric(kind) else "l" for kind in sheet.types) + "}"
    yield r"\hline"
    yield " & ".join(_latex(sanitize_cell(name)) for name in sheet.table.column_names) + r" \\"
    yield r"\hline"
    for row in string_rows(sheet.table, sheet.null):
        yield " & ".join(_latex(cell) for cell in row) + r" \\"
    yield r"\hline"
    yield r"\end{tabular}"


def insert(sheet: Sheet) -> Iterator[str]:
    """One INSERT statement a row; control characters are spelled `chr(27)`, so that values survive exactly."""
    columns = ", ".join(_identifier(column) for column in sheet.table.column_names)
    bare = [is_numeric(kind) or kind.upper() == "BOOLEAN" for kind in sheet.types]
    for row in _raw_rows(sheet.table):
        values = ", ".join(_literal(cell, plain) for cell, plain in zip(row, bare, strict=True))
        yield f"INSERT INTO {_identifier(sheet.name)} ({columns}) VALUES ({values});"


def _raw_rows(table: pa.Table) -> Iterator[tuple[str | None, ...]]:
    yield from zip(*(column.to_pylist() for column in text_columns(table).columns), strict=True)


def _bars(cells: Iterator[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _markdown(text: str) -> str:
    escaped = _MARKDOWN.sub(r"\\\g<0>", sanitize_cell(text, keep="\n"))
    return html.escape(escaped, quote=False).replace("\n", "<br>")


def _html(text: str) -> str:
    return html.escape(sanitize_cell(text))


def _latex(text: str) -> str:
    return "".join(_LATEX.get(char, char) for char in text)


def _identifier(name: str) -> str:
    return '"' + sanitize_cell(name).replace('"', '""') + '"'


def _literal(cell: str | None, plain: bool) -> str:
    if cell is None:
        return "NULL"
    if plain and cell not in ("nan", "inf", "-inf"):
        return cell
    parts = [part for part in _CONTROL_RUN.split(cell) if part] or [""]
    quoted = [f"chr({ord(p)})" if _CONTROL_RUN.fullmatch(p) else "'" + p.replace("'", "''") + "'" for p in parts]
    return " || ".join(quoted)
