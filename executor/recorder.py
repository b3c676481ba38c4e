"""What rows drew goes into their lanes: guesses are kept or dropped, rows end, and answers are made of them."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter

import numpy as np
from numpy.typing import NDArray

from dql.executor.options import Counters
from dql.executor.requests import Answer, Generate
from dql.executor.sampler import DrawParameters
from dql.executor.scheduler import Scheduler
from dql.executor.slab import Slab
from dql.executor.speculate import kept
from dql.executor.step import Guesses, SlabPart

Decode = Callable[[Sequence[int]], str]  # token ids to text, for stop texts


@dataclass(frozen=True, slots=True)
class Draws:
    """Rows of one slab that draw a token: their lanes and their places among the step's outputs.

    tenants: whose lanes they were at launch. produced: tokens that each had drawn before. Where `guesses` were made, a
    lane draws a token after each of them (depths: how many) and advances once it is known which are kept.
    """

    slab: Slab
    lanes: NDArray[np.int64]
    places: NDArray[np.int64]
    tenants: NDArray[np.int64]
    produced: NDArray[np.int64]
    depths: NDArray[np.int64]
    guesses: Guesses | None = None

    @classmethod
    def first(cls, slab: Slab, lanes: NDArray[np.int64], places: NDArray[np.int64]) -> "Draws":
        """Of rows whose prompts are complete."""
        return cls(slab, lanes, places, slab.tenants[lanes], slab.produced[lanes], np.zeros(len(lanes), np.int64))

    @classmethod
    def following(cls, part: SlabPart, place: int) -> "Draws":
        """Of rows that decode, their outputs from `place` on."""
        slab, lanes, depths = part.slab, part.lanes, part.depths
        places, produced = place + np.arange(len(lanes)), slab.produced[lanes]
        return cls(slab, lanes, places, slab.tenants[lanes], produced, depths, part.guesses)

    @property
    def parameters(self) -> DrawParameters:
        """What each draw samples with."""
        parameters = self.slab.drawing.at(self.lanes)
        parameters.steps += self.depths.astype(np.int32)
        return parameters


class Recorder:
    """Writes down what the steps of one run drew."""

    def __init__(self, scheduler: Scheduler, counters: Counters, decode: Decode | None) -> None:
        self._scheduler = scheduler
        self._counters = counters
        self._decode = decode

    def record(
        self, draws: Sequence[Draws], tokens: NDArray[np.generic], logprobs: NDArray[np.generic]
    ) -> list[Answer]:
        """Note what each place drew; answers of the rows that end with it."""
        answers: list[Answer] = []
        start = 0
        for part in draws:
            end = start + len(part.lanes)
            if part.guesses is not None:
                answers.extend(self._record_guesses(part, part.guesses, tokens[start:end], logprobs[start:end]))
                start = end
                continue
            still = part.slab.tenants[part.lanes] == part.tenants  # else the row ended before, or was given up
            lanes, produced = part.lanes[still], part.produced[still]
            _, ended = self._note(part.slab, lanes, produced, tokens[start:end][still], logprobs[start:end][still])
            answers.extend(ended)
            start = end
        return answers

    def _record_guesses(
        self, part: Draws, guesses: Guesses, tokens: NDArray[np.generic], logprobs: NDArray[np.generic]
    ) -> list[Answer]:
        """Keep of each row what it drew after right guesses, up to the first that is wrong or ends it."""
        slab, lanes = part.slab, guesses.lanes
        rows = np.cumsum(part.depths == 0) - 1
        drawn = np.zeros((len(lanes), 1 + guesses.tokens.shape[1]), np.int64)
        sure = np.zeros(drawn.shape, np.float32)
        drawn[rows, part.depths], sure[rows, part.depths] = tokens, logprobs
        right = kept(guesses, drawn)
        going = slab.tenants[lanes] == part.tenants[part.depths == 0]
        answers: list[Answer] = []
        for depth in range(int(right.max()) + 1):
            at = np.flatnonzero(going & (depth <= right))
            produced = slab.produced[lanes[at]]
            slab.advance(lanes[at])
            slab.guessed[lanes[at]] += depth > 0
            over, ended = self._note(slab, lanes[at], produced, drawn[at, depth], sure[at, depth])
            going[at[over]] = False
            answers.extend(ended)
            self._counters.accepted += len(at) if depth else 0
        self._counters.proposed += int(guesses.counts.sum())
        if self._scheduler.speculation is not None:
            self._scheduler.speculation.note(int(np.minimum(right + 1, guesses.counts).sum()), int(right.sum()))
        return answers

    def _note(
        self,
        slab: Slab,
        lanes: NDArray[np.int64],
        produced: NDArray[np.int64],
        tokens: NDArray[np.generic],
        logprobs: NDArray[np.generic],
    ) -> tuple[NDArray[np.bool_], list[Answer]]:
        """Record one token of each lane; which rows it ends, and their answers."""
        self._counters.decoded += len(lanes)
        ended = slab.record(lanes, produced, tokens, logprobs)
        by_text = self._stopped_by_text(slab, lanes, produced + 1)
        answers: list[Answer] = []
        for at in np.flatnonzero(ended | by_text).tolist():
            answers.extend(self._finish(slab, int(lanes[at]), int(produced[at]) + 1, bool(by_text[at])))
        return ended | by_text, answers

    def _finish(self, slab: Slab, lane: int, count: int, by_text: bool) -> list[Answer]:
        """Release a row that drew `count` tokens; the stop id at its end is not part of the answer."""
        row = slab.rows[lane]
        if row is None:
            raise RuntimeError(f"lane {lane} finished without a row")
        by_id = bool(slab.stopped(np.array([lane]))[0])
        limited = not by_id and not by_text and count == slab.limit[lane]
        passes = count - int(slab.guessed[lane])
        count -= by_id
        tokens, logprobs = slab.tokens[lane, :count].copy(), slab.logprobs[lane, :count].copy()
        self._scheduler.held.release(row)
        seconds, first = perf_counter() - row.admitted_at, row.first_at - row.admitted_at
        finish = "length" if limited else "stop"
        return list(
            row.answers(tokens=tokens, logprobs=logprobs, finish=finish, seconds=seconds, first=first, passes=passes)
        )

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
