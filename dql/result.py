"""The result of one statement: lazy until first use, then kept; the model is never run twice for it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

if TYPE_CHECKING:
    import pandas as pd
    import polars as pl

    from dql.executor.runtime import Run
    from dql.executor.stats import Stats

_PREVIEW_ROWS = 40


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a statement yields: its columns, and how to get its rows.

    begin: the outcome with its run, where that has not begun or was given up before its end.
    """

    columns: tuple[str, ...]
    types: tuple[str, ...]
    batches: Callable[[], Iterator[pa.RecordBatch]]
    kind: str = "query"
    run: "Run | None" = None
    explain: Callable[[], str] | None = None
    begin: "Callable[[], Outcome] | None" = None


class Result:
    """Rows of a statement. `pl`, `arrow`, `df`, `show` and `batches` run it; once run, its rows are kept."""

    def __init__(self, outcome: Outcome) -> None:
        self._outcome = outcome
        self._table: pa.Table | None = None
        self._is_read = outcome.run is None  # the run, as far as there is one: rows come from another
        self.columns = list(outcome.columns)
        self.types = list(outcome.types)
        self.statement_kind = outcome.kind

    def arrow(self) -> pa.Table:
        """All rows as an Arrow table."""
        if self._table is None:
            self._table = pa.Table.from_batches(list(self._run()))
        return self._table

    def _run(self) -> Iterator[pa.RecordBatch]:
        if self._is_read and self._outcome.begin is not None:
            self._outcome = self._outcome.begin()
        self._is_read = True
        return self._outcome.batches()

    def pl(self) -> "pl.DataFrame":
        """All rows as a Polars frame."""
        import polars as pl

        frame = pl.from_arrow(self.arrow())
        assert isinstance(frame, pl.DataFrame)
        return frame

    def df(self) -> "pd.DataFrame":
        """All rows as a pandas frame. Needs pandas."""
        frame: pd.DataFrame = self.arrow().to_pandas()
        return frame

    def batches(self, rows: int = 2048) -> Iterator[pa.RecordBatch]:
        """Rows as they come, at most `rows` a batch. Read to its end, the result is kept as well.

        Given up before, the run stops; what asks for rows later begins another, which knows what that one answered.
        """
        if self._table is not None:
            yield from self._table.to_batches(rows)
            return
        kept: list[pa.RecordBatch] = []
        for batch in self._run():
            kept.append(batch)
            for start in range(0, batch.num_rows, rows):
                yield batch.slice(start, rows)
        self._table = pa.Table.from_batches(kept)

    def show(self, max_rows: int = _PREVIEW_ROWS) -> None:
        """Print the rows as a box, the middle left out where there are many."""
        from dql.render import render

        print("".join(render(self.arrow(), "duckbox", types=self.types, max_rows=max_rows)), end="")

    def explain(self) -> str:
        """The plan, as EXPLAIN shows it."""
        return self._outcome.explain() if self._outcome.explain is not None else "no inference: the query is DuckDB's"

    def stats(self) -> "Stats":
        """Counts of the run: rows, NULLs, failures, tokens, seconds."""
        from dql.executor.stats import Stats

        self.arrow()
        return self._outcome.run.stats() if self._outcome.run is not None else Stats(rows=len(self))

    def errors(self) -> pa.Table:
        """One row per failed row: its number, column, class, message, and whether a retry can help."""
        from dql.executor.rejected import table

        self.arrow()
        return table(self._outcome.run.rejected if self._outcome.run is not None else [])

    @property
    def interrupted(self) -> bool:
        """Whether the run was cancelled; `arrow` then holds the rows that were finished."""
        return self._outcome.run is not None and self._outcome.run.interrupted

    def of_run(self, run: "Run", explain: Callable[[], str]) -> "Result":
        """This result as the outcome of a run that is over: a written file has its errors and counts."""
        return Result(replace(self._outcome, run=run, explain=explain))

    def __len__(self) -> int:
        return int(self.arrow().num_rows)

    def __repr__(self) -> str:
        from dql.render import render

        return "".join(render(self.arrow(), "duckbox", types=self.types, max_rows=_PREVIEW_ROWS))

    def __arrow_c_stream__(self, requested_schema: Any = None) -> Any:
        return self.arrow().__arrow_c_stream__(requested_schema)


def rows(columns: Sequence[tuple[str, str]], values: Sequence[Sequence[object]], kind: str) -> Result:
    """A result whose rows are at hand: SHOW, SET, a written file. Columns are names with SQL types."""
    arrow = {"VARCHAR": pa.string(), "BIGINT": pa.int64(), "DOUBLE": pa.float64(), "BOOLEAN": pa.bool_()}
    schema = pa.schema([(name, arrow[sql_type]) for name, sql_type in columns])
    table = pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in values], schema=schema)

    def batches() -> Iterator[pa.RecordBatch]:
        yield from table.to_batches() or [pa.RecordBatch.from_pylist([], schema=schema)]

    names, types = tuple(n for n, _ in columns), tuple(t for _, t in columns)
    return Result(Outcome(names, types, batches, kind))
