"""Rows without an answer, as a table; light, so that reading them loads no torch."""

from collections.abc import Iterable
from dataclasses import dataclass

import pyarrow as pa

_SCHEMA = pa.schema(
    [
        ("row", pa.int64()),
        ("column", pa.string()),
        ("class", pa.string()),
        ("message", pa.string()),
        ("retryable", pa.bool_()),
        ("inputs", pa.list_(pa.string())),
    ]
)


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row without an answer: which column, why, and whether a retry can help. `row` counts the stage's input.

    inputs: the texts in the holes of the call, where the query collects rejected rows.
    """

    row: int
    column: str
    kind: str
    message: str
    retryable: bool
    inputs: tuple[str, ...] = ()


def table(rejected: Iterable[Rejected]) -> pa.Table:
    """Columns row, column, class, message and retryable, in order of columns and rows."""
    return pa.Table.from_batches(batches(rejected)).drop_columns(["inputs"])


def batches(rejected: Iterable[Rejected]) -> list[pa.RecordBatch]:
    """One batch, perhaps empty, with the inputs as well."""
    in_order = sorted(rejected, key=lambda r: (r.column, r.row))
    rows = [(r.row, r.column, r.kind, r.message, r.retryable, list(r.inputs)) for r in in_order]
    values = [dict(zip(_SCHEMA.names, row, strict=True)) for row in rows]
    return [pa.RecordBatch.from_pylist(values, schema=_SCHEMA)]
