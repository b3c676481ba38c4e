"""Modes that programs read: csv, tabs, list, json, jsonl; and `line`, one value a line. Written in blocks of rows."""

import csv
import io
import json
import re
from collections.abc import Iterator

import pyarrow as pa
import pyarrow.compute as pc
from wcwidth import width

from dql.render.cells import rewrite, string_rows, text_columns
from dql.render.sheet import Sheet
from dql.sanitize import CONTROL, sanitize_cell

_BLOCK = 50_000  # rows written at once
# DuckDB escapes C0 in JSON strings itself; these it leaves raw. NaN and Infinity are words JSON does not have.
_JSON_RAW = "[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
_JSON_TOKEN = re.compile(r'"(?:[^"\\]|\\.)*"|-?Infinity|NaN')


def csv_lines(sheet: Sheet) -> Iterator[str]:
    """RFC 4180: quotes where needed, line breaks and tabs kept; other control characters as visible escapes."""
    header = io.StringIO()
    csv.writer(header, lineterminator="").writerow([sanitize_cell(n, keep="\n\t") for n in sheet.table.column_names])
    yield header.getvalue()
    for block in _blocks(sheet.table):
        columns = [_csv_cells(rewrite(c, CONTROL, _keep_white_space), sheet.null) for c in text_columns(block).columns]
        yield "\n".join(pc.binary_join_element_wise(*columns, ",").to_pylist())


def tabs(sheet: Sheet) -> Iterator[str]:
    """Bare cells between tabs, one line a row; line breaks and tabs in cells are visible escapes."""
    yield from _separated(sheet, "\t")


def bars(sheet: Sheet) -> Iterator[str]:
    """Bare cells between `|`, one line a row."""
    yield from _separated(sheet, "|")


def jsonl(sheet: Sheet) -> Iterator[str]:
    """One JSON object a line."""
    for block in _blocks(sheet.table):
        yield "\n".join(_objects(block).to_pylist())


def json_array(sheet: Sheet) -> Iterator[str]:
    """One JSON array of objects, an object a line."""
    if sheet.table.num_rows == 0:
        yield "[]"
    last = (sheet.table.num_rows - 1) // _BLOCK
    for index, block in enumerate(_blocks(sheet.table)):
        opening, ending = "[" if index == 0 else "", "]" if index == last else ","
        yield opening + ",\n".join(_objects(block).to_pylist()) + ending


def lines(sheet: Sheet) -> Iterator[str]:
    """`name = value`, one a line, rows apart by a blank line; long text keeps its line breaks, indented."""
    names = [sanitize_cell(name) for name in sheet.table.column_names]
    wide = max((width(name, control_codes="ignore") for name in names), default=0)
    labels = [" " * (wide - width(name, control_codes="ignore")) + name for name in names]
    indent = "\n" + " " * (wide + 3)
    for block in _blocks(sheet.table):
        columns = [rewrite(c, CONTROL, _keep_white_space).to_pylist() for c in text_columns(block).columns]
        for row in zip(*columns, strict=True):
            cells = [sheet.null if cell is None else cell.replace("\n", indent) for cell in row]
            yield "\n".join(f"{label} = {cell}" for label, cell in zip(labels, cells, strict=True)) + "\n"


def _blocks(table: pa.Table) -> Iterator[pa.Table]:
    yield from (table.slice(start, _BLOCK) for start in range(0, table.num_rows, _BLOCK))


def _separated(sheet: Sheet, separator: str) -> Iterator[str]:
    yield separator.join(sanitize_cell(name) for name in sheet.table.column_names)
    for block in _blocks(sheet.table):
        yield "\n".join(separator.join(row) for row in string_rows(block, sheet.null))


def _csv_cells(column: pa.ChunkedArray, null: str) -> pa.ChunkedArray:
    """Cells in quotes where they need them: also those that would read as NULL."""
    needs = pc.or_(pc.match_substring_regex(column, '[",\r\n]'), pc.equal(column, null))
    quoted = pc.binary_join_element_wise('"', pc.replace_substring(column, '"', '""'), '"', "")
    return pc.fill_null(pc.if_else(needs, quoted, column), null)


def _keep_white_space(text: str) -> str:
    return sanitize_cell(text, keep="\n\t")


def _objects(block: pa.Table) -> pa.ChunkedArray:
    """Each row as the text of a JSON object."""
    names = [json.dumps(name) for name in block.column_names]
    parts: list[pa.ChunkedArray | pa.Scalar] = []
    for name, column in zip(names, text_columns(block, json=True).columns, strict=True):
        lead = ("{" if not parts else ",") + name + ":"
        parts += [pa.scalar(lead), pc.fill_null(_strict_json(column), "null")]
    return pc.binary_join_element_wise(*parts, pa.scalar("}"), pa.scalar("")) if parts else pa.chunked_array([[]])


def _strict_json(column: pa.ChunkedArray) -> pa.ChunkedArray:
    escaped = rewrite(column, _JSON_RAW, lambda text: re.sub(_JSON_RAW, lambda m: f"\\u{ord(m[0]):04x}", text))
    return rewrite(escaped, "NaN|Infinity", lambda text: _JSON_TOKEN.sub(_word_to_null, text))


def _word_to_null(token: re.Match[str]) -> str:
    return token[0] if token[0].startswith('"') else "null"
