"""The inference operator: batches in, the same rows out with one more column per call."""

from collections.abc import Generator, Iterator

import numpy as np
import pyarrow as pa

from dql.executor.call import CallRunner
from dql.executor.context import Context
from dql.planner.physical import InferExec

WINDOW_ROWS = 8192
WINDOW_BYTES = 16 << 20
FIRST_ROWS = 16  # of a run that a LIMIT may end


def infer(
    plan: InferExec, below: Generator[pa.RecordBatch, None, None], context: Context
) -> Generator[pa.RecordBatch, None, None]:
    """Answer window by window, rows in input order. When cancelled, the finished rows of the window still come."""
    runners = [CallRunner(call, context) for call in plan.calls]
    row = 0
    try:
        for window in windows(below, plan.stops_early):
            columns: list[pa.Array] = []
            finished = np.ones(window.num_rows, dtype=bool)
            failed = np.zeros(window.num_rows, dtype=bool)
            for runner in runners:
                answers = runner.run(window, row)
                columns.append(answers.values)
                context.counts["nulls"] += answers.values.null_count
                finished &= answers.finished
                failed |= answers.failed
            row += window.num_rows
            context.rows = row
            context.tracker.update(rows_done=row)
            batch = window
            for runner, column in zip(runners, columns, strict=True):
                batch = batch.append_column(pa.field(runner.call.out, column.type), column)
            dropped = failed if context.policy.on_error == "skip" else np.zeros_like(failed)
            yield batch.filter(pa.array(finished & ~dropped)) if not finished.all() or dropped.any() else batch
            if context.cancelled.is_set():
                return
        context.check_share(done=True)
    finally:
        below.close()


def windows(batches: Iterator[pa.RecordBatch], stops_early: bool) -> Iterator[pa.RecordBatch]:
    """Rebatch: large windows share more; a run that may stop early starts small and doubles."""
    size = FIRST_ROWS if stops_early else WINDOW_ROWS
    waiting: list[pa.RecordBatch] = []
    schema: pa.Schema | None = None
    for batch in batches:
        if schema is None:
            schema = batch.schema
        waiting.append(batch)
        while sum(b.num_rows for b in waiting) >= size or sum(b.nbytes for b in waiting) >= WINDOW_BYTES:
            whole = pa.concat_batches(waiting)
            yield whole.slice(0, size)
            waiting = [whole.slice(size)] if whole.num_rows > size else []
            size = min(2 * size, WINDOW_ROWS)
    if schema is not None:
        yield pa.concat_batches(waiting) if waiting else pa.RecordBatch.from_pylist([], schema=schema)
