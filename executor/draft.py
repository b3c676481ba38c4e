"""Guesses from a small model with the same vocabulary: `USING large DRAFT small`.

The draft model reads each row in a lane of its own. Before it guesses, whatever of a lane is not the row's text is
read anew: the tokens that were drawn since, in place of guesses that were wrong, and a new row's prompt behind what it
shares with a text that some lane still holds. It draws its guesses with the row's own noise, so that at any temperature
they are what the large model draws as often as the two agree (Gumbel coupling: Daliri, Musco, Suresh 2024).
"""

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from dql.executor.backend import Backend
from dql.executor.block_pool import BlockPool
from dql.executor.models.decoder import CausalModel
from dql.executor.own_text import Texts
from dql.executor.sampler import DrawParameters, draw
from dql.executor.slab import Lanes, Slab
from dql.executor.speculate import Matrix
from dql.executor.step import Guesses, Step, StepBuilder
from dql.executor.windows import out_of_memory
from dql.planner.speculation import DRAFT_LANES, DRAFT_STEP, draft_width

_CHUNK = 128  # tokens of a lane in one pass


@dataclass(frozen=True, slots=True)
class LoadedDraft:
    """What a draft model runs with. `lock` is that of its engine; `context`: most tokens of a text."""

    decoder: CausalModel
    backend: Backend
    pool: BlockPool
    lock: threading.Lock
    context: int


class _Owner(NamedTuple):
    """A row in a lane of the model that checks."""

    slab: Slab
    lane: int
    tenant: int

    @property
    def stays(self) -> bool:
        """Whether the row is still there."""
        return bool(self.slab.tenants[self.lane] == self.tenant)


class DraftModel:
    """Proposes what a draft model draws. Holds one block of the draft's KV cache while the run lasts."""

    def __init__(self, draft: LoadedDraft, cost: float, slots: int | None = None) -> None:
        """cost: of one of its steps, in steps of the model that checks. slots: most that it takes of its KV cache."""
        self.cost = cost
        self._draft = draft
        self._most = draft.pool.slots if slots is None else slots
        self._texts = Texts()
        self._slab: Slab | None = None
        self._stored = np.zeros((0, 0), np.int32)  # the tokens whose keys and values each lane holds …
        self._known = np.zeros(0, np.int64)  # … and how many these are
        self._owners: list[_Owner | None] = []  # whose lanes they are, rows of all slabs of the run

    def propose(self, slab: Slab, lanes: Lanes, most: int) -> Matrix:
        """See Proposer. No guesses while another run uses the draft model, or where its memory does not suffice."""
        texts, ends = self._texts.of(slab, lanes)
        guesses = np.full((len(lanes), most), -1, np.int64)
        fits = (ends + most <= self._draft.context) & (texts.max(axis=1) < self._draft.decoder.shape.vocab_size)
        rows = np.flatnonzero(fits)
        if len(rows) and self._draft.lock.acquire(blocking=False):
            try:
                owners = [_Owner(slab, lane, int(slab.tenants[lane])) for lane in lanes[rows].tolist()]
                final = (ends + slab.limit[lanes] - slab.produced[lanes])[rows]
                if self._make_room(owners, int(ends[rows].max()), min(int(final.max()), self._draft.context)):
                    mine = self._enter(owners, texts[rows], ends[rows])
                    guesses[rows] = self._guess(mine, texts[rows], ends[rows], slab.drawing.at(lanes[rows]), most)
            except RuntimeError as error:
                if not out_of_memory(error):
                    raise
            finally:
                self._draft.lock.release()
        return guesses

    def close(self) -> None:
        """Give the block back."""
        with self._draft.lock:
            self._give_back()

    def _make_room(self, rows: Sequence[_Owner], tokens: int, final: int) -> bool:
        """See that these rows, beside those that have lanes, find some; what lanes hold is kept where memory allows.

        tokens: of the longest text; final: of the longest when it is complete, which lanes have room for from the start
        unless that is too much.
        """
        lanes = len({*rows, *(owner for owner in self._owners if owner is not None and owner.stays)})
        lanes, now, later = -(-lanes // DRAFT_LANES) * DRAFT_LANES, int(draft_width(tokens)), int(draft_width(final))
        if self._slab is not None:
            held, width = len(self._slab.rows), self._slab.width
            if held >= lanes and width >= now:
                return True
            now, later = max(now, width), max(later, width)
            lanes = max(lanes, held)
            plenty = 2 * held if lanes > held else held  # more rows come seldom alone
        else:
            plenty = lanes
        sizes = ((max(lanes, plenty), later), (lanes, later), (lanes, now))
        if any(self._grow(*size) for size in sizes):
            return True
        self._give_back()
        return any(self._grow(*size) for size in sizes[1:])

    def _grow(self, lanes: int, width: int) -> bool:
        """Take a block of so many lanes and bring there what is known of texts; False where there is none."""
        old = self._slab
        held = 0 if old is None else old.block.length
        block = self._draft.pool.allocate(lanes * width) if held + lanes * width <= self._most else None
        if block is None:
            return False
        slab, stored, known = Slab(block, lanes, width), np.zeros((lanes, width), np.int32), np.zeros(lanes, np.int64)
        if old is not None:
            count = len(old.rows)
            lane, at = np.nonzero(np.arange(old.width) < self._known[:, None])
            self._draft.pool.copy(old.slot(0) + lane * old.width + at, slab.slot(0) + lane * width + at)
            stored[:count, : old.width], known[:count] = self._stored, self._known
            self._draft.pool.free(old.block)
        self._slab, self._stored, self._known = slab, stored, known
        self._owners += [None] * (lanes - len(self._owners))
        return True

    def _give_back(self) -> None:
        if self._slab is not None:
            self._draft.pool.free(self._slab.block)
            self._slab, self._owners = None, []

    def _enter(self, rows: Sequence[_Owner], texts: NDArray[np.int32], ends: Matrix) -> Lanes:
        """The draft's lanes of these rows. A new row takes a free one, and copies what another lane has of its text."""
        places = {owner: place for place, owner in enumerate(self._owners) if owner is not None}
        free = [place for place, owner in enumerate(self._owners) if owner is None or not owner.stays]
        mine = np.zeros(len(rows), np.int64)
        for row, owner in enumerate(rows):
            place = places.get(owner)
            if place is None:
                shared = self._shared(texts[row, : ends[row]])
                source = int(shared.argmax())
                place = source if source in free else free[0]
                free.remove(place)
                self._copy(source, place, int(shared[source]))
                self._owners[place] = owner
            mine[row] = place
        return mine

    def _shared(self, text: NDArray[np.int32]) -> NDArray[np.int64]:
        """How many first tokens of a text each lane holds."""
        width = min(len(text), self._stored.shape[1])
        same = (self._stored[:, :width] == text[:width]) & (np.arange(width) < self._known[:, None])
        count: NDArray[np.int64] = np.logical_and.accumulate(same, axis=1).sum(axis=1)
        return count

    def _copy(self, source: int, target: int, count: int) -> None:
        assert self._slab is not None
        if source != target and count:
            at = np.arange(count)
            self._draft.pool.copy(self._slab.slot(source) + at, self._slab.slot(target) + at)
            self._stored[target, :count] = self._stored[source, :count]
        self._known[target] = count

    def _guess(self, mine: Lanes, texts: NDArray[np.int32], ends: Matrix, drawing: DrawParameters, most: int) -> Matrix:
        """Read what is new of the texts, then guess token by token for all rows at once."""
        hidden = self._read(mine, texts, ends)
        guesses = np.zeros((len(mine), most), np.int64)
        for number in range(most):
            drawn, _ = draw(self._draft.decoder.head, hidden, drawing, logprobs=False)
            guesses[:, number] = drawn.cpu().numpy()
            drawing.steps += 1
            if number + 1 < most:
                hidden = self._run(mine, guesses[:, number : number + 1], np.ones(len(mine), np.int64))
        return guesses

    def _read(self, mine: Lanes, texts: NDArray[np.int32], ends: Matrix) -> torch.Tensor:
        """Hidden states of the texts' last tokens, [rows, hidden_size]."""
        width = texts.shape[1]
        same = (self._stored[mine, :width] == texts) & (np.arange(width) < self._known[mine, None])
        right = np.logical_and.accumulate(same, axis=1).sum(axis=1)
        self._known[mine] = np.minimum(right, ends - 1)  # the last token is read in any case
        last: torch.Tensor | None = None
        while len(rows := np.flatnonzero(self._known[mine] < ends)):
            chunk = max(1, min(_CHUNK, DRAFT_STEP // len(rows)))
            known = self._known[mine[rows]]
            counts = np.minimum(ends[rows] - known, chunk)
            at = np.minimum(known[:, None] + np.arange(int(counts.max())), width - 1)
            hidden = self._run(mine[rows], texts[rows[:, None], at].astype(np.int64), counts)
            if last is None:
                last = hidden.new_zeros(len(mine), hidden.shape[1])
            last[torch.from_numpy(rows).to(hidden.device)] = hidden
        assert last is not None
        return last

    def _run(self, mine: Lanes, tokens: Matrix, counts: Matrix) -> torch.Tensor:
        """Read the first counts [rows] of tokens [rows, n] behind what the lanes hold; the last ones' hidden states."""
        slab = self._slab
        assert slab is not None
        order = np.argsort(mine, kind="stable")
        lanes, tokens, counts = mine[order], tokens[order], counts[order]
        slab.filled[lanes], slab.last[lanes] = self._known[lanes], tokens[:, 0]
        builder = StepBuilder()
        builder.add_slab(slab, lanes, Guesses(lanes, tokens[:, 1:], counts - 1))
        hidden = self._forward(builder.build())
        rows, places = np.nonzero(np.arange(tokens.shape[1]) < counts[:, None])
        self._stored[lanes[rows], self._known[lanes[rows]] + places] = tokens[rows, places]
        self._known[lanes] += counts
        ends = np.empty(len(mine), np.int64)
        ends[order] = np.cumsum(counts) - 1
        return hidden[torch.from_numpy(ends).to(hidden.device)]

    def _forward(self, step: Step) -> torch.Tensor:
        self._draft.backend.drawn(step.slots, torch.from_numpy(step.ids))
        return self._draft.backend.forward(step, lambda: False)
