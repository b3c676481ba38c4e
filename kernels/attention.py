"""Attention of many queries: over a dense shared prefix, over packed rows, and over a paged cache.

For query i of head h at position p, over the keys j it may see (position t ≤ p where causal, p − t < window):
    s[j] = scale · q[i, h] · k[j, h // group],  s = softcap · tanh(s / softcap) where capped,
    lse[i, h] = log Σ exp(s[j]),  out[i, h] = Σ exp(s[j] − lse) · v[j, h // group].
Every op returns (out, lse), so that attentions over disjoint keys join by `merge_states`. Where no key is seen, out
is 0 and lse −inf. Key heads are shared by group = heads / kv_heads neighbouring query heads.
"""

from __future__ import annotations

import torch

from dql.kernels.attention_cpu import attend_rows, packed_cpu, padded_keys
from dql.kernels.kv_cache import KVCache
from dql.kernels.layout import FLOATS, INTEGERS, check

State = tuple[torch.Tensor, torch.Tensor]


def packed_attention(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    offsets: torch.Tensor,
    *,
    max_length: int,
    scale: float,
    causal: bool = True,
    window: int | None = None,
    softcap: float | None = None,
) -> State:
    """Each row over its own tokens: q [tokens, heads, head_dim], k, v [tokens, kv_heads, head_dim], no padding.

    Row r is tokens offsets[r]…offsets[r+1] (offsets [rows + 1] integer, max_length the longest row); q, k, v may be
    views into a fused projection. Returns out [tokens, heads, head_dim] in q's dtype, lse [tokens, heads] float32.
    """
    _check_queries(q, k.shape[1])
    check("k", k, (q.shape[0], None, q.shape[2]), dtypes=(q.dtype,), like=q, contiguous=False)
    check("v", v, tuple(k.shape), dtypes=(q.dtype,), like=q, contiguous=False)
    check("offsets", offsets, (None,), dtypes=INTEGERS, like=q)
    return packed_cpu(q, k, v, offsets, scale, causal, window, softcap)


def prefix_attention(
    q: torch.Tensor,
    cache: KVCache,
    query_offsets: torch.Tensor,
    key_starts: torch.Tensor,
    key_lengths: torch.Tensor,
    *,
    max_queries: int,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    positions: torch.Tensor | None = None,
    key_positions: torch.Tensor | None = None,
) -> State:
    """Groups of rows over the text they share: every query of group g over the same dense run of slots.

    Group g is queries query_offsets[g]…query_offsets[g+1] of q [tokens, heads, head_dim] (max_queries the largest
    group) over slots key_starts[g] … + key_lengths[g], all of which lie before the queries. A window also needs
    positions [tokens] and key_positions [groups], the absolute positions of the queries and of each run's first key.
    """
    groups = query_offsets.shape[0] - 1
    _check_queries(q, cache.k.shape[1])
    for name, tensor in (("key_starts", key_starts), ("key_lengths", key_lengths)):
        check(name, tensor, (groups,), dtypes=INTEGERS, like=q)
    if window is not None and (positions is None or key_positions is None):
        raise TypeError("a window needs positions and key_positions")
    out, lse = _empty_state(q)
    bounds, starts, lengths = query_offsets.tolist(), key_starts.tolist(), key_lengths.tolist()
    for group in range(groups):
        rows = slice(bounds[group], bounds[group + 1])
        if rows.start == rows.stop:
            continue
        k, v = cache.dense(slice(starts[group], starts[group] + lengths[group]))
        seen = None
        if window is not None and positions is not None and key_positions is not None:
            at = key_positions[group] + torch.arange(lengths[group])
            seen = (positions[rows, None] - at < window)[None]
        out[rows], lse[rows] = (x[0] for x in attend_rows(q[None, rows], k[None], v[None], seen, scale, softcap))
    return out, lse


def paged_attention(
    q: torch.Tensor,
    cache: KVCache,
    slots: torch.Tensor,
    query_offsets: torch.Tensor,
    key_lengths: torch.Tensor,
    *,
    max_queries: int,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
) -> State:
    """A prefill chunk over a paged cache: causal, each row's queries being the last of its keys.

    Row r is queries query_offsets[r]…query_offsets[r+1] of q [tokens, heads, head_dim] (max_queries the largest row)
    over the cache's slots[r, :key_lengths[r]], slots [rows, width] int32, the chunk's own tokens already stored.
    """
    rows = query_offsets.shape[0] - 1
    _check_queries(q, cache.k.shape[1])
    check("slots", slots, (rows, None), dtypes=INTEGERS, like=q, contiguous=False)
    check("key_lengths", key_lengths, (rows,), dtypes=INTEGERS, like=q)
    out, lse = _empty_state(q)
    bounds = query_offsets.tolist()
    for row in range(rows):  # chunks are few and long: one dense product each
        queries, length = slice(bounds[row], bounds[row + 1]), int(key_lengths[row])
        if queries.start == queries.stop:
            continue
        k, v = cache.dense(slots[row, :length].long())
        distance = torch.arange(length - (queries.stop - queries.start), length)[:, None] - torch.arange(length)
        seen = (distance >= 0) if window is None else (distance >= 0) & (distance < window)
        state = attend_rows(q[None, queries], k[None], v[None], seen[None], scale, softcap)
        out[queries], lse[queries] = (x[0] for x in state)
    return out, lse


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
) -> State:
    """One query a row, its last token, over the row's slots: q [rows, heads, head_dim].

    Row r sees the cache's slots[r, :key_lengths[r]] (slots [rows, width ≥ max_length] int32, max_length the longest);
    with a window, the last `window` of them. A row of length 0 has out 0 and lse −inf.
    """
    _check_queries(q, cache.k.shape[1])
    check("slots", slots, (q.shape[0], None), dtypes=INTEGERS, like=q, contiguous=False)
    check("key_lengths", key_lengths, (q.shape[0],), dtypes=INTEGERS, like=q)
    first = torch.zeros_like(key_lengths) if window is None else (key_lengths - window).clamp_min(0)
    at = torch.arange(max_length)
    seen = (at < key_lengths[:, None]) & (at >= first[:, None])
    k, v = padded_keys(cache, slots[:, :max_length], seen)
    out, lse = attend_rows(q[:, None], k, v, seen[:, None], scale, softcap)
    return out[:, 0].to(q.dtype), lse[:, 0]


def _check_queries(q: torch.Tensor, kv_heads: int) -> None:
    check("q", q, (None, None, None), dtypes=FLOATS, contiguous=False)
    if q.shape[1] % kv_heads:
        raise TypeError(f"{q.shape[1]} query heads do not share {kv_heads} key heads evenly")


def _empty_state(q: torch.Tensor) -> State:
    return torch.empty(q.shape, dtype=q.dtype, device=q.device), torch.empty(q.shape[:2], device=q.device)
