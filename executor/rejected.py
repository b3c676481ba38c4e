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


def table(rejected: Iterable[Rejected], inputs: bool = False) -> pa.Table:
    """Columns row, column, class, message, retryable and, if asked for, inputs; in order of rows."""
    schema = _SCHEMA if inputs else _SCHEMA.remove(len(_SCHEMA) - 1)
    in_order = sorted(rejected, key=lambda r: (r.column, r.row))
    rows = [(r.row, r.column, r.kind, r.message, r.retryable, list(r.inputs)) for r in in_order]
    return pa.Table.from_pylist([dict(zip(schema.names, row, strict=False)) for row in rows], schema=schema)
