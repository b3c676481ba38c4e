"""Attention of many queries: over a dense shared prefix, over packed rows, and over a paged cache.

For query i of head h at position p, over the keys j it may see (position t ≤ p where causal, p − t < window):
    s[j] = scale · q[i, h] · k[j, h // group],  s = softcap · tanh(s / softcap) where capped,
    lse[i, h] = log Σ exp(s[j]),  out[i, h] = Σ exp(s[j] − lse) · v[j, h // group].
Every op returns (out, lse), so that attentions over disjoint keys join by `merge_states`. Where no key is seen, out
is 0 and lse −inf. Key heads are shared by group = heads / kv_heads neighbouring query heads.
"""

from dataclasses import dataclass

import torch

from dql.kernels.attention_cpu import join_into, packed_cpu, paged_cpu, prefix_cpu
from dql.kernels.attention_kernel import attention_kernel, base_two, cache_compute_type
from dql.kernels.configs import choose, head_class, processors
from dql.kernels.kv_cache import KVCache
from dql.kernels.language import cdiv, interpreting, power_of_two, uses_triton
from dql.kernels.layout import INTEGERS, check, check_queries
from dql.kernels.merge_states import merge_states

State = tuple[torch.Tensor, torch.Tensor]
MAX_PIECES, MIN_BLOCKS = 16, 4  # of a row split over its keys, and the fewest blocks of keys of a piece
MOST_STATES = 8192  # tokens times pieces: the pieces' states are held in float32 for every token of the step
SHORT = 64  # query-head pairs of a row up to which a smaller query block is used


@dataclass(frozen=True, slots=True)
class QueryRows:
    """Which tokens of q belong together: row r is queries starts[r] … ends[r], none of them in two rows.

    starts, ends [rows] integer; longest: the most queries of a row. Query i is token i of q, or token places[i] where
    `places` [queries] integer is given.
    """

    starts: torch.Tensor
    ends: torch.Tensor
    longest: int
    places: torch.Tensor | None = None

    @classmethod
    def packed(cls, offsets: torch.Tensor, longest: int) -> "QueryRows":
        """Rows one after another: row r is offsets[r] … offsets[r + 1]."""
        rows = offsets.shape[0] - 1
        return cls(offsets.narrow(0, 0, rows), offsets.narrow(0, 1, rows), longest)

    def check(self, q: torch.Tensor) -> None:
        """Raise LayoutError unless the rows are tensors that fit each other, on q's device."""
        check("starts", self.starts, (None,), dtypes=INTEGERS, like=q)
        check("ends", self.ends, (self.starts.shape[0],), dtypes=(self.starts.dtype,), like=q)
        if self.places is not None:
            check("places", self.places, (None,), dtypes=INTEGERS, like=q)


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
        rows = QueryRows.packed(offsets, max_length)
        return _launch(q, k, v, None, rows, None, None, None, None, None, scale, causal, window, softcap, None, False)
    return packed_cpu(q, k, v, offsets, scale, causal, window, softcap)


def prefix_attention(
    q: torch.Tensor,
    cache: KVCache,
    rows: QueryRows,
    key_starts: torch.Tensor,
    key_lengths: torch.Tensor,
    *,
    max_length: int,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    positions: torch.Tensor | None = None,
    key_positions: torch.Tensor | None = None,
    joined: State | None = None,
) -> State:
    """Groups of rows over the text they share: every query of group g over the same dense run of slots.

    Group g is row g of `rows`, over slots key_starts[g] … + key_lengths[g] (max_length the longest), all of which lie
    before the queries. A window also needs positions [tokens] and key_positions [groups], the absolute positions of the
    tokens of q and of each run's first key. With `joined`, an attention of the same tokens over other keys, the groups'
    queries are joined to it in place, by log-sum-exp, and few queries are split over their keys so that they fill the
    device; without it, tokens outside the groups are left unwritten.
    """
    groups = rows.starts.shape[0]
    check_queries(q, cache.k.shape[1])
    rows.check(q)
    for name, tensor in (("key_starts", key_starts), ("key_lengths", key_lengths)):
        check(name, tensor, (groups,), dtypes=INTEGERS, like=q)
    if window is not None and (positions is None or key_positions is None):
        raise TypeError("a window needs positions and key_positions")
    if uses_triton(q):
        stretch = None if joined is None else _stretch(q, cache, rows, max_length)
        return _launch(
            q, cache.k, cache.v, cache, rows, key_starts, key_lengths, None, positions, key_positions,
            scale, False, window, softcap, joined, joined is not None, stretch, max_length,
        )  # fmt: skip
    parts = prefix_cpu(
        q, cache, rows.starts, rows.ends, rows.places, key_starts, key_lengths, scale, window, softcap,
        positions, key_positions,
    )  # fmt: skip
    return join_into(parts, q, joined, joined is not None)


def paged_attention(
    q: torch.Tensor,
    cache: KVCache,
    rows: QueryRows,
    slots: torch.Tensor,
    key_lengths: torch.Tensor,
    *,
    scale: float,
    window: int | None = None,
    softcap: float | None = None,
    into: State | None = None,
) -> State:
    """Prefill chunks over a cache: causal, each row's queries being the last of its keys, already stored.

    Row r sees the cache's slots[r, :key_lengths[r]], slots [rows, width] int32; or where slots is [rows], the dense run
    slots[r] … + key_lengths[r]. `into`: where the rows' results go, other tokens untouched.
    """
    check_queries(q, cache.k.shape[1])
    rows.check(q)
    count = rows.starts.shape[0]
    check("slots", slots, (count, None) if slots.ndim == 2 else (count,), dtypes=INTEGERS, like=q, contiguous=False)
    check("key_lengths", key_lengths, (count,), dtypes=INTEGERS, like=q)
    if uses_triton(q):
        starts, table = (key_lengths, slots) if slots.ndim == 2 else (slots, None)
        return _launch(
            q, cache.k, cache.v, cache, rows, starts, key_lengths, table, None, None,
            scale, True, window, softcap, into, False,
        )  # fmt: skip
    parts = paged_cpu(q, cache, slots, rows.starts, rows.ends, rows.places, key_lengths, scale, window, softcap)
    return join_into(parts, q, into, False)


def _launch(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    cache: KVCache | None,
    rows: QueryRows,
    key_starts: torch.Tensor | None,
    key_lengths: torch.Tensor | None,
    slots: torch.Tensor | None,
    positions: torch.Tensor | None,
    key_positions: torch.Tensor | None,
    scale: float,
    causal: bool,
    window: int | None,
    softcap: float | None,
    state: State | None,
    resumed: bool,
    stretch: int | None = None,
    max_length: int = 0,
) -> State:
    """One program a row, key head and block of queries. Pointers a variant does not read stand in for absent ones.

    stretch: keys of a piece, where rows are split over keys; the pieces' states are joined to `state` at the end.
    """
    (_, heads, head_dim), kv_heads = q.shape, k.shape[1]
    if state is None:
        state = torch.empty(q.shape, dtype=q.dtype, device=q.device), torch.empty(q.shape[:2], device=q.device)
    check("out", state[0], tuple(q.shape), dtypes=(q.dtype,), like=q)
    check("lse", state[1], tuple(q.shape[:2]), dtypes=(torch.float32,), like=q)
    scaled = cache is not None and cache.k_scales is not None
    if scaled and q.dtype == torch.bfloat16 and not interpreting():
        q = q.to(torch.float16)  # what the products take over an fp8 cache; in the kernel it would cost registers
    group, block_d = heads // kv_heads, power_of_two(max(head_dim, 16))
    length = "short" if rows.longest * group <= SHORT else "long"
    config = choose("attention", f"{length} {head_class(head_dim, scaled)}")
    pieces = 1 if stretch is None else cdiv(max_length, stretch)
    into = state if stretch is None else _parts(state, pieces)
    grid = (pieces * rows.starts.shape[0], kv_heads, cdiv(rows.longest * group, config.blocks["BLOCK_M"]))
    factor, cap = base_two(scale, softcap)
    attention_kernel[grid](
        q, k, v, cache.k_scales if scaled and cache else q, cache.v_scales if scaled and cache else q, *into,
        rows.starts, rows.ends,
        *(rows.starts if x is None else x for x in (rows.places, key_starts, key_lengths)),
        *(rows.starts if x is None else x for x in (slots, positions, key_positions)),
        q.stride(0), k.stride(0), v.stride(0), 0 if slots is None else slots.stride(0), kv_heads,
        factor, cap, 0 if window is None else window, stretch or 0, pieces, state[1].numel(),
        HEAD_DIM=head_dim, GROUP=group, OWN_KEYS=key_starts is None, SPLIT=stretch is not None,
        PLACED=rows.places is not None, RESUMED=resumed and stretch is None, PAGED=slots is not None, CAUSAL=causal,
        WINDOW=window is not None, CAPPED=softcap is not None, SCALED=scaled,
        COMPUTE=cache_compute_type(q.dtype, scaled), BLOCK_D=block_d, **config.options(),
    )  # fmt: skip
    if stretch is not None:
        merge_states(*state, *into)
    return state


def _stretch(q: torch.Tensor, cache: KVCache, rows: QueryRows, max_length: int) -> int | None:
    """Keys of a piece, so that every processor has a program; None where whole rows are enough of them."""
    (_, heads, head_dim), kv_heads = q.shape, cache.k.shape[1]
    queries, scaled = rows.longest * heads // kv_heads, cache.k_scales is not None
    config = choose("attention", f"{'short' if queries <= SHORT else 'long'} {head_class(head_dim, scaled)}")
    block = config.blocks["BLOCK_N"]
    programs = rows.starts.shape[0] * kv_heads * cdiv(queries, config.blocks["BLOCK_M"])
    pieces = min(processors() // programs, cdiv(max_length, MIN_BLOCKS * block), MAX_PIECES, MOST_STATES // q.shape[0])
    return cdiv(cdiv(max_length, pieces), block) * block if pieces > 1 else None


def _parts(state: State, pieces: int) -> State:
    """Room for the states of so many pieces; tokens that none of them writes have seen nothing."""
    out, lse = state
    parts = torch.empty((pieces, *out.shape), device=out.device)
    return parts, torch.full((pieces, *lse.shape), -torch.inf, device=lse.device)
