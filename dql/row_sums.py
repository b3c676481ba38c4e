"""The rows of a query told apart by their number and two sums over 64-bit hashes, in whatever order they come."""

import time
from collections.abc import Mapping

import numpy as np

from dql.catalog import Catalog

_STREAMED = 8192  # rows between two looks at the clock

Sums = tuple[int, int, int]


def row_sums(
    catalog: Catalog, number: str, sql: str, params: Mapping[str, object], seconds: float | None
) -> Sums | None:
    """The number of a query's rows, and two sums over `number`, a UBIGINT that may read `dql_rows`; None where
    `seconds` do not do.

    What DuckDB streams is summed here, where the clock can be looked at in between.
    """
    began = time.monotonic()
    rows = total = parity = 0
    for batch in catalog.stream(f"SELECT {number} AS n FROM ({sql}) AS dql_rows", _STREAMED, params):
        numbers = batch.column(0).to_numpy()
        rows += len(numbers)
        total = (total + int(numbers.sum())) % 2**64
        parity ^= int(np.bitwise_xor.reduce(numbers))
        if seconds is not None and time.monotonic() - began > seconds:
            return None
    return rows, total, parity
