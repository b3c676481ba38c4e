"""From Arrow columns to text a terminal can be trusted with.

Casting is DuckDB's, so that lists, structs, dates and numbers read as its users know them. Escaping is vectorised:
only the cells in which a pattern is found go through Python.
"""

import re
from collections.abc import Callable, Iterator

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from dql.sanitize import CONTROL, sanitize_cell

_SHORT_TYPES = {
    "TINYINT": "int8",
    "SMALLINT": "int16",
    "INTEGER": "int32",
    "BIGINT": "int64",
    "HUGEINT": "int128",
    "UTINYINT": "uint8",
    "USMALLINT": "uint16",
    "UINTEGER": "uint32",
    "UBIGINT": "uint64",
    "UHUGEINT": "uint128",
}
_NUMERIC = re.compile(r"(U?(TINY|SMALL|BIG|HUGE)INT|U?INTEGER|FLOAT|DOUBLE|REAL|DECIMAL(\(.*\))?)$")


def text_columns(table: pa.Table, *, json: bool = False) -> pa.Table:
    """Every column as VARCHAR: DuckDB's cast, or JSON values when `json`; NULL stays NULL."""
    numbered = pa.table([_valid(column) for column in table.columns], names=[f"c{i}" for i in range(table.num_columns)])
    cast = "CAST(to_json({0}) AS VARCHAR)" if json else "CAST({0} AS VARCHAR)"
    with duckdb.connect() as connection:
        projection = ", ".join(cast.format(name) + f" AS {name}" for name in numbered.column_names)
        return connection.from_arrow(numbered).project(projection).to_arrow_table()


def sql_types(table: pa.Table) -> list[str]:
    """DuckDB's names for the column types of `table`."""
    with duckdb.connect() as connection:
        return [str(kind) for kind in connection.from_arrow(table.slice(0, 0)).types]


def short_type(sql_type: str) -> str:
    """A type as DuckDB's shell prints it: `INTEGER[]` is `int32[]`."""
    name, bracket, rest = sql_type.partition("[")
    return sanitize_cell(_SHORT_TYPES.get(name, name.lower() if bracket else sql_type.lower()) + bracket + rest)


def is_numeric(sql_type: str) -> bool:
    """True for types whose values are set flush right."""
    return _NUMERIC.match(sql_type.upper()) is not None


def rewrite(column: pa.ChunkedArray, pattern: str, change: Callable[[str], str]) -> pa.ChunkedArray:
    """`change` applied to the cells that match `pattern`; the others are not touched."""
    return pa.chunked_array([_rewrite(chunk, pattern, change) for chunk in column.chunks], type=column.type)


def string_rows(table: pa.Table, null: str, *, keep: str = "") -> Iterator[tuple[str, ...]]:
    """Rows of sanitised text, NULL written as `null`; control characters in `keep` stay."""

    def clean(text: str) -> str:
        return sanitize_cell(text, keep=keep)

    columns = [rewrite(column, CONTROL, clean).to_pylist() for column in text_columns(table).columns]
    yield from zip(*([null if cell is None else cell for cell in column] for column in columns), strict=True)


def _rewrite(chunk: pa.Array, pattern: str, change: Callable[[str], str]) -> pa.Array:
    hit = pc.fill_null(pc.match_substring_regex(chunk, pattern), False)
    if not pc.any(hit).as_py():
        return chunk
    changed = pa.array([change(cell) for cell in chunk.filter(hit).to_pylist()], type=chunk.type)
    return pc.replace_with_mask(chunk, hit, changed)


def _valid(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Bytes that are not UTF-8 in a text column (Arrow does not check) become replacement characters."""
    if not (pa.types.is_string(column.type) or pa.types.is_large_string(column.type)):
        return column
    try:
        column.validate(full=True)
    except pa.ArrowInvalid:
        binary = column.cast(pa.large_binary()).to_pylist()
        return pa.chunked_array([[None if cell is None else cell.decode("utf-8", "replace") for cell in binary]])
    return column
