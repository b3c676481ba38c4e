"""Attention of many queries: over a dense shared prefix, over packed rows, and over a paged cache.

For query i of head h at position p, over the keys j it may see (position t ≤ p where causal, p − t < window):
    s[j] = scale · q[i, h] · k[j, h // group],  s = softcap · tanh(s / softcap) where capped,
    lse[i, h] = log Σ exp(s[j]),  out[i, h] = Σ exp(s[j] − lse) · v[j, h // group].
Every op returns (out, lse), so that attentions over disjoint keys join by `merge_states`. Where no key is seen, out
is 0 and lse −inf. Key heads are shared by group = heads / kv_heads neighbouring query heads.
"""

import torch

from dql.kernels.attention_cpu import packed_cpu, paged_cpu, prefix_cpu
from dql.kernels.attention_kernel import attention_kernel, base_two, cache_compute_type
from dql.kernels.configs import choose, head_class
from dql.kernels.kv_cache import KVCache
from dql.kernels.language import cdiv, interpreting, power_of_two, uses_triton
from dql.kernels.layout import INTEGERS, check, check_queries

State = tuple[torch.Tensor, torch.Tensor]
SHORT = 64  # query-head pairs of a row up to which a smaller query block is used


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
    check_queries(q, k.shape[1])
    check("k", k, (q.shape[0], None, q.shape[2]), dtypes=(q.dtype,), like=q, contiguous=False)
    check("v", v, tuple(k.shape), dtypes=(q.dtype,), like=q, contiguous=False)
    check("offsets", offsets, (None,), dtypes=INTEGERS, like=q)
    if uses_triton(q):
        return _launch(
            q, k, v, None, offsets, None, None, None, None, None, max_length, scale, causal, window, softcap
        )  # fmt: skip
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
    check_queries(q, cache.k.shape[1])
    for name, tensor in (("key_starts", key_starts), ("key_lengths", key_lengths)):
        check(name, tensor, (groups,), dtypes=INTEGERS, like=q)
    if window is not None and (positions is None or key_positions is None):
        raise TypeError("a window needs positions and key_positions")
    if uses_triton(q):
        return _launch(
            q, cache.k, cache.v, cache, query_offsets, key_starts, key_lengths, None, positions, key_positions,
            max_queries, scale, False, window, softcap,
        )  # fmt: skip
    return prefix_cpu(
        q, cache, query_offsets, key_starts, key_lengths, scale, window, softcap, positions, key_positions
    )  # fmt: skip


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
    check_queries(q, cache.k.shape[1])
    check("slots", slots, (rows, None), dtypes=INTEGERS, like=q, contiguous=False)
    check("key_lengths", key_lengths, (rows,), dtypes=INTEGERS, like=q)
    if uses_triton(q):
        return _launch(
            q, cache.k, cache.v, cache, query_offsets, key_lengths, key_lengths, slots, None, None,
            max_queries, scale, True, window, softcap,
        )  # fmt: skip
    return paged_cpu(q, cache, slots, query_offsets, key_lengths, scale, window, softcap)


def _launch(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cache: KVCache | None,
    query_offsets: torch.Tensor,
    key_starts: torch.Tensor | None,
    key_lengths: torch.Tensor | None,
    slots: torch.Tensor | None,
    positions: torch.Tensor | None,
    key_positions: torch.Tensor | None,
    max_queries: int,
    scale: float,
    causal: bool,
    window: int | None,
    softcap: float | None,
) -> State:
    """One program a row, key head and block of queries. Pointers a variant does not read stand in for absent ones."""
    (_, heads, head_dim), kv_heads = q.shape, k.shape[1]
    out = torch.empty(q.shape, dtype=q.dtype, device=q.device)
    lse = torch.empty(q.shape[:2], device=q.device)
    scaled = cache is not None and cache.k_scales is not None
    if scaled and q.dtype == torch.bfloat16 and not interpreting():
        q = q.to(torch.float16)  # what the products take over an fp8 cache; in the kernel it would cost registers
    group, block_d = heads // kv_heads, power_of_two(max(head_dim, 16))
    length = "short" if max_queries * group <= SHORT else "long"
    config = choose("attention", f"{length} {head_class(head_dim, scaled)}")
    grid = (query_offsets.shape[0] - 1, kv_heads, cdiv(max_queries * group, config.blocks["BLOCK_M"]))
    factor, cap = base_two(scale, softcap)
    attention_kernel[grid](
        q, k, v, cache.k_scales if scaled and cache else q, cache.v_scales if scaled and cache else q, out, lse,
        query_offsets, *(query_offsets if x is None else x for x in (key_starts, key_lengths)),
        *(query_offsets if x is None else x for x in (slots, positions, key_positions)),
        q.stride(0), k.stride(0), v.stride(0), 0 if slots is None else slots.stride(0), kv_heads,
        factor, cap, 0 if window is None else window,
        HEAD_DIM=head_dim, GROUP=group, OWN_KEYS=key_starts is None, PAGED=slots is not None, CAUSAL=causal,
        WINDOW=window is not None, CAPPED=softcap is not None, SCALED=scaled,
        COMPUTE=cache_compute_type(q.dtype, scaled), BLOCK_D=block_d, **config.options(),
    )  # fmt: skip
    return out, lse
