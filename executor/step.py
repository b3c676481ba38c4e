"""One step of the engine: runs of prompt tokens and decoding rows packed together, with no padding between them."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dql.executor.attention import Bias, LongRow, PaddedRows, SharedRun, SlabRows, StepAttention, padded_bias, run_bias
from dql.executor.label_tree import LabelTree
from dql.executor.models.decoder import PackedTokens
from dql.executor.prefix_tree import Node
from dql.executor.requests import Tokens
from dql.executor.slab import Slab
from dql.kernels.fused_cpu import HIDDEN
from dql.models.shape import ModelShape

LONG_RUN = 256  # tokens from which a run attends to itself alone, by the causal kernel, instead of in a padded batch
_SPREAD = 1.25  # longest over shortest row of a padded batch


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive tokens of one text to run in this step.

    position, slot: of the first token. past: tokens of the same run before it, stored just before `slot`.
    short: (slot, length) of short shared runs right above, outermost first. dense_parent: the deepest dense run above.
    labels: a label tree fed after the last token. output: whether the last token's hidden state is wanted.
    """

    tokens: Tokens
    position: int
    slot: int
    past: int
    short: tuple[tuple[int, int], ...]
    dense_parent: Node | None
    labels: LabelTree | None = None
    output: bool = False

    @property
    def tail(self) -> int:
        return 0 if self.labels is None else len(self.labels.tokens)


@dataclass(frozen=True, slots=True)
class Step:
    """A packed step. Outputs: one per output segment in order, each followed by its label tokens, then decoding rows.

    lanes: for each slab, which lanes decode.
    """

    tokens: PackedTokens
    attention: StepAttention
    segments: Sequence[Segment]
    lanes: Sequence[tuple[Slab, NDArray[np.int64]]]


@dataclass(slots=True)
class _Entry:
    """Tokens that attend to themselves after some slots of their own, within a padded batch."""

    place: int
    count: int
    before: NDArray[np.int64]
    slot: int
    labels: LabelTree | None


class StepBuilder:
    """Packs one step; `build` is called once, at the end."""

    def __init__(self, shape: ModelShape) -> None:
        self._shape = shape
        self._ids: list[NDArray[np.int64]] = []
        self._positions: list[NDArray[np.int64]] = []
        self._slots: list[NDArray[np.int64]] = []
        self._outputs: list[NDArray[np.int64]] = []
        self._entries: list[_Entry] = []
        self._long: list[tuple[int, int, int]] = []  # place, count, slot
        self._runs: dict[tuple[int, int, int], list[NDArray[np.int64]]] = {}  # slot, length, position → places
        self._slab_parts: list[tuple[Slab, NDArray[np.int64], int]] = []
        self._segments: list[Segment] = []
        self.size = 0

    def add_segment(self, segment: Segment) -> None:
        """Pack a run of prompt tokens and, after it, its label tokens."""
        count, tail = len(segment.tokens), segment.tail
        place = self._pack(segment.tokens, segment.position + np.arange(count), segment.slot + np.arange(count))
        self._segments.append(segment)
        if segment.output:
            self._outputs.append(np.array([place + count - 1]))
        apart = count > LONG_RUN or segment.past > 0
        before = self._short_slots(segment, place, count) if apart else _slots_of(segment.short)
        if segment.past:
            self._run(segment.slot - segment.past, segment.past, segment.position - segment.past, place, count)
        if count > LONG_RUN:
            self._long.append((place, count, segment.slot))
        else:
            self._entries.append(_Entry(place, count, before, segment.slot, None))
        if segment.labels is not None and tail:
            self._add_tail(segment, segment.labels, place + count)
        self._dense_runs(segment.dense_parent, place, count + tail)

    def add_slab(self, slab: Slab, lanes: NDArray[np.int64]) -> None:
        """Pack the newest token of each of these live lanes (in order) of a slab."""
        slots = slab.block.start + lanes * slab.width + slab.filled[lanes]
        place = self._pack(slab.last[lanes], slab.base[lanes] + slab.filled[lanes], slots)
        self._outputs.append(place + np.arange(len(lanes)))
        self._slab_parts.append((slab, lanes, place))
        by_parent: dict[int, tuple[Node | None, list[int]]] = {}
        for offset, lane in enumerate(lanes.tolist()):
            parent = slab.dense_parents[lane]
            by_parent.setdefault(id(parent), (parent, []))[1].append(offset)
        for parent, offsets in by_parent.values():
            for node in [] if parent is None else parent.path():
                self._add_places(node.slot, node.length, node.start, place + np.array(offsets))

    def build(self) -> Step:
        """The step, all index arrays as tensors."""
        shape = self._shape
        ids, positions, slots = (
            torch.from_numpy(np.concatenate(parts)) for parts in (self._ids, self._positions, self._slots)
        )
        outputs = np.concatenate(self._outputs) if self._outputs else np.empty(0, np.int64)
        attention = StepAttention(
            padded=[self._padded(batch) for batch in _batches(self._entries)],
            long=[self._long_row(place, count, slot, positions) for place, count, slot in self._long],
            slabs=[self._slab_rows(slab, lanes, place) for slab, lanes, place in self._slab_parts],
            shared=[self._shared(run, places, positions) for run, places in self._runs.items()],
            scale=shape.attention_scale,
            softcap=shape.attention_softcap,
        )
        packed = PackedTokens(ids, positions, slots, torch.from_numpy(outputs))
        return Step(packed, attention, self._segments, [(slab, lanes) for slab, lanes, _ in self._slab_parts])

    def _pack(self, ids: NDArray[np.integer], positions: NDArray[np.int64], slots: NDArray[np.int64]) -> int:
        place = self.size
        self._ids.append(ids.astype(np.int64))
        self._positions.append(positions)
        self._slots.append(slots)
        self.size += len(ids)
        return place

    def _add_tail(self, segment: Segment, labels: LabelTree, place: int) -> None:
        """Label tokens: they see all of the row and, among themselves, what they follow."""
        count, tail = len(segment.tokens), len(labels.tokens)
        end = segment.position + count - 1
        self._pack(labels.tokens, end + labels.depths, segment.slot + count + np.arange(tail))
        if segment.output:
            self._outputs.append(place + np.arange(tail))
        own = segment.past + count
        if own > LONG_RUN:
            self._short_slots(segment, place, tail)
            self._run(segment.slot - segment.past, own, segment.position - segment.past, place, tail)
            before = np.empty(0, np.int64)
        else:
            first = segment.slot - segment.past
            before = np.concatenate((_slots_of(segment.short), first + np.arange(own)))
        self._entries.append(_Entry(place, tail, before, segment.slot + count, labels))

    def _short_slots(self, segment: Segment, place: int, count: int) -> NDArray[np.int64]:
        """Attend to the short runs above apart from the tokens' own keys; returns the slots left to read with those."""
        position = segment.position - segment.past - sum(length for _, length in segment.short)
        for slot, length in segment.short:
            self._run(slot, length, position, place, count)
            position += length
        return np.empty(0, np.int64)

    def _dense_runs(self, parent: Node | None, place: int, count: int) -> None:
        for node in [] if parent is None else parent.path():
            self._run(node.slot, node.length, node.start, place, count)

    def _run(self, slot: int, length: int, position: int, place: int, count: int) -> None:
        self._add_places(slot, length, position, place + np.arange(count))

    def _add_places(self, slot: int, length: int, position: int, places: NDArray[np.int64]) -> None:
        self._runs.setdefault((slot, length, position), []).append(places)

    def _padded(self, batch: Sequence[_Entry]) -> PaddedRows:
        shape, labels = self._shape, batch[0].labels
        queries = max(entry.count for entry in batch)
        before = np.array([len(entry.before) for entry in batch])
        places = np.zeros((len(batch), queries), np.int64)
        slots = np.zeros((len(batch), int(before.max()) + queries), np.int64)
        for row, entry in enumerate(batch):
            places[row, : entry.count] = entry.place + np.arange(entry.count)
            slots[row, : before[row]] = entry.before
            slots[row, before[row] : before[row] + entry.count] = entry.slot + np.arange(entry.count)
        counts = np.array([entry.count for entry in batch])
        real = np.flatnonzero((np.arange(queries) < counts[:, None]).reshape(-1))
        if labels is None:
            visible, depths = torch.ones(queries, queries, dtype=torch.bool).tril_(), torch.arange(queries)
        else:
            visible, depths = torch.from_numpy(labels.visible), torch.from_numpy(labels.depths) - 1
        group = shape.num_heads // shape.num_kv_heads
        bias = padded_bias(torch.from_numpy(before), visible, depths, group, shape.sliding_window)
        targets = torch.from_numpy(places.reshape(-1)[real])
        return PaddedRows(torch.from_numpy(places), torch.from_numpy(slots), bias, torch.from_numpy(real), targets)

    def _long_row(self, place: int, count: int, slot: int, positions: torch.Tensor) -> LongRow:
        rows = slice(place, place + count)
        first = int(positions[place])
        return LongRow(rows, slot, run_bias(positions[rows], first, count, self._shape.sliding_window))

    def _shared(
        self, run: tuple[int, int, int], places: Sequence[NDArray[np.int64]], positions: torch.Tensor
    ) -> SharedRun:
        slot, length, first = run
        flat = np.concatenate(places)
        dense = bool((np.diff(flat) == 1).all())
        rows = slice(int(flat[0]), int(flat[-1]) + 1) if dense else torch.from_numpy(flat)
        return SharedRun(rows, slot, length, run_bias(positions[rows], first, length, self._shape.sliding_window))

    def _slab_rows(self, slab: Slab, lanes: NDArray[np.int64], place: int) -> SlabRows:
        count = int(lanes[-1]) + 1
        keys = np.zeros(count, np.int64)
        keys[lanes] = slab.filled[lanes] + 1
        longest = int(keys.max())
        at, seen = np.arange(longest), keys[:, None]
        full = at < seen
        window = self._shape.sliding_window
        sliding = None if window is None or longest <= window else _slab_bias(full & (at >= seen - window))
        return SlabRows(
            places=slice(place, place + len(lanes)),
            start=slab.block.start,
            width=slab.width,
            count=count,
            longest=longest,
            lanes=None if count == len(lanes) else torch.from_numpy(lanes),
            bias=Bias(_slab_bias(full), sliding),
        )


def _slab_bias(seen: NDArray[np.bool_]) -> torch.Tensor:
    """bool [lanes, keys] → float32 [lanes, 1, 1, keys]."""
    return torch.from_numpy(np.where(seen, np.float32(0), np.float32(HIDDEN)))[:, None, None]


def _slots_of(runs: Iterable[tuple[int, int]]) -> NDArray[np.int64]:
    parts = [slot + np.arange(length) for slot, length in runs]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)


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
