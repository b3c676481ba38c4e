"""The inference operator: batches in, the same rows out with one more column per call."""

from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dql.executor.ahead import ahead
from dql.executor.call import CallRunner, Mask
from dql.executor.context import Context
from dql.executor.inquiry import ask
from dql.executor.prepare import Prepared
from dql.planner.early import FIRST_ROWS
from dql.planner.physical import CallExec, InferExec
from dql.planner.statistics import infer_nodes
from dql.planner.windows import WINDOW_ROWS

WINDOW_BYTES = 16 << 20


def infer(
    plan: InferExec, below: Generator[pa.RecordBatch, None, None], context: Context
) -> Generator[pa.RecordBatch, None, None]:
    """Answer window by window, rows in input order. When cancelled, the finished rows of the window still come."""
    runners = [CallRunner(call, context) for call in plan.calls]
    # what a LIMIT may spare, or takes answers itself, is not read before it is wanted
    early = 0 if plan.stops_early or any(infer_nodes(plan.child)) else 1
    batches = windows(below, FIRST_ROWS if plan.stops_early else WINDOW_ROWS)
    prepared = ahead(partial(prepare, runners), batches, depth=early)
    row = 0
    try:
        for window in prepared:
            rows = window.batch.num_rows
            answers = answer_window(runners, window, row + np.arange(rows), context, rows)
            row += rows
            context.rows = row
            context.tracker.update(rows_done=row)
            kept = answers.kept(context)
            yield answers.batch if kept.all() else answers.batch.filter(pa.array(kept))
            if context.cancelled.is_set():
                return
        context.check_share(done=True)
    finally:
        prepared.close()
        below.close()


@dataclass(frozen=True, slots=True)
class Window:
    """Rows, and what each call needs to know of them."""

    batch: pa.RecordBatch
    prepared: Sequence[Prepared]


def prepare(runners: Sequence[CallRunner], batch: pa.RecordBatch) -> Window:
    """A window made ready for all calls."""
    return Window(batch, [runner.prepare(batch) for runner in runners])


@dataclass(frozen=True, slots=True)
class Answered:
    """A window with a column per call. Rows are finished unless the run was cancelled before all calls answered."""

    batch: pa.RecordBatch
    finished: Mask
    failed: Mask

    def kept(self, context: Context) -> Mask:
        """Rows that go on: finished ones, and where the query skips errors, those without."""
        return self.finished & ~self.failed if context.policy.on_error == "skip" else self.finished


def answer_window(
    runners: Sequence[CallRunner], window: Window, numbers: NDArray[np.int64], context: Context, rows: int
) -> Answered:
    """All calls over one window in one run of each engine, so that they share what their prompts begin with.

    `numbers` are the rows' numbers in the whole input; `rows` of the query are finished with these answers.
    """
    batch = window.batch
    inquiries = [runner.inquire(ready, numbers) for runner, ready in zip(runners, window.prepared, strict=True)]
    ask(inquiries, context, rows)
    found = [runner.read(inquiry, batch.num_rows) for runner, inquiry in zip(runners, inquiries, strict=True)]
    for runner, answers in zip(runners, found, strict=True):
        context.counts["nulls"] += _nulls(runner.call, window.batch, answers.values)
        batch = batch.append_column(pa.field(runner.call.out, answers.values.type), answers.values)
    finished = np.logical_and.reduce([answers.finished for answers in found])
    return Answered(batch, finished, np.logical_or.reduce([answers.failed for answers in found]))


def _nulls(call: CallExec, window: pa.RecordBatch, values: pa.Array) -> int:
    """Rows without an answer; those that another model of a cascade answers are none of them."""
    if call.stage is None:
        return int(values.null_count)
    asked = call.stage.last and pc.fill_null(window.column(call.guard), False)
    return int(pc.sum(pc.and_(pc.is_null(values), asked)).as_py() or 0)


def windows(batches: Iterator[pa.RecordBatch], size: int) -> Iterator[pa.RecordBatch]:
    """Rebatch, the first window `size` rows, each twice the one before: large windows share more, small ones stop or
    teach early.
    """
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
