"""A step's attention as the CPU runs it: rows of similar length padded to batches, lanes read in place.

Long runs attend to themselves by the causal kernel, and to whatever else they read as shared runs.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dql.executor.attention import Bias, LongRow, PaddedRows, SharedRun, SlabRows, StepAttention, padded_bias, run_bias
from dql.executor.label_tree import LabelTree
from dql.executor.step import LONG_RUN, PlacedSegment, SharedRuns, SlabPart, Step, slots_of
from dql.kernels.fused_cpu import HIDDEN
from dql.models.shape import ModelShape

_SPREAD = 1.25  # longest over shortest row of a padded batch
_NOTHING = np.empty(0, np.int64)


@dataclass(slots=True)
class _Entry:
    """Tokens that attend to themselves after some slots of their own, within a padded batch.

    labels: the last of the tokens are a label tree's. They see all tokens before it, and each other as the tree says.
    """

    place: int
    count: int
    before: NDArray[np.int64]
    slot: int
    labels: LabelTree | None


def cpu_attention(step: Step, shape: ModelShape) -> StepAttention:
    """The attention of a step over keys in CPU memory."""
    return _Preparation(step, shape).attention()


class _Preparation:
    """Sorts a step's tokens into padded entries, long rows, slabs and shared runs."""

    def __init__(self, step: Step, shape: ModelShape) -> None:
        self._step = step
        self._shape = shape
        self._positions = torch.from_numpy(step.positions)
        self._runs = SharedRuns(step)
        self._entries: list[_Entry] = []
        self._long: list[LongRow] = []
        for placed in step.segments:
            self._add(placed)

    def attention(self) -> StepAttention:
        shape = self._shape
        return StepAttention(
            padded=[_padded(batch, shape) for batch in _batches(self._entries)],
            long=self._long,
            slabs=[_slab_rows(part, shape) for part in self._step.slabs],
            shared=self._shared_runs(),
            scale=shape.attention_scale,
            softcap=shape.attention_softcap,
        )

    def _add(self, placed: PlacedSegment) -> None:
        segment, place = placed.segment, placed.place
        count, places = segment.count, place + np.arange(segment.count)
        before = slots_of(segment.short)
        if count > LONG_RUN or segment.past > 0:
            self._runs.add_short(segment, places)
            before = _NOTHING
        if segment.past:
            self._runs.add(segment.slot - segment.past, segment.past, segment.position - segment.past, places)
        if count > LONG_RUN:
            self._long.append(self._long_row(place, count, segment.slot))
        else:
            with_tail = segment.labels if segment.tail and not segment.past else None
            tail = segment.tail if with_tail is not None else 0
            self._entries.append(_Entry(place, count + tail, before, segment.slot, with_tail))
            if with_tail is not None:
                return
        if segment.labels is not None and segment.tail:
            self._add_tail(placed, segment.labels)

    def _add_tail(self, placed: PlacedSegment, labels: LabelTree) -> None:
        """Label tokens apart from a row that is long or was begun in an earlier step."""
        segment, place = placed.segment, placed.place + placed.segment.count
        places = place + np.arange(segment.tail)
        own, first = segment.past + segment.count, segment.slot - segment.past
        if own > LONG_RUN:
            self._runs.add_short(segment, places)
            self._runs.add(first, own, segment.position - segment.past, places)
            before = _NOTHING
        else:
            before = np.concatenate((slots_of(segment.short), first + np.arange(own)))
        self._entries.append(_Entry(place, segment.tail, before, segment.slot + segment.count, labels))

    def _long_row(self, place: int, count: int, slot: int) -> LongRow:
        rows = slice(place, place + count)
        positions = self._positions[rows]
        return LongRow(rows, slot, run_bias(positions, int(positions[0]), count, self._shape.sliding_window))

    def _shared_runs(self) -> list[SharedRun]:
        """The runs, those with the most work last, because a token's final run is joined in fewer passes."""
        runs = [(run, np.concatenate(places)) for run, places in self._runs.places.items()]
        runs.sort(key=lambda item: item[0][1] * len(item[1]))
        later = np.zeros(len(self._step.ids), np.bool_)
        shared = []
        for (slot, length, first), places in reversed(runs):
            dense = bool((np.diff(places) == 1).all())
            rows = slice(int(places[0]), int(places[-1]) + 1) if dense else torch.from_numpy(places)
            bias = run_bias(self._positions[rows], first, length, self._shape.sliding_window)
            shared.append(SharedRun(rows, slot, length, bias, final=not later[places].any()))
            later[places] = True
        return shared[::-1]


def _padded(batch: Sequence[_Entry], shape: ModelShape) -> PaddedRows:
    """Rows end together, so that label tokens are the last queries of all of them."""
    labels = batch[0].labels
    counts = np.array([entry.count for entry in batch])
    lengths = counts + [len(entry.before) for entry in batch]
    queries, keys = int(counts.max()), int(lengths.max())
    places = np.zeros((len(batch), queries), np.int64)
    slots = np.zeros((len(batch), keys), np.int64)
    for row, entry in enumerate(batch):
        own = np.arange(entry.count)
        places[row, queries - entry.count :] = entry.place + own
        slots[row, keys - lengths[row] :] = np.concatenate((entry.before, entry.slot + own))
    real = np.flatnonzero((np.arange(queries) >= queries - counts[:, None]).reshape(-1))
    visible, depths = torch.ones(queries, queries, dtype=torch.bool).tril_(), torch.arange(queries)
    if labels is not None:
        first = queries - len(labels.tokens)
        visible[first:, first:] = torch.from_numpy(labels.visible)
        depths[first:] = first - 1 + torch.from_numpy(labels.depths)
    group = shape.num_heads // shape.num_kv_heads
    bias = padded_bias(torch.from_numpy(keys - lengths), keys, visible, depths, group, shape.sliding_window)
    targets = torch.from_numpy(places.reshape(-1)[real])
    return PaddedRows(torch.from_numpy(places), torch.from_numpy(slots), bias, torch.from_numpy(real), targets)


def _slab_rows(part: SlabPart, shape: ModelShape) -> SlabRows:
    slab, lanes, depths, window = part.slab, part.lanes, part.depths, shape.sliding_window
    count, queries = int(lanes[-1]) + 1, int(depths.max()) + 1
    keys = np.zeros((count, queries), np.int64)
    keys[lanes, depths] = part.filled + 1
    longest = int(keys.max())
    at, seen = np.arange(longest), keys[..., None]
    full = at < seen
    group = 1 if queries == 1 else shape.num_heads // shape.num_kv_heads
    sliding = None if window is None or longest <= window else _slab_bias(full & (at >= seen - window), group)
    return SlabRows(
        places=slice(part.place, part.place + len(lanes)),
        start=slab.block.start,
        width=slab.width,
        count=count,
        queries=queries,
        longest=longest,
        at=None if count * queries == len(lanes) else torch.from_numpy(lanes * queries + depths),
        bias=Bias(_slab_bias(full, group), sliding),
    )


def _slab_bias(seen: NDArray[np.bool_], group: int) -> torch.Tensor:
    """bool [lanes, queries, keys] → float32 [lanes, 1, group · queries, keys]."""
    bias = torch.from_numpy(np.where(seen, np.float32(0), np.float32(HIDDEN)))[:, None]
    return bias.repeat(1, 1, group, 1) if group > 1 else bias


def _batches(entries: Sequence[_Entry]) -> list[list[_Entry]]:
    """Entries with the same labels and similar numbers of keys together, so that little is padded."""
    batches: list[list[_Entry]] = []
    ordered = sorted(entries, key=lambda entry: (id(entry.labels), len(entry.before) + entry.count))
    for entry in ordered:
        first = batches[-1][0] if batches else None
        keys = len(entry.before) + entry.count
        if (
            first is not None
            and first.labels is entry.labels
            and keys <= (len(first.before) + first.count) * _SPREAD + 4
        ):
            batches[-1].append(entry)
        else:
            batches.append([entry])
    return batches
