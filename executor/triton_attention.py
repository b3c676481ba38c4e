"""A step's attention as the Triton kernels run it: four launches for what tokens see alone, one a level of shared runs.

Every token first attends to keys of its own: prompt runs to their dense slots, or through a table of slots where short
shared runs stand above them; label tokens and decoding rows as single queries split over their keys. Then come the
runs that many tokens share, each level joining its result to what is there by log-sum-exp, in place.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dql.executor.step import LONG_RUN, PlacedSegment, SharedRuns, Step, slots_of
from dql.executor.transfer import Transfer
from dql.kernels.attention import QueryRows, paged_attention, prefix_attention
from dql.kernels.decode_attention import decode_attention
from dql.kernels.kv_cache import KVCache
from dql.models.shape import ModelShape

_TABLE_WIDTH = 16  # tables are as wide as a multiple of this, so that kernels are compiled for one stride only

Integers = NDArray[np.int64]
Run = tuple[tuple[int, int, int], Integers]  # (first slot, length, position of the first), and the tokens that read it


@dataclass(frozen=True, slots=True)
class Chunks:
    """Prompt runs, their queries the last of their keys. slots: first slot of each row, or a table of its slots."""

    rows: QueryRows
    slots: torch.Tensor
    lengths: torch.Tensor


@dataclass(frozen=True, slots=True)
class Singles:
    """Rows of one query: tokens `places` of the step, over a dense run or a table of slots as in Chunks."""

    places: slice | torch.Tensor
    slots: torch.Tensor
    lengths: torch.Tensor
    longest: int


@dataclass(frozen=True, slots=True)
class Level:
    """Shared runs of which no token reads two."""

    rows: QueryRows
    starts: torch.Tensor
    lengths: torch.Tensor
    positions: torch.Tensor  # of each run's first key
    longest: int


@dataclass(frozen=True, slots=True)
class TritonAttention:
    """Attention of one step. Every token lies in exactly one of chunks and singles, and in any number of levels."""

    chunks: Sequence[Chunks]
    singles: Sequence[Singles]
    levels: Sequence[Level]
    positions: torch.Tensor  # [tokens]
    scale: float
    softcap: float | None

    def __call__(self, q: torch.Tensor, cache: KVCache, *, window: int | None) -> torch.Tensor:
        """q [tokens, heads, head_dim] → [tokens, heads · head_dim]; the step's keys are in `cache` already."""
        if len(self.singles) == 1 and not self.chunks and isinstance(self.singles[0].places, slice):
            state = self._single(self.singles[0], q, cache, window)
        else:
            state = self._own(q, cache, window)
        for level in self.levels:
            prefix_attention(
                q, cache, level.rows, level.starts, level.lengths, max_length=level.longest, scale=self.scale,
                softcap=self.softcap, window=window, positions=self.positions, key_positions=level.positions,
                joined=state,
            )  # fmt: skip
        return state[0].flatten(1)

    def _own(self, q: torch.Tensor, cache: KVCache, window: int | None) -> tuple[torch.Tensor, torch.Tensor]:
        out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
        lse = torch.empty(q.shape[:2], device=q.device)
        for chunk in self.chunks:
            paged_attention(
                q, cache, chunk.rows, chunk.slots, chunk.lengths, scale=self.scale, softcap=self.softcap,
                window=window, into=(out, lse),
            )  # fmt: skip
        for part in self.singles:
            out[part.places], lse[part.places] = self._single(part, q[part.places], cache, window)
        return out, lse

    def _single(
        self, part: Singles, q: torch.Tensor, cache: KVCache, window: int | None
    ) -> tuple[torch.Tensor, torch.Tensor]:
        return decode_attention(
            q, cache, part.slots, part.lengths, max_length=part.longest, scale=self.scale, softcap=self.softcap,
            window=window,
        )  # fmt: skip


class AttentionPlan:
    """Sorts a step's tokens into launches; its arrays travel with a Transfer, and `attention` joins them again."""

    def __init__(self, step: Step, shape: ModelShape, transfer: Transfer) -> None:
        self._shape = shape
        self._transfer = transfer
        runs = SharedRuns(step)
        self._dense: list[tuple[int, int, int, int]] = []  # place, queries, first slot, keys
        self._paged: list[tuple[int, int, Integers]] = []  # place, queries, slots
        self._tails: list[tuple[PlacedSegment, Integers]] = []  # and the slots before the label tokens
        for placed in step.segments:
            self._add(placed, runs)
        self._chunks = [*self._dense_chunks(), *self._paged_chunks()]
        self._singles = [*self._tail_rows(), *self._lanes(step)]
        self._levels = [self._level(level) for level in levels_of(runs, len(step.ids))]

    def attention(self, sent: Sequence[torch.Tensor], positions: torch.Tensor) -> TritonAttention:
        """The attention over the arrays as sent; positions int32 [tokens] on the device."""
        chunks = [
            Chunks(QueryRows(sent[starts], sent[ends], longest), sent[slots], sent[lengths])
            for starts, ends, slots, lengths, longest in self._chunks
        ]
        singles = [
            Singles(places if isinstance(places, slice) else sent[places], sent[slots], sent[lengths], longest)
            for places, slots, lengths, longest in self._singles
        ]
        levels = [
            Level(
                QueryRows(sent[starts], sent[ends], most, sent[places]), sent[slots], sent[lengths], sent[at], longest
            )
            for starts, ends, places, most, (slots, lengths, at), longest in self._levels
        ]
        shape = self._shape
        return TritonAttention(chunks, singles, levels, positions, shape.attention_scale, shape.attention_softcap)

    def _add(self, placed: PlacedSegment, runs: SharedRuns) -> None:
        segment, place = placed.segment, placed.place
        keys, first = segment.past + segment.count, segment.slot - segment.past
        long = keys > LONG_RUN
        if segment.short and not long:
            slots = np.concatenate((slots_of(segment.short), first + np.arange(keys)))
            self._paged.append((place, segment.count, slots))
        else:
            self._dense.append((place, segment.count, first, keys))
            runs.add_short(segment, place + np.arange(segment.count))
        if segment.labels is None or not segment.tail:
            return
        places = place + segment.count + np.arange(segment.tail)
        before = np.concatenate((slots_of(segment.short), first + np.arange(keys)))
        if long:
            runs.add_short(segment, places)
            runs.add(first, keys, segment.position - segment.past, places)
            before = before[:0]
        self._tails.append((placed, before))

    def _dense_chunks(self) -> list[tuple[int, int, int, int, int]]:
        if not self._dense:
            return []
        place, queries, first, keys = np.array(self._dense, np.int64).T
        sent = (self._transfer.add(x) for x in (place, place + queries, first, keys))
        return [(*sent, int(queries.max()))]  # type: ignore[list-item]

    def _paged_chunks(self) -> list[tuple[int, int, int, int, int]]:
        if not self._paged:
            return []
        places, queries = (np.array([row[at] for row in self._paged]) for at in (0, 1))
        lengths = np.array([len(slots) for _, _, slots in self._paged])
        table = _table(len(lengths), int(lengths.max()))
        for row, (_, _, slots) in enumerate(self._paged):
            table[row, : len(slots)] = slots
        sent = (self._transfer.add(x) for x in (places, places + queries, table, lengths))
        return [(*sent, int(queries.max()))]  # type: ignore[list-item]

    def _tail_rows(self) -> list[tuple[slice | int, int, int, int]]:
        """Label tokens one by one: each sees what stands before the labels, what it follows, and itself."""
        if not self._tails:
            return []
        rows = sum(placed.segment.tail for placed, _ in self._tails)
        width = max(len(before) + placed.segment.tail for placed, before in self._tails)
        places, lengths, table = np.empty(rows, np.int64), np.empty(rows, np.int64), _table(rows, width)
        row = 0
        for placed, before in self._tails:
            segment, labels = placed.segment, placed.segment.labels
            assert labels is not None
            end = row + segment.tail
            token, seen = np.nonzero(labels.visible)
            rank = np.concatenate([np.arange(depth) for depth in labels.depths])
            table[row:end, : len(before)] = before
            table[row + token, len(before) + rank] = segment.slot + segment.count + seen
            places[row:end] = placed.place + segment.count + np.arange(segment.tail)
            lengths[row:end] = len(before) + labels.depths
            row = end
        add = self._transfer.add
        return [(add(places), add(table), add(lengths), int(lengths.max()))]

    def _lanes(self, step: Step) -> list[tuple[slice | int, int, int, int]]:
        if not step.slabs:
            return []
        firsts = np.concatenate([part.slab.block.start + part.lanes * part.slab.width for part in step.slabs])
        lengths = np.concatenate([part.filled for part in step.slabs]) + 1
        places = slice(step.slabs[0].place, step.slabs[0].place + len(lengths))
        return [(places, self._transfer.add(firsts), self._transfer.add(lengths), int(lengths.max()))]

    def _level(self, level: Sequence[Run]) -> tuple[int, int, int, int, tuple[int, int, int], int]:
        add = self._transfer.add
        counts = np.array([len(places) for _, places in level])
        ends = np.cumsum(counts)
        slots, lengths, positions = np.array([run for run, _ in level], np.int64).T
        places = add(np.concatenate([places for _, places in level]))
        keys = add(slots), add(lengths), add(positions)
        return add(ends - counts), add(ends), places, int(counts.max()), keys, int(lengths.max())


def levels_of(runs: SharedRuns, tokens: int) -> list[list[Run]]:
    """The shared runs of a step of so many tokens, each on the first level on which no token reads another."""
    reached = np.zeros(tokens, np.int64)
    levels: list[list[Run]] = []
    for run, parts in runs.places.items():
        places = np.concatenate(parts)
        level = int(reached[places].max())
        reached[places] = level + 1
        levels.extend([] for _ in range(level + 1 - len(levels)))
        levels[level].append((run, places))
    return levels


def _table(rows: int, width: int) -> Integers:
    return np.zeros((rows, -(-width // _TABLE_WIDTH) * _TABLE_WIDTH), np.int64)
