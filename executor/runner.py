"""Runs planned steps: the decoder, then labels scored and tokens drawn for all rows at once, then rows finished.

A step is launched, and collected once its results are wanted. A device with a queue of its own may have the next step
launched before: that step takes for granted that rows go on, and what it draws for one that did not is passed over.
"""

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray

from dql.executor.backend import Backend
from dql.executor.label_tree import LabelTree
from dql.executor.models.head import LogitHead
from dql.executor.options import Counters
from dql.executor.requests import Answer, Generate
from dql.executor.rows import Row
from dql.executor.sampler import DrawParameters, draw
from dql.executor.scheduler import Plan, Scheduler
from dql.executor.slab import Slab
from dql.executor.transfer import Fetch, to_device

Decode = Callable[[Sequence[int]], str]  # token ids to text, for stop texts


@dataclass(frozen=True, slots=True)
class _Draws:
    """Rows of one slab that draw a token: their lanes and their places among the step's outputs.

    tenants: whose lanes they were at launch. produced: tokens that each had drawn before.
    """

    slab: Slab
    lanes: NDArray[np.int64]
    places: NDArray[np.int64]
    tenants: NDArray[np.int64]
    produced: NDArray[np.int64]

    @classmethod
    def of(cls, slab: Slab, lanes: NDArray[np.int64], places: NDArray[np.int64]) -> "_Draws":
        return cls(slab, lanes, places, slab.tenants[lanes], slab.produced[lanes])


@dataclass(frozen=True, slots=True)
class _Launched:
    """A step under way: what it draws, and per group of rows with the same labels, their scores [rows, labels].

    begun: the rows whose first token is among those drawn.
    """

    begun: Sequence[Row]
    draws: Sequence[_Draws]
    drawn: Fetch
    scored: Sequence[tuple[Sequence[Row], Fetch]]


class Runner:
    """Executes the plans of one run."""

    def __init__(
        self,
        backend: Backend,
        head: LogitHead,
        scheduler: Scheduler,
        counters: Counters,
        *,
        cancelled: Callable[[], bool],
        decode: Decode | None,
    ) -> None:
        self._backend = backend
        self._head = head
        self._scheduler = scheduler
        self._counters = counters
        self._cancelled = cancelled
        self._decode = decode
        self._launched: deque[_Launched] = deque()

    @property
    def under_way(self) -> bool:
        """Whether a launched step has not been collected."""
        return bool(self._launched)

    @property
    def full(self) -> bool:
        """Whether a step must be collected before the next is launched."""
        return len(self._launched) > self._backend.ahead

    def launch(self, plan: Plan) -> None:
        """Start a step. Where this raises, StepCancelled or an error, nothing of the step counts."""
        hidden = self._backend.forward(plan.step, self._cancelled)
        complete = [item.row for item in plan.planned if item.last]
        starts = np.cumsum([0, *(1 + row.tail for row in complete)])
        placed = list(zip(complete, starts.tolist(), strict=False))
        begun = [(row, place) for row, place in placed if row.decodes]
        draws = _first_draws(begun, self._scheduler)
        place = int(starts[-1])
        for decoding in plan.step.slabs:
            draws.append(_Draws.of(decoding.slab, decoding.lanes, place + np.arange(len(decoding.lanes))))
            place += len(decoding.lanes)
        scored = self._score([(row, place) for row, place in placed if not row.decodes], hidden)
        drawn = self._draw(draws, hidden)
        self._scheduler.commit(plan)
        self._scheduler.held.start_decoding([row for row, _ in begun])
        self._counters.steps += 1
        self._counters.prefilled += sum(item.count for item in plan.planned)
        for part in draws:
            part.slab.advance(part.lanes)
        if draws:
            self._backend.drawn(np.concatenate([part.slab.next_slots(part.lanes) for part in draws]), drawn[0])
        fetched = [(rows, Fetch([scores])) for rows, scores in scored]
        self._launched.append(_Launched([row for row, _ in begun], draws, Fetch(drawn), fetched))

    def collect(self) -> list[Answer]:
        """Wait for the oldest step under way; answers of the rows that finish with it."""
        step = self._launched.popleft()
        answers: list[Answer] = []
        for rows, scores in step.scored:
            for row, row_scores in zip(rows, scores.arrays()[0], strict=True):
                self._counters.forced += row.tail
                self._scheduler.held.release(row)
                seconds = perf_counter() - row.admitted_at
                answers.extend(row.answers(logprobs=row_scores.copy(), seconds=seconds, first=seconds))
        if step.draws:
            answers.extend(self._record(step, *step.drawn.arrays()))
        held = self._scheduler.held
        if self._backend.reads_lanes_in_place and (not self._scheduler.waiting or held.full):
            held.compact()  # else waiting rows fill the gaps
        return answers

    def abandon(self) -> list[Row]:
        """Forget the steps under way; frees and returns their rows that no one else knows of."""
        rows = [row for step in self._launched for group, _ in step.scored for row in group]
        self._launched.clear()
        for row in rows:
            self._scheduler.held.release(row)
        return rows

    def _score(self, rows: Sequence[tuple[Row, int]], hidden: torch.Tensor) -> list[tuple[Sequence[Row], torch.Tensor]]:
        by_labels: dict[int, tuple[LabelTree, list[tuple[Row, int]]]] = {}
        for row, place in rows:
            if row.labels is not None:
                by_labels.setdefault(id(row.labels), (row.labels, []))[1].append((row, place))
        scored: list[tuple[Sequence[Row], torch.Tensor]] = []
        for labels, members in by_labels.values():
            first = np.array([place for _, place in members])
            places = to_device(first[:, None] + np.arange(1 + len(labels.tokens)), hidden.device)
            scored.append(([row for row, _ in members], labels.log_probs(hidden[places], self._head)))
        return scored

    def _draw(self, draws: Sequence[_Draws], hidden: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if not draws:
            return ()
        places = to_device(np.concatenate([part.places for part in draws]), hidden.device)
        parameters = DrawParameters.concatenated([part.slab.drawing.at(part.lanes) for part in draws])
        return draw(self._head, hidden[places], parameters)

    def _record(self, step: _Launched, tokens: NDArray[np.generic], logprobs: NDArray[np.generic]) -> list[Answer]:
        now = perf_counter()
        for row in step.begun:
            row.first_at = now
        answers: list[Answer] = []
        start = 0
        for part in step.draws:
            end = start + len(part.lanes)
            still = part.slab.tenants[part.lanes] == part.tenants  # else the row ended before, or was given up
            lanes, produced = part.lanes[still], part.produced[still]
            self._counters.decoded += len(lanes)
            ended = part.slab.record(lanes, produced, tokens[start:end][still], logprobs[start:end][still])
            by_text = self._stopped_by_text(part.slab, lanes, produced + 1)
            for at in np.flatnonzero(ended | by_text).tolist():
                answers.extend(self._finish(part.slab, int(lanes[at]), int(produced[at]) + 1, bool(by_text[at])))
            start = end
        return answers

    def _finish(self, slab: Slab, lane: int, count: int, by_text: bool) -> list[Answer]:
        """Release a row that drew `count` tokens; the stop id at its end is not part of the answer."""
        row = slab.rows[lane]
        if row is None:
            raise RuntimeError(f"lane {lane} finished without a row")
        by_id = bool(slab.stopped(np.array([lane]))[0])
        limited = not by_id and not by_text and count == slab.limit[lane]
        count -= by_id
        tokens, logprobs = slab.tokens[lane, :count].copy(), slab.logprobs[lane, :count].copy()
        self._scheduler.held.release(row)
        seconds, first = perf_counter() - row.admitted_at, row.first_at - row.admitted_at
        finish = "length" if limited else "stop"
        return list(row.answers(tokens=tokens, logprobs=logprobs, finish=finish, seconds=seconds, first=first))

    def _stopped_by_text(self, slab: Slab, lanes: NDArray[np.int64], counts: NDArray[np.int64]) -> NDArray[np.bool_]:
        stopped = np.zeros(len(lanes), np.bool_)
        if self._decode is not None:
            for at in np.flatnonzero(slab.watched[lanes]).tolist():
                stopped[at] = _has_stop_text(slab, int(lanes[at]), int(counts[at]), self._decode)
        return stopped


def _has_stop_text(slab: Slab, lane: int, count: int, decode: Decode) -> bool:
    """Whether the newest of `count` drawn tokens completes one of the row's stop texts."""
    row = slab.rows[lane]
    if row is None or not isinstance(row.task, Generate):
        return False
    # every token is at least a byte, so the newest stop text lies within as many tokens as it has bytes
    reach = max(len(text.encode()) for text in row.task.stop_texts) + 4
    text = decode(slab.tokens[lane, max(0, count - reach) : count].tolist())
    return any(stop in text for stop in row.task.stop_texts)


def _first_draws(begun: Sequence[tuple[Row, int]], scheduler: Scheduler) -> list[_Draws]:
    """The rows whose prompts are complete, by slab."""
    by_slab: dict[int, tuple[Slab, list[int], list[int]]] = {}
    for row, place in begun:
        slab, lane = scheduler.held.lane(row)
        _, lanes, places = by_slab.setdefault(id(slab), (slab, [], []))
        lanes.append(lane)
        places.append(place)
    return [_Draws.of(slab, np.array(lanes), np.array(places)) for slab, lanes, places in by_slab.values()]
