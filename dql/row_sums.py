"""The rows of a query told apart by their number and two sums over 64-bit hashes, in whatever order they come."""

import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from dql.catalog import Catalog, quote_name

_STREAMED = 8192  # rows between two looks at the clock
_HELD = 1 << 20  # numbers that wait to be told apart
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

    def different(self, numbers: Sequence[str], sql: str, seconds: float) -> tuple[int, ...] | None:
        """How many values each of `numbers` has over a query's rows, UBIGINTs that may read `dql_rows` and may be NULL,
        which is none; None where `seconds` do not do."""
        began = time.monotonic()
        found = [_Different() for _ in numbers]
        columns = ", ".join(f"{number} AS n{i}" for i, number in enumerate(numbers))
        for batch in self.catalog.stream(f"SELECT {columns} FROM ({sql}) AS dql_rows", _STREAMED, self.params):
            for column, values in zip(batch.columns, found, strict=True):
                values.add(column.drop_null().to_numpy())
            if time.monotonic() - began > seconds:
                return None
        return tuple(values.count() for values in found)


class _Different:
    """Numbers told apart, as many at once as have been told apart before."""

    def __init__(self) -> None:
        self._known: NDArray[np.uint64] = np.empty(0, np.uint64)
        self._waiting: list[NDArray[np.uint64]] = []
        self._held = 0

    def add(self, numbers: NDArray[np.uint64]) -> None:
        self._waiting.append(numbers)
        self._held += len(numbers)
        if self._held > max(_HELD, len(self._known)):
            self.count()

    def count(self) -> int:
        self._known = np.unique(np.concatenate([self._known, *self._waiting]))
        self._waiting, self._held = [], 0
        return len(self._known)


def hash_of(columns: Iterable[str]) -> str:
    """A row's number that tells these columns apart."""
    names = ", ".join(map(quote_name, sorted(set(columns))))
    return f"hash({names})" if names else NOTHING
