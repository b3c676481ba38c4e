"""The rows of a query told apart by their number and two sums over 64-bit hashes, in whatever order they come."""

import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from dql.catalog import Catalog, quote_name

_STREAMED = 8192  # rows between two looks at the clock
NOTHING = "0::UBIGINT"  # where rows are only numbered

Sums = tuple[int, int, int]


@dataclass(frozen=True, slots=True)
class RowSums:
    """Sums of the inputs of one query, each read once whoever asks."""

    catalog: Catalog
    params: Mapping[str, object]
    _read: dict[tuple[str, str], Sums] = field(default_factory=dict, init=False)

    def of(self, number: str, sql: str, seconds: float | None) -> Sums | None:
        """The number of a query's rows, and two sums over `number`, a UBIGINT that may read `dql_rows`; None where
        `seconds` do not do.

        What DuckDB streams is summed here, where the clock can be looked at in between.
        """
        if (number, sql) in self._read:
            return self._read[number, sql]
        began = time.monotonic()
        rows = total = parity = 0
        for batch in self.catalog.stream(f"SELECT {number} AS n FROM ({sql}) AS dql_rows", _STREAMED, self.params):
            numbers = batch.column(0).to_numpy()
            rows += len(numbers)
            total = (total + int(numbers.sum())) % 2**64
            parity ^= int(np.bitwise_xor.reduce(numbers))
            if seconds is not None and time.monotonic() - began > seconds:
                return None
        self._read[number, sql] = rows, total, parity
        return rows, total, parity


def hash_of(columns: Iterable[str]) -> str:
    """A row's number that tells these columns apart."""
    names = ", ".join(map(quote_name, sorted(set(columns))))
    return f"hash({names})" if names else NOTHING
