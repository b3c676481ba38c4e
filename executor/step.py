"""One step of the engine: runs of prompt tokens and decoding rows packed together, with no padding between them.

Plain arrays: what a device makes of them, tensors and attention, is its backend's business.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dql.executor.label_tree import LabelTree
from dql.executor.prefix_tree import Node
from dql.executor.requests import Tokens
from dql.executor.slab import Slab

LONG_RUN = 256  # tokens from which a run of prompt tokens may be cut between two steps

Places = NDArray[np.int64]  # of tokens in a step


@dataclass(frozen=True, slots=True)
class Segment:
    """Consecutive tokens of one text to run in this step.

    position, slot: of the first token. past: tokens of the same run before it, stored just before `slot`.
    short: (slot, length) of short shared runs right above, outermost first. dense_parent: the deepest dense run above.
    labels: a label tree fed after the last token. outputs: how many last tokens' hidden states are wanted. precise: how
    many first tokens are computed in a higher precision, where the model has two.
    """

    tokens: Tokens
    position: int
    slot: int
    past: int
    short: tuple[tuple[int, int], ...]
    dense_parent: Node | None
    labels: LabelTree | None = None
    outputs: int = 0
    precise: int = 0

    @property
    def count(self) -> int:
        return len(self.tokens)

    @property
    def tail(self) -> int:
        """Label tokens fed after the segment, in the slots that follow it."""
        return 0 if self.labels is None else len(self.labels.tokens)


@dataclass(frozen=True, slots=True)
class PlacedSegment:
    """A segment whose tokens stand at `place` … in the step, its label tokens right after them."""

    segment: Segment
    place: int


@dataclass(frozen=True, slots=True)
class Guesses:
    """Tokens that may follow the newest ones of some lanes: tokens [lanes, most], of which the first counts [lanes]."""

    lanes: NDArray[np.int64]
    tokens: NDArray[np.int64]
    counts: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class SlabPart:
    """Decoding rows of one slab: the newest token of each lane, and after it what is guessed, at `place` … in the step.

    lanes [tokens]: in order, a lane once for every token of it. depths: 0 for a newest token, else which guess it is.
    filled: slots of the lane before the token that hold keys and values. by_parent: for each deepest dense run above,
    which of the part's tokens stand below it.
    """

    slab: Slab
    lanes: NDArray[np.int64]
    place: int
    filled: NDArray[np.int64]
    by_parent: Sequence[tuple[Node | None, NDArray[np.int64]]]
    depths: NDArray[np.int64]
    guesses: Guesses | None = None


@dataclass(frozen=True, slots=True)
class Step:
    """A packed step: all arrays int64 [tokens], each token's id, position in its text, and the slot it fills.

    outputs: places of the tokens whose hidden states are wanted: those of segments in order, each segment's followed by
    its label tokens, then decoding rows. precise: places of the tokens that are computed in a higher precision.
    """

    ids: NDArray[np.int64]
    positions: NDArray[np.int64]
    slots: NDArray[np.int64]
    outputs: Places
    precise: Places
    segments: Sequence[PlacedSegment]
    slabs: Sequence[SlabPart]


class StepBuilder:
    """Packs one step; `build` is called once, at the end."""

    def __init__(self) -> None:
        self._ids: list[NDArray[np.int64]] = []
        self._positions: list[NDArray[np.int64]] = []
        self._slots: list[NDArray[np.int64]] = []
        self._outputs: list[Places] = []
        self._segments: list[PlacedSegment] = []
        self._slabs: list[SlabPart] = []
        self.size = 0

    def add_segment(self, segment: Segment) -> None:
        """Pack a run of prompt tokens and, after it, its label tokens."""
        count, tail, labels = segment.count, segment.tail, segment.labels
        place = self._pack(segment.tokens, segment.position + np.arange(count), segment.slot + np.arange(count))
        if labels is not None and tail:
            end = segment.position + count - 1
            self._pack(labels.tokens, end + labels.depths, segment.slot + count + np.arange(tail))
        if segment.outputs:
            self._outputs.append(place + count - segment.outputs + np.arange(segment.outputs + tail))
        self._segments.append(PlacedSegment(segment, place))

    def add_slab(self, slab: Slab, lanes: NDArray[np.int64], guesses: Guesses | None = None) -> None:
        """Pack the newest token of each of these live lanes (in order) of a slab, and what is guessed after it."""
        ids, depths = slab.last[lanes], np.zeros(len(lanes), np.int64)
        if guesses is not None:
            rows, depths = np.nonzero(np.arange(1 + guesses.tokens.shape[1]) <= guesses.counts[:, None])
            ids = np.concatenate((ids[:, None], guesses.tokens), axis=1)[rows, depths]
            lanes = lanes[rows]
        filled = slab.filled[lanes] + depths
        place = self._pack(ids, slab.base[lanes] + filled, slab.block.start + lanes * slab.width + filled)
        self._outputs.append(place + np.arange(len(lanes)))
        by_parent: dict[int, tuple[Node | None, list[int]]] = {}
        for offset, lane in enumerate(lanes.tolist()):
            parent = slab.dense_parents[lane]
            by_parent.setdefault(id(parent), (parent, []))[1].append(offset)
        parents = [(parent, np.array(offsets)) for parent, offsets in by_parent.values()]
        self._slabs.append(SlabPart(slab, lanes, place, filled, parents, depths, guesses))

    def build(self) -> Step:
        """The step."""
        none = np.empty(0, np.int64)
        outputs = np.concatenate([none, *self._outputs])
        precise = np.concatenate(
            [none, *(p.place + np.arange(p.segment.precise) for p in self._segments if p.segment.precise)]
        )
        ids, positions, slots = (np.concatenate(parts) for parts in (self._ids, self._positions, self._slots))
        return Step(ids, positions, slots, outputs, precise, self._segments, self._slabs)

    def _pack(self, ids: NDArray[np.integer], positions: NDArray[np.int64], slots: NDArray[np.int64]) -> int:
        place = self.size
        self._ids.append(ids.astype(np.int64))
        self._positions.append(positions)
        self._slots.append(slots)
        self.size += len(ids)
        return place


class SharedRuns:
    """Runs of slots that many tokens of a step attend to together, all of which precede them."""

    def __init__(self, step: Step) -> None:
        """Begins with the dense nodes above the step's segments (label tokens included) and decoding rows."""
        self.places: dict[tuple[int, int, int], list[Places]] = {}  # (slot, length, position of the first) → tokens
        for placed in step.segments:
            segment = placed.segment
            self._below(segment.dense_parent, placed.place + np.arange(segment.count + segment.tail))
        for part in step.slabs:
            for parent, offsets in part.by_parent:
                self._below(parent, part.place + offsets)

    def add(self, slot: int, length: int, position: int, places: Places) -> None:
        """Let the tokens at `places` attend to `length` slots from `slot`, the first at `position` in their texts."""
        self.places.setdefault((slot, length, position), []).append(places)

    def add_short(self, segment: Segment, places: Places) -> None:
        """Let tokens of a segment attend to the short shared runs above it."""
        position = segment.position - segment.past - sum(length for _, length in segment.short)
        for slot, length in segment.short:
            self.add(slot, length, position, places)
            position += length

    def _below(self, parent: Node | None, places: Places) -> None:
        for node in [] if parent is None else parent.path():
            self.add(node.slot, node.length, node.start, places)


def slots_of(runs: Sequence[tuple[int, int]]) -> NDArray[np.int64]:
    """All slots of (slot, length) runs, one after another."""
    parts = [slot + np.arange(length) for slot, length in runs]
    return np.concatenate(parts) if parts else np.empty(0, np.int64)
