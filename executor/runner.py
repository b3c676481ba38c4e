"""Runs one planned step: the decoder, then labels scored and tokens drawn for all rows at once, then rows finished."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
import torch
from numpy.typing import NDArray

from dql.executor.backend import Backend
from dql.executor.label_tree import LabelTree
from dql.executor.models.head import Head
from dql.executor.options import Counters
from dql.executor.requests import Answer, Generate
from dql.executor.rows import Row
from dql.executor.sampler import DrawParameters, draw
from dql.executor.scheduler import Plan, Scheduler
from dql.executor.slab import Slab

Decode = Callable[[Sequence[int]], str]  # token ids to text, for stop texts


@dataclass(frozen=True, slots=True)
class _Draws:
    """Rows of one slab that draw a token: their lanes and their places among the step's outputs."""

    slab: Slab
    lanes: NDArray[np.int64]
    places: NDArray[np.int64]


class Runner:
    """Executes the plans of one run."""

    def __init__(
        self,
        backend: Backend,
        head: Head,
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

    def run(self, plan: Plan) -> list[Answer]:
        """Run a step; answers of the rows that finish with it. Raises StepCancelled; then the plan may be made anew."""
        hidden = self._backend.forward(plan.step, self._cancelled)
        complete = self._scheduler.commit(plan)
        self._counters.steps += 1
        self._counters.prefilled += sum(item.count for item in plan.planned)
        starts = np.cumsum([0, *(1 + row.tail for row in complete)])
        scored = [(row, place) for row, place in zip(complete, starts.tolist(), strict=False) if not row.decodes]
        begun = [(row, place) for row, place in zip(complete, starts.tolist(), strict=False) if row.decodes]
        self._scheduler.held.start_decoding([row for row, _ in begun])
        draws = _first_draws(begun, self._scheduler)
        place = int(starts[-1])
        for part in plan.step.slabs:
            draws.append(_Draws(part.slab, part.lanes, place + np.arange(len(part.lanes))))
            place += len(part.lanes)
        answers = self._score(scored, hidden)
        answers.extend(self._draw(draws, hidden, [row for row, _ in begun]))
        if not self._scheduler.waiting or self._scheduler.held.full:  # else waiting rows fill the gaps
            self._scheduler.held.compact()
        return answers

    def _score(self, rows: Sequence[tuple[Row, int]], hidden: torch.Tensor) -> list[Answer]:
        by_labels: dict[int, tuple[LabelTree, list[tuple[Row, int]]]] = {}
        for row, place in rows:
            if row.labels is not None:
                by_labels.setdefault(id(row.labels), (row.labels, []))[1].append((row, place))
        answers: list[Answer] = []
        for labels, members in by_labels.values():
            first = torch.tensor([place for _, place in members], device=hidden.device)
            places = first[:, None] + torch.arange(1 + len(labels.tokens), device=hidden.device)
            scores = labels.log_probs(hidden[places], self._head).cpu().numpy()
            for (row, _), row_scores in zip(members, scores, strict=True):
                self._counters.forced += row.tail
                self._scheduler.held.release(row)
                seconds = perf_counter() - row.admitted_at
                answers.extend(row.answers(logprobs=row_scores.copy(), seconds=seconds, first=seconds))
        return answers

    def _draw(self, draws: Sequence[_Draws], hidden: torch.Tensor, begun: Sequence[Row]) -> list[Answer]:
        """One token for each row of `draws`; it is the first one of those `begun`."""
        if not draws:
            return []
        places = np.concatenate([part.places for part in draws])
        parameters = DrawParameters.concatenated([part.slab.drawing.at(part.lanes) for part in draws])
        tokens, logprobs = draw(self._head, hidden[torch.from_numpy(places).to(hidden.device)], parameters)
        self._counters.decoded += len(tokens)
        now = perf_counter()
        for row in begun:
            row.first_at = now
        answers: list[Answer] = []
        start = 0
        for part in draws:
            end = start + len(part.lanes)
            ended = part.slab.advance(part.lanes, tokens[start:end], logprobs[start:end])
            ended |= self._stopped_by_text(part)
            for lane in part.lanes[ended].tolist():
                answers.extend(self._finish(part.slab, lane))
            start = end
        return answers

    def _finish(self, slab: Slab, lane: int) -> list[Answer]:
        row = slab.rows[lane]
        if row is None:
            raise RuntimeError(f"lane {lane} finished without a row")
        by_id = bool(slab.stopped(np.array([lane]))[0])
        count = int(slab.produced[lane]) - by_id
        limited = not by_id and count == slab.limit[lane] and not self._has_stop_text(slab, lane)
        tokens, logprobs = slab.tokens[lane, :count].copy(), slab.logprobs[lane, :count].copy()
        self._scheduler.held.release(row)
        seconds, first = perf_counter() - row.admitted_at, row.first_at - row.admitted_at
        finish = "length" if limited else "stop"
        return list(row.answers(tokens=tokens, logprobs=logprobs, finish=finish, seconds=seconds, first=first))

    def _stopped_by_text(self, part: _Draws) -> NDArray[np.bool_]:
        stopped = np.zeros(len(part.lanes), np.bool_)
        for place, lane in enumerate(part.lanes.tolist()):
            stopped[place] = self._has_stop_text(part.slab, lane)
        return stopped

    def _has_stop_text(self, slab: Slab, lane: int) -> bool:
        row = slab.rows[lane]
        if self._decode is None or row is None or not isinstance(row.task, Generate) or not row.task.stop_texts:
            return False
        # every token is at least a byte, so the newest stop text lies within as many tokens as it has bytes
        reach = max(len(text.encode()) for text in row.task.stop_texts) + 4
        count = int(slab.produced[lane])
        text = self._decode(slab.tokens[lane, max(0, count - reach) : count].tolist())
        return any(stop in text for stop in row.task.stop_texts)


def _first_draws(begun: Sequence[tuple[Row, int]], scheduler: Scheduler) -> list[_Draws]:
    """The rows whose prompts are complete, by slab."""
    by_slab: dict[int, tuple[Slab, list[int], list[int]]] = {}
    for row, place in begun:
        slab, lane = scheduler.held.lane(row)
        _, lanes, places = by_slab.setdefault(id(slab), (slab, [], []))
        lanes.append(lane)
        places.append(place)
    return [_Draws(slab, np.array(lanes), np.array(places)) for slab, lanes, places in by_slab.values()]
