"""Plays the engine's scheduler for a placement, step by step, and prices every step: seconds and latency percentiles.

Rows are drawn from the workload's lengths. A schedule depends on lengths alone, so it is played first, in integers, and
priced in one go. Of many rows a few batches are played, once and half as many; the difference stands for the rest.
"""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dql.planner.hardware import Floats
from dql.planner.lengths import draws
from dql.planner.step_model import StepModel, Steps
from dql.planner.windows import WINDOW_ROWS
from dql.planner.workload import Workload

_WAVES = 4  # batches of rows that are played
_MIN_ROWS, MOST_ROWS = 24, 1024
_MIN_STEPS = 8  # steps of a run without decoding that are played
PERCENTILES = ("p50", "p90", "p95", "p99")


@dataclass(frozen=True, slots=True)
class Played:
    """What a simulated run takes: seconds, and by percentile the seconds of a row and to and between its tokens."""

    seconds: float
    latency: Sequence[float]
    ttft: Sequence[float]
    tpot: Sequence[float]


@dataclass(slots=True)
class _Schedule:
    """Stretches of equal steps; for each row the stretch that admits it, those of its first and of its last token."""

    steps: list[tuple[float, ...]] = field(default_factory=list)
    admitted: list[int] = field(default_factory=list)
    first: list[int] = field(default_factory=list)
    last: list[int] = field(default_factory=list)


def simulate(model: StepModel, work: Workload) -> Played:
    """Play a run of `work` on each replica's share of the rows."""
    rows = -(-work.distinct // model.placement.data_parallel)
    if rows == 0:
        return Played(0.0, (0.0,) * 4, (0.0,) * 4, (0.0,) * 4)
    played = min(rows, WINDOW_ROWS, _rows_to_play(model, work))
    schedule, ends = _played(model, work, played)
    begins = np.concatenate(([0.0], ends[:-1]))
    admitted, first, last = (np.array(x) for x in (schedule.admitted, schedule.first, schedule.last))
    latency = ends[last] - begins[admitted]
    ttft = ends[first] - begins[admitted]
    drawn = draws(work.outputs, played) if work.decodes else np.ones(played)
    tpot = (latency - ttft) / np.maximum(drawn - 1, 1)
    seconds = float(ends[-1])
    if rows > played:
        half = played // 2
        per_row = max(seconds - float(_played(model, work, half)[1][-1]), 0.0) / (played - half)
        runs = -(-rows // WINDOW_ROWS)  # each begins and ends with a batch that is not full
        seconds = max(0.0, seconds - played * per_row) * runs + rows * per_row
    figures = np.percentile((latency, ttft, tpot), [float(p[1:]) for p in PERCENTILES], axis=1)
    return Played(seconds, *map(tuple, figures.T.tolist()))


def _played(model: StepModel, work: Workload, rows: int) -> tuple[_Schedule, Floats]:
    """The schedule of so many rows, and the seconds at which each of its stretches ends."""
    schedule = _Player(model, work, rows).play()
    counts = np.array([step[_COUNT] for step in schedule.steps])
    ends: Floats = np.cumsum(_price(model, work, schedule) * counts)
    return schedule, ends


def lanes_of(model: StepModel) -> int:
    """Rows that may decode at once."""
    return min(model.placement.max_rows, model.placement.step_tokens)


def _rows_to_play(model: StepModel, work: Workload) -> int:
    placement = model.placement
    if work.decodes:
        wanted = _WAVES * placement.max_rows
    else:
        wanted = int(_MIN_STEPS * placement.step_tokens / max(1.0, work.mean_own * work.fresh + work.tail)) + 1
    return min(max(wanted, _MIN_ROWS), MOST_ROWS)


# columns of a stretch of steps
_COUNT, _TOKENS, _PROMPT, _STARTED, _DECODING, _KEYS = range(6)


class _Player:
    """The schedule of `rows` rows: prompts fill what decoding rows leave of a step's tokens, while lanes are free."""

    def __init__(self, model: StepModel, work: Workload, rows: int) -> None:
        self._work = work
        self._budget = model.placement.step_tokens
        self._lanes = lanes_of(model)
        self._prompts = np.maximum(np.round(draws(work.own, rows) * work.fresh), 1).astype(int).tolist()
        self._contexts = np.round(draws(work.own, rows)).astype(int).tolist()
        at_once = min(self._lanes, rows)
        self._lengths = work.passes(rows, at_once, model.hardware.kind).astype(int).tolist()
        self._waiting = 0  # the next row to admit
        self._shared_left = work.shared
        self._part = 0  # tokens of the next row's prompt that are computed
        self._ending: list[tuple[int, int]] = []  # decoding rows by the clock of their last token
        self._clock = 0  # engine steps so far
        self._keys = 0.0  # keys in the lanes of decoding rows
        self._schedule = _Schedule([], [-1] * rows, [0] * rows, [0] * rows)

    def play(self) -> _Schedule:
        rows, schedule = len(self._prompts), self._schedule
        while self._waiting < rows or self._ending:
            prompt, begun = self._fill(max(self._budget - len(self._ending), 0))
            number, decoding = len(schedule.steps), len(self._ending)
            count = 1 if prompt or not decoding else self._ending[0][0] - self._clock
            keys = self._keys + decoding * (count - 1) / 2
            tokens = prompt + decoding + len(begun) * self._work.tail
            schedule.steps.append((count, tokens, prompt, len(begun), decoding, keys))
            self._clock += count
            self._keys += decoding * count
            self._end(number)
            for row in begun:
                self._begin(row, number)
        return schedule

    def _fill(self, room: int) -> tuple[int, list[int]]:
        """Prompt tokens of the next step, and the rows whose prompts it ends."""
        work, used = self._work, 0
        begun: list[int] = []
        if self._shared_left and room:
            used = min(self._shared_left, room)
            self._shared_left -= used
            if self._waiting < len(self._prompts):
                self._admit(self._waiting)
        free = self._lanes - len(self._ending) if work.decodes else len(self._prompts)
        while self._waiting < len(self._prompts) and len(begun) < free and not self._shared_left:
            todo = self._prompts[self._waiting] - self._part
            left = room - used
            if todo + work.tail > left and (todo + work.tail <= self._budget or left <= 1):
                break
            count = min(todo, max(left - work.tail, 1))
            self._admit(self._waiting)
            used += count
            room -= 0 if count < todo else work.tail
            if count < todo:
                self._part += count
                break
            begun.append(self._waiting)
            self._waiting, self._part = self._waiting + 1, 0
        return used, begun

    def _admit(self, row: int) -> None:
        if self._schedule.admitted[row] < 0 and not self._shared_left:
            self._schedule.admitted[row] = len(self._schedule.steps)

    def _begin(self, row: int, number: int) -> None:
        """The row's prompt is stored and its first token drawn, in step `number`."""
        self._schedule.first[row] = self._schedule.last[row] = number
        if self._work.decodes and self._lengths[row] > 1:
            heapq.heappush(self._ending, (self._clock + self._lengths[row] - 1, row))
            self._keys += self._contexts[row] + 1

    def _end(self, number: int) -> None:
        while self._ending and self._ending[0][0] <= self._clock:
            _, row = heapq.heappop(self._ending)
            self._schedule.last[row] = number
            self._keys -= self._contexts[row] + self._lengths[row]


def _price(model: StepModel, work: Workload, schedule: _Schedule) -> Floats:
    """Seconds of one step of each stretch."""
    columns = np.array(schedule.steps, np.float64).T
    tokens, prompt, started, decoding = (columns[i] for i in (_TOKENS, _PROMPT, _STARTED, _DECODING))
    at_once = float(min(lanes_of(model), len(schedule.last)))
    guessed = work.guessed_tokens(decoding, at_once, model.hardware.kind)
    return model.seconds(steps_of(work, tokens, prompt, started, decoding, columns[_KEYS], guessed))


def steps_of(
    work: Workload,
    tokens: Floats,
    prompt: Floats,
    started: Floats,
    decoding: Floats,
    keys: Floats,
    guessed: Floats | float = 0.0,
) -> Steps:
    """Steps that read `prompt` prompt tokens, end `started` prompts and decode for `decoding` rows, `guessed` tokens
    beside theirs.
    """
    tails = started * work.tail
    run = np.maximum(prompt / np.maximum(started, 1) / work.fresh, 1)
    # what is computed of a prompt is its end, which looks at all that comes before
    own = np.mean(np.square(work.own)) * (2 - min(work.fresh, 1)) / (2 * max(work.mean_own, 1.0)) + 0.5
    return Steps(
        tokens=tokens + guessed,
        outputs=started + tails + decoding + guessed,
        head_rows=tails + (started if work.decodes else 0.0) + decoding + guessed,
        label_values=(started + tails) * float(work.labels),
        own_pairs=prompt * own + tails * work.mean_own,
        run=run,
        shared_pairs=(tokens + guessed) * float(work.shared),
        decode_keys=keys * (1 + guessed / np.maximum(decoding, 1)),
        decoding=decoding,
        started=started,
        calls=work.attention_calls(prompt, started),
        drawing=work.drawing,
    )
