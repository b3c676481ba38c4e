"""Filters whose conditions are asked in an order that is learnt while they are asked.

The first windows are small: their rows are the pilot. What a condition costs is counted in tokens, by the tokenizer
until it is first asked and by the engine from then on; the share of rows that meet it is that of the rows asked so far.
An AND asks first what rules a row out for the fewest tokens, an OR what lets it in: cost over the share that is decided
(Hellerstein and Stonebraker 1993). A row is asked only what the conditions before left open, as SQL in that order does.
"""

from abc import ABC, abstractmethod
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dql.executor.call import CallRunner, Mask
from dql.executor.context import Context
from dql.executor.infer import answer_window, prepare, windows
from dql.planner.early import FIRST_ROWS
from dql.planner.physical import ConditionExec, ConditionsExec, SiftExec

PILOT_ROWS = 64  # of the first window; each window is twice the one before

Rows = NDArray[np.int64]  # numbers of rows in their window, ascending


@dataclass(slots=True)
class _Window:
    """Rows being sifted, and for each call kept so far the rows asked with their answers.

    skipped: rows that failed in a query that leaves such rows out, whatever their other conditions say.
    """

    batch: pa.RecordBatch
    numbers: Rows  # in the whole input
    finished: Mask
    skipped: Mask
    answers: dict[str, tuple[Rows, pa.Array]] = field(default_factory=dict)


def sift(
    plan: SiftExec, below: Generator[pa.RecordBatch, None, None], context: Context
) -> Generator[pa.RecordBatch, None, None]:
    """The rows that meet the conditions, in input order; when cancelled, also those of the window that are sure."""
    conditions = _All(plan.conditions, context) if not plan.conditions.any else _Any(plan.conditions, context)
    runners = {runner.call.out: runner for leaf in conditions.leaves() for runner in leaf.runners}
    row = 0
    try:
        for batch in windows(below, FIRST_ROWS if plan.stops_early else PILOT_ROWS):
            if row == 0:
                for leaf in conditions.leaves():
                    leaf.count(batch.slice(0, PILOT_ROWS))
            every, none = np.ones(batch.num_rows, dtype=bool), np.zeros(batch.num_rows, dtype=bool)
            window = _Window(batch, row + np.arange(batch.num_rows), every, none)
            met = conditions.run(window, np.arange(batch.num_rows))
            yield _output(window, met[window.finished[met]], [runners[out] for out in plan.kept])
            row += batch.num_rows
            context.rows = row
            context.tracker.update(rows_done=row)
            if context.cancelled.is_set():
                return
        context.check_share(done=True)
    finally:
        below.close()
        _tell(conditions)


def _output(window: _Window, rows: Rows, kept: Sequence[CallRunner]) -> pa.RecordBatch:
    batch = window.batch.take(pa.array(rows))
    for runner in kept:
        asked, column = window.answers.get(runner.call.out, (rows, pa.nulls(0, runner.type)))
        values = column.take(pa.array(np.searchsorted(asked, rows)))
        batch = batch.append_column(pa.field(runner.call.out, runner.type), values)
    return batch


def _tell(conditions: "_Group") -> None:
    """Note for EXPLAIN ANALYZE in which order the conditions were asked at last, and what became of their rows."""
    for place, leaf in enumerate(conditions.leaves(in_order=True), 1):
        for runner in leaf.runners[:1]:
            runner.measured.order = f"number {place} in the end · TRUE of {leaf.met:,} of {leaf.asked:,} rows"


class _Leaf:
    """One condition: how often it was asked, and of how many rows it was TRUE."""

    def __init__(self, plan: ConditionExec, context: Context) -> None:
        self._plan = plan
        self._context = context
        self._steps = [(step, [CallRunner(call, context) for call in step.calls]) for step in plan.steps]
        self._counted = 0.0
        self.asked = self.met = 0

    @property
    def runners(self) -> list[CallRunner]:
        return [runner for _, runners in self._steps for runner in runners]

    @property
    def cost(self) -> float:
        """Tokens that asking about a row takes."""
        return self.work / self.asked if self.asked else self._counted

    @property
    def work(self) -> float:
        """Tokens computed and drawn so far."""
        return sum(runner.measured.prefilled + runner.measured.decoded for runner in self.runners)

    @property
    def share(self) -> float:
        """The share of rows that meet it; a half where nothing is known."""
        return (self.met + 1) / (self.asked + 2)

    def leaves(self, in_order: bool = False) -> Iterator["_Leaf"]:
        yield self

    def count(self, batch: pa.RecordBatch) -> None:
        """Count the tokens of what would be asked first about these rows; later steps are taken to cost as much."""
        if self._steps and batch.num_rows:
            step, runners = self._steps[0]
            mapped = self._map(step.sql, step.name, batch)
            self._counted = sum(runner.prepare.tokens(mapped) for runner in runners) * len(self.runners) / len(runners)

    def run(self, window: _Window, rows: Rows) -> Rows:
        """Those of the rows that meet the condition."""
        batch = window.batch if len(rows) == window.batch.num_rows else window.batch.take(pa.array(rows))
        going = np.ones(len(rows), dtype=bool)
        for step, runners in self._steps:
            mapped = self._map(step.sql, step.name, batch)
            answered = answer_window(runners, prepare(runners, mapped), window.numbers[rows], self._context, 0)
            kept = answered.kept(self._context)
            window.finished[rows[~answered.finished]] = False
            window.skipped[rows[answered.finished & ~kept]] = True
            going &= kept
            batch = answered.batch
        window.answers |= {runner.call.out: (rows, batch.column(runner.call.out)) for runner in self.runners}
        true = pc.fill_null(self._map(self._plan.sql, self._plan.name, batch).column(0), False)
        met: Rows = rows[going & true.to_numpy(zero_copy_only=False)]
        self.asked += len(rows)
        self.met += len(met)
        return met

    def _map(self, sql: str, name: str, batch: pa.RecordBatch) -> pa.RecordBatch:
        return pa.concat_batches(self._context.catalog.map_batch(sql, name, batch, self._context.params))


class _Group(ABC):
    """Conditions of which all or one must be met."""

    def __init__(self, plan: ConditionsExec, context: Context) -> None:
        self._context = context
        self._parts = [_part(part, context) for part in plan.parts]
        self.asked = self.met = 0

    @property
    def work(self) -> float:
        return sum(part.work for part in self._parts)

    @property
    def cost(self) -> float:
        """Tokens that asking about a row takes, with each part asked about what the ones before it leave."""
        if self.asked:
            return self.work / self.asked
        cost, reach = 0.0, 1.0
        for part in self._order():
            cost += reach * part.cost
            reach *= self._left(part)
        return cost

    @property
    def share(self) -> float:
        return (self.met + 1) / (self.asked + 2)

    def leaves(self, in_order: bool = False) -> Iterator[_Leaf]:
        for part in self._order() if in_order else self._parts:
            yield from part.leaves(in_order)

    def run(self, window: _Window, rows: Rows) -> Rows:
        """Those of the rows that meet the conditions."""
        met = self._run(window, rows)
        self.asked += len(rows)
        self.met += len(met)
        return met

    def _order(self) -> list["_Leaf | _Group"]:
        """The parts, those that decide a row for the fewest tokens first; as written where they are alike."""
        return sorted(self._parts, key=lambda part: part.cost / (1 - self._left(part)))

    @abstractmethod
    def _left(self, part: "_Leaf | _Group") -> float:
        """The share of rows that are still open when this part has been asked."""

    @abstractmethod
    def _run(self, window: _Window, rows: Rows) -> Rows:
        """Ask the parts in order; the rows that meet the conditions."""

    def _goes_on(self, window: _Window, rows: Rows) -> bool:
        """Whether there are rows left to ask about; where the run is cancelled they stay unfinished."""
        if self._context.cancelled.is_set():
            window.finished[rows] = False
        return len(rows) > 0 and not self._context.cancelled.is_set()


class _All(_Group):
    def _left(self, part: "_Leaf | _Group") -> float:
        return part.share

    def _run(self, window: _Window, rows: Rows) -> Rows:
        for part in self._order():
            if not self._goes_on(window, rows):
                break
            rows = part.run(window, rows)
        return rows


class _Any(_Group):
    def _left(self, part: "_Leaf | _Group") -> float:
        return 1 - part.share

    def _run(self, window: _Window, rows: Rows) -> Rows:
        met: list[Rows] = [rows[:0]]
        for part in self._order():
            if not self._goes_on(window, rows):
                break
            met.append(part.run(window, rows))
            rows = np.setdiff1d(rows[~window.skipped[rows]], met[-1], assume_unique=True)
        return np.sort(np.concatenate(met))


def _part(plan: ConditionExec | ConditionsExec, context: Context) -> _Leaf | _Group:
    if isinstance(plan, ConditionExec):
        return _Leaf(plan, context)
    return _Any(plan, context) if plan.any else _All(plan, context)
