"""Answers to a sample of the user's rows, from the engines that the run will use and by the same operators."""

from collections import Counter
from collections.abc import Generator, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from time import perf_counter

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dql.executor.call import task_of
from dql.executor.context import Asked, Context, Kept, asked_as, prompt_key
from dql.executor.infer import infer
from dql.executor.inquiry import Inquiry, Question, ask
from dql.executor.operators import execute
from dql.executor.prepare import wanted
from dql.executor.requests import Answer, Generate
from dql.planner.calls import DETAILS
from dql.planner.evidence import Sample, Told
from dql.planner.measured import Measured
from dql.planner.physical import CallExec, FragmentExec, InferExec
from dql.planner.prompts import prompts
from dql.planner.sampling import over, source
from dql.planner.statistics import read_texts

_SCAN_ROWS = 2048
_SEED = 0  # of the keys by which rows are drawn: the same rows for every query over the same input
_DRAWN = 8  # rows drawn below other inference for each that is wanted above it, at most
_PART = 128  # of these, how many are asked about at once
_COUNTED = ("prefilled", "shared", "decoded")


@dataclass(frozen=True, slots=True, eq=False)
class Drawn:
    """Random rows in random order: the columns that a call reads, without NULLs."""

    rows: pa.RecordBatch
    population: int
    exact: bool = True

    def __len__(self) -> int:
        return int(self.rows.num_rows)


@dataclass(slots=True)
class EngineEvidence:
    """Implements `planner.evidence.Evidence`. `context` is that of the sample, apart from the run's.

    seconds: that answers took so far, models loaded included. kept: answers that a call of the run takes from another.
    They are apart from what the models said themselves, which other calls and later tests read.
    """

    context: Context
    spent: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    kept: dict[Kept, dict[bytes, Answer]] = field(default_factory=dict)

    def pilot(self, node: InferExec, call: CallExec, rows: int) -> Drawn:
        below = source(node)
        assert below is not None, "these rows cannot be sampled before the run"
        columns = list(dict.fromkeys(call.holes))
        if node.child == below:
            return self._draw(below.sql, call, columns, rows)
        # rows that other inference decides: that is asked about random rows of what lies below it
        drawn = self._draw(below.sql, None, None, _DRAWN * rows)
        kept: list[pa.RecordBatch] = []
        read = 0
        while read < len(drawn) and sum(batch.num_rows for batch in kept) < rows:
            part = drawn.rows.slice(read, _PART)
            read += part.num_rows
            table = self.context.catalog.materialise([part])
            try:
                for batch in execute(over(node.child, FragmentExec(f"FROM {table}")), self.context):
                    kept.append(batch.select(columns).take(pa.array(wanted(batch, call))))
            finally:
                self.context.catalog.drop(table)
            if self.context.cancelled.is_set():
                raise KeyboardInterrupt
        found = pa.concat_batches(kept).slice(0, rows) if kept else pa.RecordBatch.from_pylist([])
        passed = sum(batch.num_rows for batch in kept)
        return Drawn(found, round(drawn.population * passed / max(read, 1)), exact=False)

    def _draw(self, sql: str, call: CallExec | None, columns: list[str] | None, rows: int) -> Drawn:
        """Rows are drawn by a key each, the smallest keys stay: the same input in the same order, the same sample.

        call: of whose rows; None for all of them. columns: what is kept of them, None for all.
        """
        random = np.random.default_rng(_SEED)
        keys, kept, population = np.empty(0), list[pa.RecordBatch](), 0
        for batch in self.context.catalog.stream(sql, _SCAN_ROWS, self.context.params):
            asked = np.arange(batch.num_rows) if call is None else wanted(batch, call)
            drawn = random.random(len(asked))
            population += len(asked)
            limit = np.partition(keys, rows - 1)[rows - 1] if len(keys) >= rows else 1.0
            low = np.flatnonzero(drawn < limit)
            keys = np.concatenate([keys, drawn[low]])
            narrow = batch if columns is None else batch.select(columns)
            kept.append(narrow.take(pa.array(asked[low])))
            if len(keys) > 8 * rows:
                keys, kept = _smallest(keys, kept, rows)
        return Drawn(_smallest(keys, kept, rows)[1][0], population)

    def answers(self, call: CallExec, sample: Sample, start: int, end: int, *, fresh: bool = False) -> list[Told]:
        assert isinstance(sample, Drawn)
        window = sample.rows.slice(start, end - start)
        asked = _plain(call)
        context = replace(self.context, memos={}, measured={}) if fresh else self.context
        if fresh:  # the other way round and in other steps: what rounding does to the answers shows
            window = window.take(pa.array(np.arange(len(window))[::-1]))
            place = asked.placement
            steps = max(place.step_tokens // 2, place.max_rows)
            asked = replace(asked, placement=replace(place, step_tokens=steps))
        node = InferExec(FragmentExec(""), (asked,))
        before, began = Counter(context.counts), perf_counter()
        found = [row for batch in infer(node, _once(window), context) for row in batch.column(call.out).to_pylist()]
        self.spent.update({name: context.counts[name] - before[name] for name in _COUNTED})
        self.seconds += perf_counter() - began
        if len(found) < len(window) or context.cancelled.is_set():
            raise KeyboardInterrupt
        told = [Told(row["value"], row["confidence"]) for row in found]
        return told[::-1] if fresh else told

    def keep(self, call: CallExec, instead: CallExec, sample: Sample) -> None:
        assert isinstance(sample, Drawn)
        if call.calibrate:
            return  # scores are read against the model's own liking of the labels
        if call.op == "generate" and call.model != instead.model:
            return  # an answer is token ids, and these are words in their own model's vocabulary alone
        for (asked, keys), (asks, others) in zip(self._keys(call, sample), self._keys(instead, sample), strict=True):
            known, kept = self.context.memos.get(asked, {}), self.kept.setdefault((instead.out, asks), {})
            kept.update((other, known[one]) for one, other in zip(keys, others, strict=True) if one in known)
        self.spent["calibrated"] += len(sample)

    def follows(
        self, reference: CallExec, candidate: CallExec, sample: Sample, start: int, end: int
    ) -> list[float | None]:
        """A request for each token and what stands before it: the prefix tree makes them one pass over the answer."""
        assert isinstance(sample, Drawn)
        self.answers(reference, sample, start, end)
        ((asks, keys),) = self._keys(reference, sample)
        memo = self.context.memos.get(asks, {})
        (prompt,) = prompts(candidate, self.context.models.model(candidate.model))
        batch = prompt.encode([read_texts(sample.rows.column(hole)) for hole in candidate.holes])
        task, asked, right = Generate(1, prompt.stop_ids), list[Question](), dict[int, list[bool]]()
        for row in range(start, end):
            if (answer := memo.get(keys[row])) is None:
                continue
            right[row] = []
            ends = answer.finish == "stop" and not reference.decoding.stop
            whole, before = np.concatenate([batch.row(row), answer.tokens]), len(batch.row(row))
            for place, token in enumerate([*answer.tokens.tolist(), *([None] if ends else [])]):
                tokens = whole[: before + place]  # a view: a copy for each token would be quadratic in the answer
                asked.append(Question(row, tokens, task, partial(_note, right[row], token)))
        began, rows = perf_counter(), np.arange(0)
        plain = replace(candidate, label="a sample")
        ask([Inquiry(plain, Measured(), rows, rows, [], asked)], self.context)
        self.seconds += perf_counter() - began
        if self.context.cancelled.is_set():
            raise KeyboardInterrupt
        return [float(np.mean(right[row] or [True])) if row in right else None for row in range(start, end)]

    def teach(self, context: Context) -> None:
        """Give a run what is known already, and count what it took."""
        context.memos = {**self.context.memos, **context.memos}
        context.kept = self.kept
        context.counts.update(self.spent)

    def _keys(self, call: CallExec, sample: Drawn) -> list[tuple[Asked, list[bytes]]]:
        """For each prompt of a call: what its answers are remembered under, and the key of each row."""
        model = self.context.models.model(call.model)
        texts = [read_texts(sample.rows.column(hole)) for hole in call.holes]
        found = []
        for prompt in prompts(call, model):
            batch = prompt.encode(texts)
            asks = asked_as(call.model, call.placement, task_of(call, prompt))
            found.append((asks, [prompt_key(batch.row(i)) for i in range(len(batch))]))
        return found


def _note(right: list[bool], token: int | None, found: Answer) -> None:
    """Whether a model's next token is the reference's; None is the end of the answer."""
    drawn = int(found.tokens[0]) if len(found.tokens) else None
    right.append(found.failure is None and drawn == token)


def _plain(call: CallExec) -> CallExec:
    """The call alone, over rows that are all wanted, its confidence beside its answer; answers are remembered, whatever
    the run does."""
    value = "VARCHAR[]" if call.multi else "VARCHAR"
    place = replace(call.placement, reuse=True)
    told = replace(call, details=True, type=DETAILS.format(value), label="a sample", placement=place)
    return replace(told, guard=None, stage=None)


def _once(window: pa.RecordBatch) -> Generator[pa.RecordBatch, None, None]:
    yield window


def _smallest(
    keys: NDArray[np.float64], kept: Sequence[pa.RecordBatch], rows: int
) -> tuple[NDArray[np.float64], list[pa.RecordBatch]]:
    """The rows with the smallest keys, in the order of these."""
    order = np.argsort(keys)[:rows]
    return keys[order], [pa.concat_batches(kept).take(pa.array(order))]
