"""Answers to a sample of the user's rows, from the engines that the run will use and by the same operators."""

from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from time import perf_counter

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dql.executor.call import precise_tokens, task_of
from dql.executor.context import Asked, Context, Kept, asked_as
from dql.executor.infer import infer
from dql.executor.operators import execute
from dql.executor.prepare import wanted
from dql.executor.requests import Answer, Tokens
from dql.executor.taught import divergence, first_places, share_first, taught
from dql.planner.calls import DETAILS
from dql.planner.evidence import Sample, Told
from dql.planner.physical import CallExec, FragmentExec, InferExec
from dql.planner.prompts import prompts
from dql.planner.sampling import over, source
from dql.planner.statistics import prompt_key, read_texts
from dql.prompts import CompiledPrompt

_SCAN_ROWS = 2048
_SEED = 577_215_664  # of the keys by which rows are drawn: the same for every query, and for no table made by chance
_DRAWN = 8  # rows drawn below other inference for each that is wanted above it, at most
_PART = 128  # of these, how many are asked about at once
_DISTRIBUTIONS = 1 << 24  # log-probabilities of one model that are held at once: 64 MiB
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
    They are apart from what the models said themselves, which other calls and later tests read. ahead: prompts that
    those others have answered.
    """

    context: Context
    spent: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    kept: dict[Kept, dict[bytes, Answer]] = field(default_factory=dict)
    ahead: dict[Kept, set[bytes]] = field(default_factory=dict)

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
        with self._counted(context):
            found = [row for batch in infer(node, _once(window), context) for row in batch.column(call.out).to_pylist()]
        if len(found) < len(window) or context.cancelled.is_set():
            raise KeyboardInterrupt
        told = [Told(row["value"], row["confidence"]) for row in found]
        return told[::-1] if fresh else told

    def keep(self, call: CallExec, instead: CallExec, sample: Sample) -> None:
        assert isinstance(sample, Drawn)
        answered = self._keys(call, sample)
        for asked, keys in answered:
            self.ahead[call.out, asked] = set(keys) & self.context.memos.get(asked, {}).keys()
        if call.calibrate:
            return  # scores are read against the model's own liking of the labels
        if call.op == "generate" and call.model != instead.model:
            return  # an answer is token ids, and these are words in their own model's vocabulary alone
        for (asked, keys), (asks, others) in zip(answered, self._keys(instead, sample), strict=True):
            known, kept = self.context.memos.get(asked, {}), self.kept.setdefault((instead.out, asks), {})
            kept.update((other, known[one]) for one, other in zip(keys, others, strict=True) if one in known)

    def follows(
        self, reference: CallExec, candidate: CallExec, sample: Sample, start: int, end: int
    ) -> list[float | None]:
        assert isinstance(sample, Drawn)
        given = self._given(reference, sample, start, end)
        prompt, texts = self._prompts(candidate, sample)
        with self._counted():
            found = taught(candidate, texts, given, self.context, precise=precise_tokens(candidate, prompt))
        rows = range(start, end)
        return [share_first(found.get(row), given[row], prompt.stop_ids) if row in given else None for row in rows]

    def divergence(self, reference: CallExec, candidate: CallExec, sample: Sample, rows: int) -> float | None:
        """Of free text over the first places of the first rows, as many as fit into a fixed memory: exact there."""
        assert isinstance(sample, Drawn)
        if reference.op != "generate":
            return self._label_divergence(reference, candidate, sample, rows)
        if candidate.model != reference.model:
            return None  # its words are others
        most = _DISTRIBUTIONS // self.context.models.model(reference.model).shape.vocab_size
        given = first_places(self._given(reference, sample, 0, rows), max(1, most))
        prompt, texts = self._prompts(reference, sample)
        with self._counted():
            ones, others = (
                taught(call, texts, given, self.context, whole=True, precise=precise_tokens(call, prompt))
                for call in (reference, candidate)
            )
        pairs = [(ones[row].distributions, others[row].distributions) for row in given if row in ones and row in others]
        found = [divergence(p, q) for p, q in pairs if p is not None and q is not None]
        return float(np.concatenate(found).mean()) if found else None

    def _label_divergence(self, reference: CallExec, candidate: CallExec, sample: Drawn, rows: int) -> float | None:
        """Over labels: both have told how probable they find each."""
        self.answers(reference, sample, 0, rows)
        self.answers(candidate, sample, 0, rows)
        found: list[NDArray[np.float64]] = []
        for (asks, keys), (other, others) in zip(
            self._keys(reference, sample), self._keys(candidate, sample), strict=True
        ):
            known, told = self.context.memos.get(asks, {}), self.context.memos.get(other, {})
            for one, two in zip(keys[:rows], others[:rows], strict=True):
                if one in known and two in told and len(known[one].logprobs) == len(told[two].logprobs) > 0:
                    found.append(divergence(known[one].logprobs[None], told[two].logprobs[None]))
        return float(np.concatenate(found).mean()) if found else None

    def _given(self, reference: CallExec, sample: Drawn, start: int, end: int) -> dict[int, tuple[int, ...]]:
        """The tokens of a reference's answers by row, a stop id last where an answer ended by itself."""
        self.answers(reference, sample, start, end)
        ((asks, keys),) = self._keys(reference, sample)
        memo = self.context.memos.get(asks, {})
        stop = self._prompts(reference, sample)[0].stop_ids
        given: dict[int, tuple[int, ...]] = {}
        for row in range(start, end):
            if (answer := memo.get(keys[row])) is not None:
                ends = answer.finish == "stop" and not reference.decoding.stop
                given[row] = (*answer.tokens.tolist(), *(sorted(stop)[:1] if ends else ()))
        return given

    def _prompts(self, call: CallExec, sample: Drawn) -> tuple[CompiledPrompt, list[Tokens]]:
        """The prompt of a call that generates, and what it is for each row."""
        (prompt,) = prompts(call, self.context.models.model(call.model))
        batch = prompt.encode([read_texts(sample.rows.column(hole)) for hole in call.holes])
        return prompt, [batch.row(row) for row in range(len(batch))]

    @contextmanager
    def _counted(self, context: Context | None = None) -> Iterator[None]:
        """What is done inside counts as spent on evidence."""
        counts = (context or self.context).counts
        before, began = Counter(counts), perf_counter()
        try:
            yield
        finally:
            self.spent.update({name: counts[name] - before[name] for name in _COUNTED})
            self.seconds += perf_counter() - began

    def teach(self, context: Context) -> None:
        """Give a run what is known already, and count what it took."""
        context.memos = {**self.context.memos, **context.memos}
        context.kept, context.ahead = self.kept, self.ahead
        context.counts.update(self.spent)

    def _keys(self, call: CallExec, sample: Drawn) -> list[tuple[Asked, list[bytes]]]:
        """For each prompt of a call: what its answers are remembered under, and the key of each row."""
        model = self.context.models.model(call.model)
        texts = [read_texts(sample.rows.column(hole)) for hole in call.holes]
        found = []
        for prompt in prompts(call, model):
            batch = prompt.encode(texts)
            asks = asked_as(call.model, call.placement, task_of(call, prompt))
            found.append((asks, [prompt_key(batch.row(i).tobytes()) for i in range(len(batch))]))
        return found


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
