"""What a query will ask of the model, counted before it runs: rows, distinct prompts, tokens, shared tokens."""

import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence, Set
from dataclasses import dataclass, replace
from hashlib import blake2b

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from dql.planner.lengths import quantiles
from dql.planner.physical import (
    CallExec,
    ConditionExec,
    ConditionsExec,
    FragmentExec,
    InferExec,
    LimitExec,
    MapExec,
    PhysicalPlan,
    SiftExec,
    StepExec,
)
from dql.planner.prefix import Tokens, computed_tokens
from dql.planner.prompts import without_content
from dql.planner.windows import planned
from dql.prompts import CompiledPrompt, TokenBatch

BUDGET = 0.5  # seconds spent on counting before the counts become a sample's

Stream = Callable[[str, int], Iterator[pa.RecordBatch]]


@dataclass(frozen=True, slots=True)
class CallStatistics:
    """Counts for one call. `prompt_tokens` is the sum over its rows, `shared` the tokens that all prompts begin with.

    rows: about which anything is asked. asked: prompts about them all. prompts: about a row, one for each label where
    several may hold. distinct: prompts that differ. computed: tokens of these that the engine computes, those counted
    once that it shares between them and the prompts of calls that run together with them. lengths: quantiles of the
    distinct prompts' tokens. priors: prompts without content that are asked first to calibrate, which all but `rows`
    have in them. too_long: rows with a prompt over the context, which is asked only where it is cut to fit;
    what else is asked about the row is counted. exact: every row was counted;
    otherwise `sampled` says how many were, and the figures are scaled to the rows that there are (0: nobody knows how
    many, and they are those of the rows read). guessed: the input depends on inference that has not run. without: rows
    that there would be if no LIMIT ended the run, 0 where none does; then `unsure` is the share by which the others may
    be off.
    """

    rows: int
    asked: int
    distinct: int
    prompt_tokens: int
    distinct_tokens: int
    shared: int
    longest: int
    prompts: int = 1
    exact: bool = True
    computed: int = 0
    lengths: tuple[float, ...] = ()
    priors: int = 0
    once: int = 0
    twice: int = 0
    too_long: int = 0
    sampled: int = 0
    guessed: bool = False
    without: int = 0
    unsure: float = 0.0

    @property
    def at_least(self) -> bool:
        """Whether there may be any number of rows more."""
        return not (self.exact or self.sampled or self.guessed)

    @property
    def known_rows(self) -> int | None:
        """Rows, None where these are but the first ones."""
        return None if self.at_least else self.rows

    def scaled(self, factor: float, read: int = 0, texts: int | None = None) -> "CallStatistics":
        """The statistics of `factor` times the rows; `read` were sampled.

        texts: what these rows ask about, different ones alone; unknown, repeats are taken as `more_distinct` says.
        """
        asked = round(self.asked * factor)
        if texts is None:
            distinct = more_distinct(self.distinct, self.once, self.twice, self.asked, asked)
        else:
            distinct = min(max(round(texts * self.asked / max(self.rows, 1)), self.distinct), asked)
        grown = distinct / max(self.distinct, 1)
        below = self.computed - self.shared
        return replace(
            self,
            rows=round(self.rows * factor),
            asked=asked,
            distinct=distinct,
            prompt_tokens=round(self.prompt_tokens * factor),
            distinct_tokens=round(self.distinct_tokens * grown),
            computed=self.shared + round(below * grown) if self.distinct else 0,
            too_long=round(self.too_long * factor),
            exact=False,
            sampled=read,
        )

    def rest(self, answered: int) -> "CallStatistics":
        """The statistics of what is left where so many of the distinct prompts have answers, nobody knows which."""
        share = max(self.distinct - answered, 0) / max(self.distinct, 1)
        below = self.computed - self.shared
        return replace(
            self,
            rows=round(self.rows * share),
            asked=round(self.asked * share),
            distinct=round(self.distinct * share),
            prompt_tokens=round(self.prompt_tokens * share),
            distinct_tokens=round(self.distinct_tokens * share),
            computed=self.shared + round(below * share) if share else 0,
            exact=False,
            sampled=self.rows if self.exact else self.sampled,
        )

    def until(self, share: float, unsure: float) -> "CallStatistics":
        """The statistics of a run that a LIMIT ends after this share of the rows."""
        return replace(self.scaled(share, self.sampled or self.rows), without=self.rows, unsure=unsure)


def more_distinct(distinct: int, once: int, twice: int, rows: int, wanted: int) -> int:
    """How many distinct prompts `wanted` rows have, of which `rows` were read with so many distinct ones.

    once, twice: prompts seen so often. Where a population has been seen for the most part, those unseen are about
    once² ÷ 2 · twice (Chao 1984), however many rows come. Texts have no end: they grow with a power of the rows (Heaps'
    law), whose exponent is about the share of prompts seen once. The chance that the next row asks nothing new,
    1 − once ÷ rows (Good and Turing), says how far it is the one or the other.
    """
    if not distinct or wanted <= rows:
        return min(distinct, wanted)
    ended = distinct + once**2 / (2 * max(twice, 1))
    endless: float = distinct * (wanted / rows) ** (once / distinct)
    seen = 1 - once / rows
    expected: float = ended**seen * endless ** (1 - seen)
    return round(min(expected, distinct * wanted / rows))


@dataclass(frozen=True, slots=True)
class Counted:
    """Statistics of a node's calls. rows: of its input that were read; seconds: of DuckDB for these, `first` of them
    for the first batch. left: the same of prompts without an answer; () where none has one, or not all were counted.
    """

    calls: tuple[CallStatistics, ...]
    rows: int
    exact: bool
    seconds: float
    first: float
    left: tuple[CallStatistics, ...] = ()

    def scaled(self, rows: int, texts: Sequence[int] | None = None) -> "Counted":
        """The same for an input of so many rows; `texts`: those of each call that differ, where they are known."""
        factor, known = rows / max(self.rows, 1), texts if texts is not None else [None] * len(self.calls)
        calls = tuple(call.scaled(factor, self.rows, t) for call, t in zip(self.calls, known, strict=True))
        return replace(self, calls=calls)


@dataclass(frozen=True, slots=True)
class Asked:
    """What a call asks: its compiled prompts, the most tokens that one may have, and whether longer ones are cut.
    answered: prompts that have answers already, by their keys.
    """

    prompts: Sequence[CompiledPrompt]
    limit: int
    truncate: bool = False
    answered: Set[bytes] = frozenset()


def infer_nodes(plan: PhysicalPlan) -> Iterator[InferExec]:
    """Inference nodes of a plan, the last to run first."""
    match plan:
        case InferExec():
            yield plan
            yield from infer_nodes(plan.child)
        case SiftExec():
            yield from _steps(plan)
            yield from infer_nodes(plan.child)
        case MapExec() | LimitExec():
            yield from infer_nodes(plan.child)
        case FragmentExec():
            for _, child in plan.inputs:
                yield from infer_nodes(child)


def _steps(plan: SiftExec) -> Iterator[InferExec]:
    """The calls of a filter in the order written, the last first. The first is asked about all rows of the child."""
    steps = list(condition_steps(plan.conditions))
    for number, step in reversed(list(enumerate(steps))):
        below: PhysicalPlan = MapExec(plan.child, step.sql, step.name)
        if number == 0 and isinstance(plan.child, FragmentExec) and not plan.child.inputs:
            below = FragmentExec(step.sql.removesuffix(step.name) + f"({plan.child.sql})")
        yield InferExec(below, step.calls, plan.stops_early)


def condition_steps(conditions: ConditionExec | ConditionsExec) -> Iterator[StepExec]:
    """The steps of conditions, in the order written."""
    if isinstance(conditions, ConditionExec):
        yield from conditions.steps
        return
    for part in conditions.parts:
        yield from condition_steps(part)


def countable(node: InferExec) -> str | None:
    """The SQL that yields a node's input, where no inference comes before it."""
    return node.child.sql if isinstance(node.child, FragmentExec) and not node.child.inputs else None


def count_calls(node: InferExec, asked: Sequence[Asked], stream: Stream, budget: float = BUDGET) -> Counted:
    """Statistics of each call of a node whose input is `countable`; `asked` is what its calls ask."""
    sql = countable(node)
    assert sql is not None, "what earlier inference decides cannot be counted"
    counters = [_Counter(call, what) for call, what in zip(node.calls, asked, strict=True)]
    began = now = time.monotonic()
    rows, exact, seconds, first = 0, True, 0.0, 0.0
    batches = stream(sql, 2048)
    while (batch := next(batches, None)) is not None:
        seconds += time.monotonic() - now
        first = first or seconds
        for counter in counters:
            counter.add(batch, rows)
        rows += batch.num_rows
        now = time.monotonic()
        if now - began > budget:
            exact = next(batches, None) is None
            break
    calls = _all_statistics(counters, exact)
    if not exact or not any(what.answered for what in asked):
        return Counted(calls, rows, exact, seconds, first)
    for counter in counters:
        counter.drop_answered()
    return Counted(calls, rows, exact, seconds, first, _all_statistics(counters, exact))


def prompt_key(tokens: bytes) -> bytes:
    """What a prompt's answer is remembered by, of its token ids as they lie."""
    return blake2b(tokens, digest_size=16).digest()


def _all_statistics(counters: Sequence["_Counter"], exact: bool) -> tuple[CallStatistics, ...]:
    computed = _computed_by_calls(counters)
    return tuple(_statistics(counter, exact, tokens) for counter, tokens in zip(counters, computed, strict=True))


def _computed_by_calls(counters: Sequence["_Counter"]) -> list[int]:
    """Tokens that each call computes. Those of calls that run together are shared out by what each would compute by
    itself: a beginning that they have in common belongs to none of them.
    """
    found = [computed_tokens(_windows([counter])) for counter in counters]
    together: dict[object, list[int]] = {}
    for i, counter in enumerate(counters):
        together.setdefault(counter.asking, []).append(i)
    for group in together.values():
        if len(group) > 1 and (alone := [found[i] for i in group]) and sum(alone):
            joint = computed_tokens(_windows([counters[i] for i in group]))
            ends = np.round(np.cumsum([0, *alone]) * (joint / sum(alone))).astype(int)
            for i, part in zip(group, np.diff(ends).tolist(), strict=True):
                found[i] = part
    return found


def _windows(counters: Sequence["_Counter"]) -> Iterator[list[Tokens]]:
    """What an engine plans at once of calls that run together: prompts without content by themselves, then rows."""
    for counter in counters:
        yield from counter.priors
    yield from planned(*_asked_by(counters))


def _asked_by(counters: Sequence["_Counter"]) -> tuple[list[Tokens], list[int]]:
    """The different requests of calls that run together, in the order in which rows ask them, and these rows."""
    numbers: dict[object, int] = {}  # of tasks, whose own hashes take longer than all else
    first: dict[tuple[bytes, int], int] = {}
    for counter in counters:
        task = numbers.setdefault(counter.task, len(numbers))
        for prompt, row in counter.rows_of.items():
            if prompt in counter.seen:
                first[prompt, task] = min(row, first.get((prompt, task), row))
    ordered = sorted(first.items(), key=lambda each: each[1])
    return [np.frombuffer(prompt, np.int32) for (prompt, _), _ in ordered], [row for _, row in ordered]


def read_texts(column: pa.Array) -> list[str]:
    """A column of texts without NULLs. Bytes that are no UTF-8 become lone surrogates, which no prompt takes."""
    try:
        return column.to_pylist()  # type: ignore[no-any-return]
    except UnicodeDecodeError:
        return [value.decode(errors="surrogateescape") for value in column.cast(pa.binary()).to_pylist()]


class _Counter:
    """Counts one call's prompts batch by batch: `seen`, each with its rows, and the rows with one that is too long.

    priors: of each of the call's prompts those without content, once a row is asked about.
    """

    def __init__(self, call: CallExec, asked: Asked) -> None:
        self._call = call
        self._asked = asked
        self.prompts = max(len(asked.prompts), 1)
        self.asking = call.model, call.stage.number if call.stage is not None else 0  # equal where calls run together
        self.task = call.decoding if call.op == "generate" else tuple(prompt.label_ids for prompt in asked.prompts)
        self.seen: Counter[bytes] = Counter()
        self._together: Counter[tuple[bytes, ...]] = (
            Counter()
        )  # what is asked about a row, where that is several prompts
        self.rows_of: dict[bytes, int] = {}  # the first row that asks each of those seen
        self.priors: list[list[Tokens]] = []
        self.too_long = 0

    def add(self, batch: pa.RecordBatch, before: int) -> None:
        """Count the prompts about a batch that `before` rows come before."""
        wanted = pa.array(np.ones(batch.num_rows, dtype=bool))
        for hole in self._call.holes:
            wanted = pc.and_(wanted, pc.is_valid(batch.column(hole)))
        if self._call.guard is not None:
            wanted = pc.and_(wanted, pc.fill_null(batch.column(self._call.guard), False))
        kept = batch.filter(wanted)
        if not kept.num_rows:
            return
        if self._call.calibrate and not self.priors:
            self.priors = [self._priors(prompt) for prompt in self._asked.prompts]
        numbers = before + np.flatnonzero(wanted.to_numpy(zero_copy_only=False))
        texts = [read_texts(kept.column(hole)) for hole in self._call.holes]
        too_long = np.zeros(kept.num_rows, dtype=bool)
        repeats = 1 if texts else kept.num_rows
        found: list[list[bytes]] = []
        for prompt in self._asked.prompts:
            encoded = prompt.encode(texts)
            too_long |= encoded.lengths > self._asked.limit
            if self._asked.truncate:
                encoded, _ = prompt.truncate(encoded, self._asked.limit)
            found.append(self._add(encoded, repeats, numbers))
        if self.prompts > 1:
            for together in zip(*found, strict=True):
                self._together[tuple(filter(None, together))] += repeats
        self.too_long += int(too_long.sum())

    def _add(self, batch: TokenBatch, repeats: int, numbers: NDArray[np.int64]) -> list[bytes]:
        """Count a prompt about each row, by its number, or one that `repeats` rows ask. Returns the prompts, an empty
        one where it is not asked."""
        found = []
        for number in range(len(batch)):
            row = batch.row(number)
            key = row.tobytes() if len(row) <= self._asked.limit else b""
            found.append(key)
            if key:
                self.seen[key] += repeats
                self.rows_of.setdefault(key, int(numbers[number]))
        return found

    def _priors(self, prompt: CompiledPrompt) -> list[Tokens]:
        batch = without_content(prompt)
        return [row for row in map(batch.row, range(len(batch))) if len(row) <= self._asked.limit]

    @property
    def rows(self) -> int:
        """Rows about which anything is asked."""
        if self.prompts == 1:
            return self.seen.total()
        return sum(rows for prompts, rows in self._together.items() if prompts)

    def drop_answered(self) -> None:
        """Forget the prompts that have answers already."""
        left = {prompt for prompt in self.seen if prompt_key(prompt) not in self._asked.answered}
        self.seen = Counter({prompt: rows for prompt, rows in self.seen.items() if prompt in left})
        together: Counter[tuple[bytes, ...]] = Counter()
        for prompts, rows in self._together.items():
            together[tuple(prompt for prompt in prompts if prompt in left)] += rows
        self._together = together


def _statistics(counter: _Counter, exact: bool, computed: int) -> CallStatistics:
    seen = counter.seen
    priors = [len(prompt) for window in counter.priors for prompt in window]
    sizes = np.array([*(len(prompt) // 4 for prompt in seen), *priors], np.int64)
    rows = np.array([*seen.values(), *(1 for _ in priors)], np.int64)
    shared = _common(min(seen), max(seen)) if len(seen) > 1 else 0  # all between them in order begin so too
    often = Counter(seen.values())
    return CallStatistics(
        rows=counter.rows,
        asked=int(rows.sum()),
        distinct=len(sizes),
        prompt_tokens=int((sizes * rows).sum()),
        distinct_tokens=int(sizes.sum()),
        shared=shared,
        longest=int(sizes.max(initial=0)),
        prompts=counter.prompts,
        exact=exact,
        computed=computed,
        lengths=quantiles(sizes),
        priors=len(priors),
        once=often[1],
        twice=often[2],
        too_long=counter.too_long,
    )


def _common(one: bytes, other: bytes) -> int:
    """How many tokens two prompts both begin with."""
    size = min(len(one), len(other))
    different = np.flatnonzero(np.frombuffer(one[:size], np.int32) != np.frombuffer(other[:size], np.int32))
    return int(different[0]) if len(different) else size // 4
