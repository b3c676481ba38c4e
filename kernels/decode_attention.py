"""Attention of one query a row over its paged keys, split over the keys so that few long rows fill the device.

The formula is `attention.py`'s, the query standing at the row's last key. Each program reduces one stretch of
keys_per_split keys to (out, lse); a second kernel joins the stretches by log-sum-exp, always in the same order.
"""

import torch

from dql.kernels.attention_cpu import attend_rows
from dql.kernels.attention_kernel import accumulate, base_two, cache_compute_type, finish, load_heads, scores_of
from dql.kernels.configs import Config, choose, head_class, processors
from dql.kernels.kv_cache import KVCache
from dql.kernels.language import Pointer, Scalar, cdiv, constexpr, jit, power_of_two, tl, uses_triton
from dql.kernels.layout import INTEGERS, check, check_queries

MAX_SPLITS = 32


def decode_attention(
    q: torch.Tensor,
    cache: KVCache,
    slots: torch.Tensor,
    key_lengths: torch.Tensor,
    *,
    max_length: int,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    keys_per_split: int | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """q [rows, heads, head_dim] → out like q, lse [rows, heads] float32.

    Row r sees the cache's slots[r, :key_lengths[r]] (slots [rows, width] int32, width ≥ max_length, the longest), or
    where slots is [rows], the dense run slots[r] … + key_lengths[r]; with a window, its last `window` keys. A row of
    length 0 has out 0 and lse −inf. keys_per_split None fits the stretch to the load; a fixed one makes a row's result
    independent of the rows beside it.
    """
    check_queries(q, cache.k.shape[1])
    shape = (q.shape[0], None) if slots.ndim == 2 else (q.shape[0],)
    check("slots", slots, shape, dtypes=INTEGERS, like=q, contiguous=False)
    check("key_lengths", key_lengths, (q.shape[0],), dtypes=INTEGERS, like=q)
    if uses_triton(q):
        return _triton(q, cache, slots, key_lengths, max_length, scale, window, softcap, keys_per_split)
    return _cpu(q, cache, slots, key_lengths, max_length, scale, window, softcap)


def _cpu(
    q: torch.Tensor,
    cache: KVCache,
    slots: torch.Tensor,
    key_lengths: torch.Tensor,
    max_length: int,
    scale: float,
    window: int | None,
    softcap: float | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    at = torch.arange(max_length)
    seen = at < key_lengths[:, None]
    if window is not None:
        seen &= at >= key_lengths[:, None] - window
    table = slots[:, :max_length] if slots.ndim == 2 else slots[:, None] + at
    k, v = cache.dense(table.where(seen, 0).long())
    out, lse = attend_rows(q[:, None], k, v, seen[:, None], scale, softcap)
    return out[:, 0].to(q.dtype), lse[:, 0]


def _keys_per_split(rows: int, kv_heads: int, max_length: int, block: int) -> int:
    """Stretches that give every processor two programs, but none shorter than four blocks of keys."""
    wanted = min(MAX_SPLITS, cdiv(2 * processors(), rows * kv_heads))
    return max(4, cdiv(cdiv(max_length, wanted), block)) * block


def _triton(
    q: torch.Tensor,
    cache: KVCache,
    slots: torch.Tensor,
    key_lengths: torch.Tensor,
    max_length: int,
    scale: float,
    window: int | None,
    softcap: float | None,
    keys_per_split: int | None,
) -> tuple[torch.Tensor, torch.Tensor]:
    (rows, heads, head_dim), kv_heads = q.shape, cache.k.shape[1]
    block_d, paged, scaled = power_of_two(max(head_dim, 16)), slots.ndim == 2, cache.k_scales is not None
    config = choose("decode_attention", head_class(head_dim, scaled) + ("" if paged else " dense"))
    reach = max_length if window is None else min(max_length, window)
    stretch = keys_per_split or _keys_per_split(rows, kv_heads, reach, config.blocks["BLOCK_N"])
    splits = max(1, cdiv(reach, stretch))
    single = splits == 1
    parts = torch.empty((splits, rows, heads, head_dim), dtype=q.dtype if single else torch.float32, device=q.device)
    part_lse = torch.empty((splits, rows, heads), device=q.device)
    factor, cap = base_two(scale, softcap)
    _kernel[(rows, kv_heads, splits)](
        q, cache.k, cache.v, q if cache.k_scales is None else cache.k_scales,
        q if cache.v_scales is None else cache.v_scales, parts, part_lse, slots, key_lengths,
        q.stride(0), slots.stride(0) if paged else 0, rows, kv_heads, factor, cap,
        0 if window is None else window, stretch,
        HEAD_DIM=head_dim, GROUP=heads // kv_heads, WINDOW=window is not None, CAPPED=softcap is not None,
        PAGED=paged, SCALED=scaled, COMPUTE=cache_compute_type(q.dtype, scaled),
        BLOCK_M=max(16, power_of_two(heads // kv_heads)), BLOCK_D=block_d, **config.options(),
    )  # fmt: skip
    if single:
        return parts.view(q.shape), part_lse.view(rows, heads)
    return _join(q, parts, part_lse, choose("join_splits", "any"))


def _join(
    q: torch.Tensor, parts: torch.Tensor, part_lse: torch.Tensor, config: Config
) -> tuple[torch.Tensor, torch.Tensor]:
    splits, rows, heads, head_dim = parts.shape
    out = torch.empty((rows, heads, head_dim), dtype=q.dtype, device=q.device)
    lse = torch.empty((rows, heads), device=q.device)
    _join_kernel[(rows * heads,)](
        parts, part_lse, out, lse, splits, rows * heads, head_dim,
        BLOCK_S=max(MAX_SPLITS, power_of_two(splits)), BLOCK_D=power_of_two(head_dim), **config.options(),
    )  # fmt: skip
    return out, lse


@jit(do_not_specialize=["rows", "scale", "softcap", "window", "stretch"])
def _kernel(
    q: Pointer, k: Pointer, v: Pointer, k_scales: Pointer, v_scales: Pointer, parts: Pointer, part_lse: Pointer,
    slots: Pointer, key_lengths: Pointer,
    q_stride: Scalar, slots_stride: Scalar, rows: Scalar, kv_heads: Scalar,
    scale: Scalar, softcap: Scalar, window: Scalar, stretch: Scalar,
    HEAD_DIM: constexpr, GROUP: constexpr, WINDOW: constexpr, CAPPED: constexpr, PAGED: constexpr, SCALED: constexpr,
    COMPUTE: constexpr, BLOCK_M: constexpr, BLOCK_N: constexpr, BLOCK_D: constexpr,
) -> None:  # fmt: skip
    row, kv_head, split = tl.program_id(0).to(tl.int64), tl.program_id(1), tl.program_id(2)
    length = tl.load(key_lengths + row)
    first = tl.maximum(length - window, 0) if WINDOW else 0
    begin = first + split * stretch
    end = tl.minimum(begin + stretch, length)
    member, channel = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_D)
    head = kv_head * GROUP + member
    real = member < GROUP
    inside = real[:, None] & (channel < HEAD_DIM)[None, :]
    query = tl.load(q + row * q_stride + head[:, None] * HEAD_DIM + channel, mask=inside, other=0.0).to(COMPUTE)
    out = tl.zeros((BLOCK_M, BLOCK_D), tl.float32)
    largest = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    total = tl.zeros((BLOCK_M,), tl.float32)
    for tile in range(begin, end, BLOCK_N):
        key = tile + tl.arange(0, BLOCK_N)
        present = key < end
        # keys beyond the end read the stretch's last one, and are masked as scores: no load needs a mask for them
        near = tl.minimum(key, end - 1)
        slot = (tl.load(slots + row * slots_stride + near) if PAGED else tl.load(slots + row) + near).to(tl.int64)
        at = slot * kv_heads + kv_head
        keys = load_heads(k + at[:, None] * HEAD_DIM + channel[None, :], channel, HEAD_DIM, BLOCK_D)
        values = load_heads(v + at[:, None] * HEAD_DIM + channel[None, :], channel, HEAD_DIM, BLOCK_D)
        scores = scores_of(query, keys, k_scales, at, scale, softcap, CAPPED, SCALED, COMPUTE)
        scores = tl.where(present[None, :], scores, float("-inf"))
        out, largest, total = accumulate(scores, values, v_scales, at, out, largest, total, SCALED, COMPUTE)
    state = (split * rows + row) * kv_heads * GROUP + head
    result, log_sum = finish(out, largest, total, SCALED)
    tl.store(parts + state[:, None] * HEAD_DIM + channel, result.to(parts.dtype.element_ty), mask=inside)
    tl.store(part_lse + state, log_sum, mask=real)


@jit(do_not_specialize=["splits", "states"])
def _join_kernel(
    parts: Pointer, part_lse: Pointer, out: Pointer, lse: Pointer, splits: Scalar, states: Scalar, head_dim: Scalar,
    BLOCK_S: constexpr, BLOCK_D: constexpr,
) -> None:  # fmt: skip
    state = tl.program_id(0).to(tl.int64)
    split, channel = tl.arange(0, BLOCK_S), tl.arange(0, BLOCK_D)
    sums = tl.load(part_lse + split * states + state, mask=split < splits, other=float("-inf"))
    largest = tl.max(sums)
    shares = tl.exp(sums - tl.where(largest == float("-inf"), 0.0, largest))
    total = tl.sum(shares)
    safe = tl.where(total == 0.0, 1.0, total)
    inside = (split < splits)[:, None] & (channel < head_dim)[None, :]
    value = tl.load(parts + (split * states + state)[:, None] * head_dim + channel, mask=inside, other=0.0)
    mean = tl.sum(value * (shares / safe)[:, None], axis=0)
    tl.store(out + state * head_dim + channel, mean.to(out.dtype.element_ty), mask=channel < head_dim)
    tl.store(lse + state, tl.where(total == 0.0, float("-inf"), largest + tl.log(safe)))
