"""Attention whose results do not depend on the batch, for `deterministic = true`.

Every token takes its keys in blocks of KEYS places, cut at the same places of its text whatever of it is shared, cut
into chunks or kept from an earlier run, and joins the blocks from first to last. A block's product has one shape:
queries stand in tiles of QUERIES prompt tokens, or of one generated token. So each token's sums run over the same
numbers in the same order in any step, and prompts may share whatever they have in common: sharing saves the computation
of a prefix, though not the reading of it.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional

from dql.executor.label_tree import LabelTree
from dql.executor.prefix_tree import Node
from dql.executor.step import PlacedSegment, SlabPart, Step, slots_of
from dql.kernels.fused_cpu import HIDDEN, attend
from dql.kernels.kv_cache import KVCache
from dql.models.shape import ModelShape

Slots = NDArray[np.int64]

KEYS = 64  # keys of a block
QUERIES = 16  # prompt tokens of a tile
_ROWS = 16  # a tile's queries of one key head are filled up to a multiple: buffers stay aligned, vectors whole
_TILES = 256  # tiles whose keys are gathered at once
_VECTOR, _GRAIN = 32, 1 << 15  # elements that torch's loops take in whole vectors, and on one thread


@dataclass(frozen=True, slots=True)
class Tiles:
    """Query tiles of one size, those with most key blocks first.

    places [tiles, queries]: tokens of the step, the last one repeated to fill. slots [tiles, keys]: of their texts from
    the first token on. seen, near bool [tiles, queries, keys]: what full and sliding layers look at; near None: all of
    it. reach: for each block, how many tiles (the first ones) have it. real: which of the flattened places count.
    """

    places: torch.Tensor
    slots: torch.Tensor
    seen: torch.Tensor
    near: torch.Tensor | None
    reach: Sequence[int]
    real: torch.Tensor


@dataclass(frozen=True, slots=True)
class InvariantAttention:
    """Attention of one step. Every token lies in exactly one of the tiles."""

    parts: Sequence[Tiles]
    scale: float
    softcap: float | None

    def __call__(self, q: torch.Tensor, cache: KVCache, *, window: int | None) -> torch.Tensor:
        """q [tokens, heads, head_dim] → [tokens, heads · head_dim]; the step's keys are in `cache` already."""
        out = torch.empty(q.shape, dtype=q.dtype)
        for part in self.parts:
            attended = self._tiles(part, q, cache, window).flatten(0, 1)
            out[part.places.flatten()[part.real]] = attended[part.real]
        return out.flatten(1)

    def _tiles(self, part: Tiles, q: torch.Tensor, cache: KVCache, window: int | None) -> torch.Tensor:
        """[tiles, queries, heads, head_dim]: sum and weight of each block, joined in order."""
        seen = part.seen if window is None or part.near is None else part.near
        folded = _fold(q[part.places], cache.k.shape[1])
        largest, total = folded.new_full(folded.shape[:-1], HIDDEN), folded.new_zeros(folded.shape[:-1])
        summed = torch.zeros_like(folded)
        for block, count in enumerate(part.reach):
            keys = slice(block * KEYS, (block + 1) * KEYS)
            for start in range(0, count, _TILES):
                tiles = slice(start, min(count, start + _TILES))
                out, lse = self._block(folded[tiles], part.slots[tiles, keys], seen[tiles, :, keys], cache)
                _join(largest[tiles], total[tiles], summed[tiles], out, lse)
        return _unfold(summed / total[..., None], q.shape[1], part.places.shape[1])

    def _block(
        self, q: torch.Tensor, slots: torch.Tensor, seen: torch.Tensor, cache: KVCache
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Folded queries over one block of keys each: out like q, lse without its last dimension."""
        k, v = (x.transpose(1, 2) for x in cache.dense(slots))
        bias = torch.where(seen, 0.0, HIDDEN)
        tiles, queries, keys = bias.shape
        bias = bias[:, None].expand(-1, q.shape[2] // queries, -1, -1).reshape(tiles, 1, -1, keys)
        bias = functional.pad(bias, (0, 0, 0, q.shape[2] - bias.shape[2]))
        if self.softcap is None:
            return attend(q, k, v, bias, False, self.scale, None)
        # capped scores go through loops over all tiles, so that each tile goes alone
        alone = zip(*(torch.split(x, 1) for x in (q, k, v, bias)), strict=True)
        states = [attend(q, k, v, bias, False, self.scale, self.softcap) for q, k, v, bias in alone]
        return torch.cat([out for out, _ in states]), torch.cat([lse for _, lse in states])


@dataclass(frozen=True, slots=True)
class _Tile:
    """Places of up to QUERIES tokens [n], the slots [m] that they look at, seen bool [n, m], positions of both."""

    places: NDArray[np.int64]
    slots: Slots
    seen: NDArray[np.bool_]
    queries_at: NDArray[np.int64]
    keys_at: NDArray[np.int64]


def invariant_attention(step: Step, shape: ModelShape) -> InvariantAttention:
    """The attention of a step over keys in CPU memory."""
    window = shape.sliding_window
    tiles = [tile for placed in step.segments for tile in _segment_tiles(placed)]
    parts = [tiles_of for part in step.slabs for tiles_of in _lane_tiles(part, window)]
    if tiles:
        parts.append(_padded(sorted(tiles, key=lambda tile: -len(tile.slots)), window))
    return InvariantAttention(parts, shape.attention_scale, shape.attention_softcap)


def _segment_tiles(placed: PlacedSegment) -> Iterator[_Tile]:
    """The tokens of a run over their text so far; its label tokens over the prompt and what they follow."""
    segment, place = placed.segment, placed.place
    count, first = segment.count, segment.position
    own = segment.slot - segment.past + np.arange(segment.past + count)
    text = np.concatenate((_above(segment.dense_parent), slots_of(segment.short), own))
    at = np.arange(len(text))
    for start in range(0, count, QUERIES):
        queries_at = first + np.arange(start, min(count, start + QUERIES))
        end = queries_at[-1] + 1
        yield _Tile(place - first + queries_at, text[:end], at[:end] <= queries_at[:, None], queries_at, at[:end])
    if segment.labels is not None and segment.tail:
        yield from _label_tiles(segment.labels, place + count, text, segment.slot + count)


def _label_tiles(labels: LabelTree, place: int, text: Slots, slot: int) -> Iterator[_Tile]:
    """Label tokens stand behind the prompt in the order of their tree, though at the positions of their depths."""
    prompt, tail = len(text), len(labels.tokens)
    slots = np.concatenate((text, slot + np.arange(tail)))
    at = np.concatenate((np.arange(prompt), prompt - 1 + labels.depths))
    seen = np.concatenate((np.ones((tail, prompt), np.bool_), labels.visible), axis=1)
    for start in range(0, tail, QUERIES):
        some = slice(start, min(tail, start + QUERIES))
        yield _Tile(place + np.arange(tail)[some], slots, seen[some], at[prompt:][some], at)


def _lane_tiles(part: SlabPart, window: int | None) -> Iterator[Tiles]:
    """Each generated token alone over its row's text so far."""
    slab = part.slab
    for parent, offsets in part.by_parent:
        ordered = offsets[np.argsort(-part.filled[offsets], kind="stable")]
        above = _above(parent)
        counts = len(above) + part.filled[ordered] + 1
        at = np.arange(_whole(int(counts[0])))
        first = slab.block.start + part.lanes[ordered] * slab.width - len(above)
        seen = at < counts[:, None]
        slots = np.where(at < len(above), np.resize(np.append(above, 0), len(at)), first[:, None] + at)
        near = None if window is None else seen & (at >= counts[:, None] - window)
        places = part.place + ordered[:, None]
        yield _tiles(places, np.where(seen, slots, 0), seen, near, counts, np.arange(len(ordered)))


def _padded(tiles: Sequence[_Tile], window: int | None) -> Tiles:
    keys = _whole(len(tiles[0].slots))
    places = np.zeros((len(tiles), QUERIES), np.int64)
    slots = np.zeros((len(tiles), keys), np.int64)
    seen = np.zeros((len(tiles), QUERIES, keys), np.bool_)
    near = None if window is None else np.zeros_like(seen)
    for row, tile in enumerate(tiles):
        count, length = tile.seen.shape
        filled = np.minimum(np.arange(QUERIES), count - 1)
        places[row], slots[row, :length] = tile.places[filled], tile.slots
        seen[row, :, :length] = tile.seen[filled]
        if near is not None and window is not None:
            close = tile.queries_at[:, None] - tile.keys_at < window
            near[row, :, :length] = (tile.seen & close)[filled]
    counts = np.array([len(tile.slots) for tile in tiles])
    sizes = np.array([len(tile.places) for tile in tiles])
    real = np.flatnonzero((np.arange(QUERIES) < sizes[:, None]).reshape(-1))
    return _tiles(places, slots, seen, near, counts, real)


def _tiles(
    places: NDArray[np.int64],
    slots: NDArray[np.int64],
    seen: NDArray[np.bool_],
    near: NDArray[np.bool_] | None,
    counts: NDArray[np.int64],
    real: NDArray[np.int64],
) -> Tiles:
    """Of one query each, seen and near may be [tiles, keys]. counts [tiles]: keys of each, most first."""
    reach = [int((counts > start).sum()) for start in range(0, slots.shape[1], KEYS)]
    shape = (*places.shape, -1)
    close = None if near is None else torch.from_numpy(near).view(shape)
    tensors = (torch.from_numpy(places), torch.from_numpy(slots), torch.from_numpy(seen).view(shape))
    return Tiles(*tensors, close, reach, torch.from_numpy(real))


def _above(parent: Node | None) -> Slots:
    """The slots of the dense runs above a row, in the order of its text."""
    return slots_of([] if parent is None else [(node.slot, node.length) for node in parent.path()])


def _whole(keys: int) -> int:
    """So many keys in whole blocks."""
    return -(-keys // KEYS) * KEYS


def _fold(q: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """[tiles, queries, heads, dim] → [tiles, kv_heads, rows, dim]: the queries of all heads that share a key head."""
    tiles, queries, heads, dim = q.shape
    rows = heads // kv_heads * queries
    folded = q.new_zeros(tiles, kv_heads, -(-rows // _ROWS) * _ROWS, dim)
    by_group = q.view(tiles, queries, kv_heads, -1, dim).permute(0, 2, 3, 1, 4)
    folded[:, :, :rows] = by_group.reshape(tiles, kv_heads, rows, dim)
    return folded


def _unfold(folded: torch.Tensor, heads: int, queries: int) -> torch.Tensor:
    """`_fold` undone."""
    tiles, kv_heads, _, dim = folded.shape
    by_group = folded[:, :, : heads // kv_heads * queries].view(tiles, kv_heads, -1, queries, dim)
    return by_group.permute(0, 3, 1, 2, 4).reshape(tiles, queries, heads, dim)


def _join(
    largest: torch.Tensor, total: torch.Tensor, summed: torch.Tensor, out: torch.Tensor, lse: torch.Tensor
) -> None:
    """Add one more block to a running softmax, in place. A block without a key that is seen changes no bit."""
    above = torch.maximum(largest, lse)
    kept, added = _exp(largest - above), _exp(lse - above)
    total.mul_(kept).add_(added)
    summed.mul_(kept[..., None]).add_(out * added[..., None])
    largest.copy_(above)


def _exp(x: torch.Tensor) -> torch.Tensor:
    """exp in whole vectors only: torch takes the tail of a loop one by one, by another function."""
    flat = functional.pad(x.reshape(-1), (0, -x.numel() % _VECTOR))
    return torch.cat([part.exp() for part in torch.split(flat, _GRAIN)])[: x.numel()].view(x.shape)
