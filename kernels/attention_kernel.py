"""The tile loop of attention over many queries: flash attention with the heads of one key head packed into the rows.

A program holds BLOCK_M (query, head) pairs of one row and one key head, token-major, so that every key tile is read
once for all heads that share it. Keys lie at slot start + j (dense) or slots[row, j] (paged). Scores are kept in
base 2, log2(e) folded into the scale, so that the exponential is exp2.
"""

from typing import Any

import torch

from dql.kernels.device import tanh
from dql.kernels.language import Block, Pointer, Scalar, compute_type, constexpr, jit, tl

LOG2_E = 1.4426950408889634


def base_two(scale: float, softcap: float | None) -> tuple[float, float]:
    """(scale, softcap) as the kernels take them: scale · log2 e, or with a cap tanh's inner and outer factors."""
    return (scale * LOG2_E, 0.0) if softcap is None else (scale / softcap, softcap * LOG2_E)


def cache_compute_type(dtype: torch.dtype, quantised: bool) -> Any:
    """The products' type: the queries' own, but float16 over an fp8 cache: its codes widen to it in one instruction."""
    return compute_type(torch.float16 if quantised and dtype == torch.bfloat16 else dtype)


@jit()
def load_heads(at: Block, channel: Block, HEAD_DIM: constexpr, BLOCK_D: constexpr) -> Block:
    """Keys or values [BLOCK_N, BLOCK_D], zero beyond the head's dimension."""
    if HEAD_DIM == BLOCK_D:
        return tl.load(at)
    return tl.load(at, mask=(channel < HEAD_DIM)[None, :], other=0.0)


@jit()
def scores_of(
    q: Block, k: Block, k_scales: Pointer, scale_at: Block, scale: Scalar, softcap: Scalar,
    CAPPED: constexpr, SCALED: constexpr, COMPUTE: constexpr,
) -> Block:  # fmt: skip
    """Scores in base 2 [BLOCK_M, BLOCK_N] of q [BLOCK_M, D] over k [BLOCK_N, D]; see `base_two`."""
    scores = tl.dot(q, tl.trans(k.to(COMPUTE)), input_precision="tf32x3") * scale
    if SCALED:
        scores *= tl.load(k_scales + scale_at)[None, :]
    if CAPPED:
        scores = softcap * tanh(scores)
    return scores


@jit()
def accumulate(
    scores: Block, v: Block, v_scales: Pointer, scale_at: Block, out: Block, largest: Block,
    total: Block, SCALED: constexpr, COMPUTE: constexpr,
) -> Block:  # fmt: skip
    """One step of the online softmax: (out [BLOCK_M, D], largest, total [BLOCK_M]) with these keys added.

    An fp8 cache's shares carry the values' scales, near 1/448 of a value: times 256, float16 holds them well.
    """
    raised = tl.maximum(largest, tl.max(scores, axis=1))
    floor = tl.where(raised == float("-inf"), 0.0, raised)  # no key seen yet: exp2(−inf − 0) = 0
    shares = tl.exp2(scores - floor[:, None])
    decay = tl.exp2(largest - floor)
    total = total * decay + tl.sum(shares, axis=1)
    if SCALED:
        shares *= tl.load(v_scales + scale_at)[None, :] * 256
    out = tl.dot(shares.to(COMPUTE), v.to(COMPUTE), out * decay[:, None], input_precision="tf32x3")
    return out, raised, total


@jit()
def finish(out: Block, largest: Block, total: Block, SCALED: constexpr) -> Block:
    """(out, lse) of what was accumulated; 0 and −inf where no key was seen."""
    unseen = total == 0.0
    safe = tl.where(unseen, 1.0, total)
    log_sum = tl.where(unseen, float("-inf"), (largest + tl.log2(safe)) * 0.6931471805599453)
    return out / (safe * (256 if SCALED else 1))[:, None], log_sum


@jit()
def _begin(
    out: Pointer, lse: Pointer, at: Block, channel: Block, real: Block, inside: Block,
    HEAD_DIM: constexpr, RESUMED: constexpr, SCALED: constexpr, BLOCK_M: constexpr, BLOCK_D: constexpr,
) -> Block:  # fmt: skip
    """(out, largest, total) before the first key: nothing, or what `finish` made of the keys seen so far."""
    if RESUMED:
        log_sum = tl.load(lse + at, mask=real, other=float("-inf"))
        mean = tl.load(out + at[:, None] * HEAD_DIM + channel, mask=inside, other=0.0).to(tl.float32)
        total = tl.where(log_sum == float("-inf"), 0.0, 1.0)
        return mean * (256 if SCALED else 1), log_sum * 1.4426950408889634, total
    return (
        tl.zeros((BLOCK_M, BLOCK_D), tl.float32),
        tl.full((BLOCK_M,), float("-inf"), tl.float32),
        tl.zeros((BLOCK_M,), tl.float32),
    )


@jit()
def _span(
    q: Block, query_at: Block, out: Block, largest: Block, total: Block, begin: Scalar, end: Scalar, keys: Block,
    rule: Block, HEAD_DIM: constexpr, BLOCK_N: constexpr, BLOCK_D: constexpr, PAGED: constexpr, CAUSAL: constexpr,
    WINDOW: constexpr, MASKED: constexpr, CAPPED: constexpr, SCALED: constexpr, COMPUTE: constexpr,
) -> Block:  # fmt: skip
    """Keys begin…end in tiles; query_at [BLOCK_M] are the queries' positions counted from key 0."""
    k_base, v_base, k_scales, v_scales, slots, start, length, k_stride, v_stride, kv_heads = keys
    scale, softcap, window = rule
    channel = tl.arange(0, BLOCK_D)
    for tile in range(begin, end, BLOCK_N):
        key = tile + tl.arange(0, BLOCK_N)
        # keys beyond the end read the row's last one, and are masked as scores: no load needs a mask for them
        real = tl.minimum(key, length - 1) if MASKED else key
        slot = tl.load(slots + real).to(tl.int64) if PAGED else (start + real).to(tl.int64)
        k = load_heads(k_base + slot[:, None] * k_stride + channel[None, :], channel, HEAD_DIM, BLOCK_D)
        v = load_heads(v_base + slot[:, None] * v_stride + channel[None, :], channel, HEAD_DIM, BLOCK_D)
        scores = scores_of(q, k, k_scales, slot * kv_heads, scale, softcap, CAPPED, SCALED, COMPUTE)
        if MASKED:
            seen = (key < length)[None, :]
            if CAUSAL:
                seen = seen & (key[None, :] <= query_at[:, None])
            if WINDOW:
                seen = seen & (query_at[:, None] - key[None, :] < window)
            scores = tl.where(seen, scores, float("-inf"))
        out, largest, total = accumulate(scores, v, v_scales, slot * kv_heads, out, largest, total, SCALED, COMPUTE)
    return out, largest, total


@jit()
def _attend(
    query: Block, query_at: Block, first: Scalar, last: Scalar, state: Block, keys: Block, rule: Block,
    HEAD_DIM: constexpr, PAGED: constexpr, CAUSAL: constexpr, WINDOW: constexpr, CAPPED: constexpr,
    SCALED: constexpr, COMPUTE: constexpr, BLOCK_N: constexpr, BLOCK_D: constexpr,
) -> Block:  # fmt: skip
    """(out, lse) of a block of queries at positions first…last, counted from key 0, going on from `state`."""
    out, largest, total = state
    length, window = keys[6], rule[2]
    end = tl.minimum(length, last + 1) if CAUSAL else length
    if WINDOW:
        begin = tl.maximum(first - window + 1, 0) // BLOCK_N * BLOCK_N
    else:  # the tiles that every query sees whole need no mask
        begin = (tl.minimum(length, first + 1) if CAUSAL else length) // BLOCK_N * BLOCK_N
        out, largest, total = _span(
            query, query_at, out, largest, total, 0, begin, keys, rule, HEAD_DIM, BLOCK_N, BLOCK_D,
            PAGED, CAUSAL, WINDOW, False, CAPPED, SCALED, COMPUTE,
        )  # fmt: skip
    out, largest, total = _span(
        query, query_at, out, largest, total, begin, end, keys, rule, HEAD_DIM, BLOCK_N, BLOCK_D,
        PAGED, CAUSAL, WINDOW, True, CAPPED, SCALED, COMPUTE,
    )  # fmt: skip
    return finish(out, largest, total, SCALED)


@jit(do_not_specialize=["scale", "softcap", "window", "stretch", "pieces", "states"])
def attention_kernel(
    q: Pointer, k: Pointer, v: Pointer, k_scales: Pointer, v_scales: Pointer, out: Pointer, lse: Pointer,
    query_starts: Pointer, query_ends: Pointer, places: Pointer, key_starts: Pointer, key_lengths: Pointer,
    slots: Pointer, positions: Pointer, key_positions: Pointer,
    q_stride: Scalar, k_stride: Scalar, v_stride: Scalar, slots_stride: Scalar, kv_heads: Scalar,
    scale: Scalar, softcap: Scalar, window: Scalar, stretch: Scalar, pieces: Scalar, states: Scalar,
    HEAD_DIM: constexpr, GROUP: constexpr, OWN_KEYS: constexpr, SPLIT: constexpr, PLACED: constexpr, RESUMED: constexpr,
    PAGED: constexpr, CAUSAL: constexpr, WINDOW: constexpr, CAPPED: constexpr, SCALED: constexpr, COMPUTE: constexpr,
    BLOCK_M: constexpr, BLOCK_N: constexpr, BLOCK_D: constexpr,
) -> None:  # fmt: skip
    """OWN_KEYS: the keys are the packed tokens of the row itself, and key_starts, key_lengths are not read.

    PLACED: query i is token places[i]. RESUMED: out and lse hold an attention over other keys, which these join.
    SPLIT: axis 0 also counts `pieces` of `stretch` keys each, whose states stand `states` apart in out and lse.
    """
    row, kv_head, piece = tl.program_id(0), tl.program_id(1), 0
    if SPLIT:
        piece, row = row % pieces, row // pieces
    block = tl.num_programs(2) - 1 - tl.program_id(2)  # a causal row's last queries are the most work: first
    first_query = tl.load(query_starts + row)
    queries = tl.load(query_ends + row) - first_query
    index = block * BLOCK_M + tl.arange(0, BLOCK_M)
    if block * BLOCK_M >= queries * GROUP:
        return
    local, head, channel = index // GROUP, kv_head * GROUP + index % GROUP, tl.arange(0, BLOCK_D)
    real = local < queries
    token = (first_query + local).to(tl.int64)
    if PLACED:
        token = tl.load(places + token, mask=real, other=0).to(tl.int64)
    start, length = first_query, queries
    if not OWN_KEYS:
        start, length = tl.load(key_starts + row), tl.load(key_lengths + row)
    if SPLIT:
        start, length = start + piece * stretch, tl.maximum(tl.minimum(length - piece * stretch, stretch), 0)
    query_at = local + (length - queries)
    if WINDOW and not (CAUSAL or OWN_KEYS):
        query_at = tl.load(positions + token, mask=real, other=0) - tl.load(key_positions + row)
        if SPLIT:
            query_at -= piece * stretch
    first, last = tl.min(tl.where(real, query_at, 1 << 30)), tl.max(tl.where(real, query_at, -1))
    inside = real[:, None] & (channel < HEAD_DIM)[None, :]
    query = tl.load(q + token[:, None] * q_stride + head[:, None] * HEAD_DIM + channel, mask=inside, other=0.0)
    keys = (
        k + kv_head * HEAD_DIM, v + kv_head * HEAD_DIM, k_scales + kv_head, v_scales + kv_head,
        slots + row.to(tl.int64) * slots_stride, start, length, k_stride, v_stride, kv_heads,
    )  # fmt: skip
    at = token * kv_heads * GROUP + head
    if SPLIT:
        at += states.to(tl.int64) * piece
    state = _begin(out, lse, at, channel, real, inside, HEAD_DIM, RESUMED, SCALED, BLOCK_M, BLOCK_D)
    result, log_sum = _attend(
        query.to(COMPUTE), query_at, first, last, state, keys, (scale, softcap, window),
        HEAD_DIM, PAGED, CAUSAL, WINDOW, CAPPED, SCALED, COMPUTE, BLOCK_N, BLOCK_D,
    )  # fmt: skip
    tl.store(out + at[:, None] * HEAD_DIM + channel, result.to(out.dtype.element_ty), mask=inside)
    tl.store(lse + at, log_sum, mask=real)
