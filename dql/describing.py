"""DESCRIBE and SUMMARIZE of a query with inference, in DuckDB's own columns."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pyarrow as pa

from dql.catalog import Catalog, quote_name
from dql.planner.plan import Planned
from dql.result import Outcome, Result

if TYPE_CHECKING:
    from dql.executor.runtime import Run

SUMMARY_ROWS = 2048


def describe(planned: Planned, catalog: Catalog) -> Result:
    """The columns of a query; nothing of it runs."""
    return _of_query(f"DESCRIBE {typed(planned)}", catalog)


def summarize(planned: Planned, catalog: Catalog, run: "Run") -> Result:
    """What SUMMARIZE says about the rows of a run, which are kept aside while it looks at them."""
    fields = catalog.describe(f"SUMMARIZE {typed(planned)}")

    def batches() -> Iterator[pa.RecordBatch]:
        scratch = catalog.materialise(run.batches())
        try:
            yield from catalog.stream(f"SUMMARIZE {scratch}", SUMMARY_ROWS)
        finally:
            catalog.drop(scratch)

    return Result(Outcome(tuple(f.name for f in fields), tuple(f.type for f in fields), batches, run=run))


def _of_query(sql: str, catalog: Catalog) -> Result:
    fields = catalog.describe(sql)
    names, types = tuple(f.name for f in fields), tuple(f.type for f in fields)
    return Result(Outcome(names, types, lambda: catalog.stream(sql, SUMMARY_ROWS)))


def typed(planned: Planned) -> str:
    """A query of no inference with the same columns."""
    query = planned.query
    nulls = (f"CAST(NULL AS {t}) AS {quote_name(n)}" for n, t in zip(query.names, query.types, strict=True))
    return f"SELECT {', '.join(nulls)}"
