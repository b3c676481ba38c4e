"""What the tokens of one step attend to, prepared once and used by every layer.

Each token sees three kinds of keys, attended to apart and joined by log-sum-exp:
- its own row (with short shared runs above it), rows of similar length padded to one batch;
- for decoding rows, the row's lane in a slab, read in place;
- dense shared runs, every query below a run in one product over the same keys.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from dql.kernels.fused_cpu import HIDDEN, attend_dense, attend_padded
from dql.kernels.kv_cache import KVCache
from dql.kernels.shared_cpu import join_shared, products_pay

Rows = slice | torch.Tensor  # places of tokens in the step


@dataclass(frozen=True, slots=True)
class Bias:
    """Additive masks of full and of sliding layers; `sliding` is None where the window cuts nothing off."""

    full: torch.Tensor
    sliding: torch.Tensor | None = None

    def at(self, window: int | None) -> torch.Tensor:
        return self.full if window is None or self.sliding is None else self.sliding


@dataclass(frozen=True, slots=True)
class PaddedRows:
    """Rows of similar length: token places [rows, queries], slots [rows, keys], and which queries are real."""

    places: torch.Tensor
    slots: torch.Tensor
    bias: Bias
    real: torch.Tensor  # int64 [n]: places in the flattened [rows · queries]
    targets: torch.Tensor  # int64 [n]: the same tokens in the step


@dataclass(frozen=True, slots=True)
class LongRow:
    """One long run of tokens over itself: `places` in the step, keys from slot `start`, causal."""

    places: slice
    start: int
    sliding: torch.Tensor | None


@dataclass(frozen=True, slots=True)
class SlabRows:
    """Decoding rows of one slab: tokens `places`, up to `queries` of a lane, of the first `count` lanes.

    at: where each token stands in the flattened [lanes · queries]; None where all of these are there, in order.
    """

    places: slice
    start: int
    width: int
    count: int
    queries: int
    longest: int
    at: torch.Tensor | None
    bias: Bias


@dataclass(frozen=True, slots=True)
class SharedRun:
    """Tokens `rows` over the slots start … start + length − 1, all of which precede them.

    final: none of the tokens is in a later run of the step.
    """

    rows: Rows
    start: int
    length: int
    sliding: torch.Tensor | None = None
    final: bool = False


@dataclass(frozen=True, slots=True)
class StepAttention:
    """Attention of one step. Every token lies in exactly one padded, long or slab part, and in any number of runs."""

    padded: Sequence[PaddedRows]
    long: Sequence[LongRow]
    slabs: Sequence[SlabRows]
    shared: Sequence[SharedRun]
    scale: float
    softcap: float | None

    def __call__(self, q: torch.Tensor, cache: KVCache, *, window: int | None) -> torch.Tensor:
        """q [tokens, heads, head_dim] → [tokens, heads · head_dim]; the step's keys are in `cache` already."""
        out = torch.empty(q.shape, dtype=q.dtype)
        lse = torch.empty(q.shape[:2])
        for padded in self.padded:
            self._padded(padded, q, cache, window, out, lse)
        for row in self.long:
            self._long(row, q, cache, window, out, lse)
        for slab in self.slabs:
            self._slab(slab, q, cache, window, out, lse)
        for run in self.shared:
            self._shared(run, q, cache, window, out, lse)
        return out.flatten(1)

    def _padded(
        self,
        part: PaddedRows,
        q: torch.Tensor,
        cache: KVCache,
        window: int | None,
        out: torch.Tensor,
        lse: torch.Tensor,
    ) -> None:
        k, v = (x.view(*part.slots.shape, *x.shape[1:]) for x in cache.dense(part.slots.view(-1)))
        queries = q.index_select(0, part.places.view(-1)).view(*part.places.shape, *q.shape[1:])
        state = attend_padded(queries, k, v, part.bias.at(window), self.scale, self.softcap)
        for target, padded in zip((out, lse), state, strict=True):
            target.index_copy_(0, part.targets, padded.flatten(0, 1).index_select(0, part.real))

    def _long(
        self, row: LongRow, q: torch.Tensor, cache: KVCache, window: int | None, out: torch.Tensor, lse: torch.Tensor
    ) -> None:
        count = row.places.stop - row.places.start
        k, v = cache.dense(slice(row.start, row.start + count))
        bias = None if window is None else row.sliding
        state = attend_dense(q[row.places], k, v, bias, self.scale, self.softcap, causal=bias is None)
        out[row.places], lse[row.places] = state

    def _slab(
        self, slab: SlabRows, q: torch.Tensor, cache: KVCache, window: int | None, out: torch.Tensor, lse: torch.Tensor
    ) -> None:
        k, v = cache.dense(slice(slab.start, slab.start + slab.count * slab.width))
        k, v = (x.view(slab.count, slab.width, *x.shape[1:])[:, : slab.longest] for x in (k, v))
        queries = q[slab.places]
        if slab.at is not None:
            spread = queries.new_zeros(slab.count * slab.queries, *queries.shape[1:])
            spread[slab.at] = queries
            queries = spread
        queries = queries.view(slab.count, slab.queries, *q.shape[1:])
        state = attend_padded(queries, k, v, slab.bias.at(window), self.scale, self.softcap)
        for target, padded in zip((out, lse), state, strict=True):
            part = padded.flatten(0, 1)
            target[slab.places] = part if slab.at is None else part[slab.at]

    def _shared(
        self, run: SharedRun, q: torch.Tensor, cache: KVCache, window: int | None, out: torch.Tensor, lse: torch.Tensor
    ) -> None:
        k, v = cache.dense(slice(run.start, run.start + run.length))
        bias = None if window is None else run.sliding
        own, own_lse = out[run.rows], lse[run.rows]
        if run.final and bias is None and self._by_products(q, k, len(own)):
            join_shared(q[run.rows], k, v, own, own_lse, self.scale)
            if not isinstance(run.rows, slice):
                out[run.rows] = own
            return
        other, other_lse = attend_dense(q[run.rows], k, v, bias, self.scale, self.softcap)
        own.lerp_(other, torch.sigmoid(other_lse - own_lse)[..., None])
        if not isinstance(run.rows, slice):
            out[run.rows] = own
        lse[run.rows] = torch.logaddexp(own_lse, other_lse)

    def _by_products(self, q: torch.Tensor, k: torch.Tensor, tokens: int) -> bool:
        """Whether so many tokens' attention to the keys k [keys, kv_heads, dim] runs as plain products."""
        plain = self.softcap is None and k.dtype == q.dtype == torch.float32
        return plain and products_pay(tokens * q.shape[1] // k.shape[1], len(k))


def padded_bias(
    hidden: torch.Tensor, keys: int, visible: torch.Tensor, depths: torch.Tensor, group: int, window: int | None
) -> Bias:
    """Masks of padded rows, whose last keys are those of the queries; the first `hidden` [rows] of a row are not its.

    Query i sees all keys before the queries', of these key j where visible[i, j] [queries, queries], and it stands
    depths[i] after the first of them.
    """
    before = keys - len(depths)
    seen = torch.nn.functional.pad(visible, (before, 0), value=True)  # [queries, keys]
    seen = seen & (torch.arange(keys) >= hidden[:, None])[:, None]
    full = _additive(seen, group)
    if window is None:
        return Bias(full)
    near = seen & (depths[:, None] - torch.cat((torch.arange(-before, 0), depths)) < window)
    return Bias(full, None if bool((near == seen).all()) else _additive(near, group))


def _additive(seen: torch.Tensor, group: int) -> torch.Tensor:
    """bool [rows, queries, keys] → float32 [rows, 1, group · queries, keys], 0 or HIDDEN."""
    bias = torch.where(seen, 0.0, HIDDEN)
    return bias[:, None].expand(-1, group, -1, -1).reshape(len(bias), 1, -1, bias.shape[-1])


def run_bias(positions: torch.Tensor, first: int, length: int, window: int | None) -> torch.Tensor | None:
    """Mask [queries, length] of a sliding layer over keys at positions first…; None where the window hides none."""
    if window is None or int(positions.max()) - first < window:
        return None
    distance = positions[:, None] - torch.arange(first, first + length)
    return torch.where((distance >= 0) & (distance < window), 0.0, HIDDEN)
