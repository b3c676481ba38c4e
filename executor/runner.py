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

from dql.executor.backend import Backend
from dql.executor.given import Given, judge, note
from dql.executor.label_tree import LabelTree
from dql.executor.models.decoder import CausalModel
from dql.executor.options import Counters
from dql.executor.recorder import Decode, Draws, Recorder
from dql.executor.requests import Answer, Follow
from dql.executor.rows import Row
from dql.executor.sampler import DrawParameters, draw
from dql.executor.scheduler import Plan, Scheduler
from dql.executor.slab import Slab
from dql.executor.step import Step
from dql.executor.transfer import Fetch, to_device
from dql.executor.windows import out_of_memory


@dataclass(frozen=True, slots=True)
class _Launched:
    """A step under way: what it draws, and per group of rows with the same labels, their scores [rows, labels].

    begun: the rows whose first token is among those drawn. followed: given tokens that the step judges, by whether
    whole distributions are wanted.
    """

    begun: Sequence[Row]
    draws: Sequence[Draws]
    drawn: Fetch
    scored: Sequence[tuple[Sequence[Row], Fetch]]
    followed: Sequence[tuple[Sequence[Given], Fetch]]


class Runner:
    """Executes the plans of one run."""

    def __init__(
        self,
        backend: Backend,
        decoder: CausalModel,
        scheduler: Scheduler,
        counters: Counters,
        *,
        cancelled: Callable[[], bool],
        decode: Decode | None,
        logprobs: bool,
    ) -> None:
        self._backend = backend
        self._head = decoder.head
        self._vocabulary = decoder.shape.vocab_size
        self._scheduler = scheduler
        self._counters = counters
        self._cancelled = cancelled
        self._logprobs = logprobs
        self._recorder = Recorder(scheduler, counters, decode)
        self._launched: deque[_Launched] = deque()

    @property
    def under_way(self) -> bool:
        """Whether a launched step has not been collected."""
        return bool(self._launched)

    @property
    def full(self) -> bool:
        """Whether a step must be collected before the next is launched.

        Guesses are waited for even where rows that joined in the same step make further ones not worth while.
        """
        guessed = any(part.guesses is not None for step in self._launched for part in step.draws)
        return len(self._launched) > (0 if guessed or self._scheduler.depth else self._backend.ahead)

    def launch(self, plan: Plan) -> None:
        """Start a step. Where this raises, StepCancelled or an error, nothing of the step counts."""
        self._tell_known(plan.step)
        hidden = self._backend.forward(plan.step, self._cancelled)
        placed, given, place = _read(plan)
        begun = [(row, place) for row, place in placed if row.decodes]
        draws = _first_draws(begun, self._scheduler)
        for decoding in plan.step.slabs:
            draws.append(Draws.following(decoding, place))
            place += len(decoding.lanes)
        scored = self._score([(row, place) for row, place in placed if not row.decodes], hidden)
        followed = judge(given, hidden, self._head, self._vocabulary)
        drawn = self._draw(draws, hidden)
        fetched = [(rows, Fetch([scores])) for rows, scores in scored]
        launched = _Launched([row for row, _ in begun], draws, Fetch(drawn), fetched, followed)
        held = self._scheduler.held
        held.fill_lanes(launched.begun)
        self._tell_drawn(draws, drawn)
        # what takes the device's memory is done, so that all or nothing of the step counts
        self._scheduler.commit(plan)
        held.start_decoding(launched.begun)
        self._counters.steps += 1
        self._counters.prefilled += sum(item.count for item in plan.planned)
        for part in draws:
            if part.guesses is None:  # rows with guesses wait for what was drawn
                part.slab.advance(part.lanes)
        self._launched.append(launched)

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
        for group, told in step.followed:
            for row in note(group, told.arrays()):
                self._scheduler.held.release(row)
                seconds, (found,) = perf_counter() - row.admitted_at, row.followed
                answers.extend(
                    row.answers(
                        tokens=found.best, logprobs=found.logprobs, distributions=found.distributions, seconds=seconds,
                        first=seconds,
                    )
                )  # fmt: skip
        if step.draws:
            now = perf_counter()
            for row in step.begun:
                row.first_at = now
            answers.extend(self._recorder.record(step.draws, *step.drawn.arrays()))
        held = self._scheduler.held
        if self._backend.reads_lanes_in_place and (not self._scheduler.waiting or held.full):
            try:
                held.compact()  # else waiting rows fill the gaps
            except RuntimeError as error:  # gaps cost time, and the answers are there already
                if not out_of_memory(error):
                    raise
        return answers

    def abandon(self) -> list[Row]:
        """Forget the steps under way; frees and returns their rows that no one else knows of."""
        rows = [row for step in self._launched for group, _ in step.scored for row in group]
        judged = [given for step in self._launched for group, _ in step.followed for given in group]
        rows += [given.row for given in judged if given.last]
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

    def _draw(self, draws: Sequence[Draws], hidden: torch.Tensor) -> tuple[torch.Tensor, ...]:
        if not draws:
            return ()
        places = to_device(np.concatenate([part.places for part in draws]), hidden.device)
        parameters = DrawParameters.concatenated([part.parameters for part in draws])
        return draw(self._head, hidden[places], parameters, logprobs=self._logprobs)

    def _tell_known(self, step: Step) -> None:
        """The device reads the tokens of decoding rows by their slots: what it did not draw for them is put there.

        These are guesses, and after guesses the tokens that rows go on from. Both are met only where no step is under
        way, and then all tokens are known here; those of rows that this step has no room for are told as well, as
        later ones may be launched ahead.
        """
        if self._launched or not step.slabs:
            return
        newest = [(slab, np.flatnonzero(slab.live)) for slab in self._scheduler.held.slabs]
        places = np.concatenate([part.place + np.flatnonzero(part.depths) for part in step.slabs])
        slots = [*(slab.next_slots(lanes) for slab, lanes in newest), step.slots[places]]
        tokens = [*(slab.last[lanes] for slab, lanes in newest), step.ids[places]]
        self._backend.drawn(np.concatenate(slots), torch.from_numpy(np.concatenate(tokens)))

    def _tell_drawn(self, draws: Sequence[Draws], drawn: tuple[torch.Tensor, ...]) -> None:
        """Rows go on from what they drew, unseen: it is put where the device reads it once they have advanced."""
        start, slots, tokens = 0, [], []
        for part in draws:
            end = start + len(part.lanes)
            if part.guesses is None:
                slots.append(part.slab.next_slots(part.lanes) + 1)
                tokens.append(drawn[0][start:end])
            start = end
        if slots:
            self._backend.drawn(np.concatenate(slots), tokens[0] if len(tokens) == 1 else torch.cat(tokens))


def _read(plan: Plan) -> tuple[list[tuple[Row, int]], list[Given], int]:
    """Of the prompt tokens of a step: the rows that are complete, with their places among the step's outputs; the given
    tokens that are judged; and how many outputs these are."""
    complete: list[tuple[Row, int]] = []
    given: list[Given] = []
    place = 0
    for item, placed in zip(plan.planned, plan.step.segments, strict=True):
        row, outputs = item.row, placed.segment.outputs
        if isinstance(row.task, Follow) and outputs:
            given.append(Given(row, row.task, place, outputs, item.count, last=item.last))
        elif outputs:
            complete.append((row, place))
        place += outputs + placed.segment.tail
    return complete, given, place


def _first_draws(begun: Sequence[tuple[Row, int]], scheduler: Scheduler) -> list[Draws]:
    """The rows whose prompts are complete, by slab."""
    by_slab: dict[int, tuple[Slab, list[int], list[int]]] = {}
    for row, place in begun:
        slab, lane = scheduler.held.lane(row)
        _, lanes, places = by_slab.setdefault(id(slab), (slab, [], []))
        lanes.append(lane)
        places.append(place)
    return [Draws.first(slab, np.array(lanes), np.array(places)) for slab, lanes, places in by_slab.values()]
