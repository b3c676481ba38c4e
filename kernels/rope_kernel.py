"""The launch of `rope`: programs take a few heads of one token each, first those of q, then those of k and v."""

from dql.kernels.device import row_scale, to_code
from dql.kernels.language import Block, Pointer, Scalar, constexpr, jit, tl


@jit()
def _load(pointer: Pointer, at: Block, inside: Block) -> Block:
    return tl.load(pointer + at, mask=inside, other=0.0).to(tl.float32)


@jit()
def _heads(
    x: Pointer, head: Block, present: Block,
    HEAD_DIM: constexpr, HALF: constexpr, BLOCK_HALF: constexpr, BLOCK_REST: constexpr,
) -> Block:  # fmt: skip
    """(low, high, rest): the two halves that rotate and what follows them, [HEADS, BLOCK_…] float32."""
    channel = tl.arange(0, BLOCK_HALF)[None, :]
    inside = present & (channel < HALF)
    low, high = _load(x, head * HEAD_DIM + channel, inside), _load(x, head * HEAD_DIM + HALF + channel, inside)
    rest = low
    if BLOCK_REST > 0:
        channel = 2 * HALF + tl.arange(0, BLOCK_REST)[None, :]
        rest = _load(x, head * HEAD_DIM + channel, present & (channel < HEAD_DIM))
    return low, high, rest


@jit()
def _turn(
    x: Pointer, weight: Pointer, cos: Pointer, sin: Pointer, position: Scalar, head: Block, present: Block,
    eps: Scalar, offset: Scalar,
    HEAD_DIM: constexpr, HALF: constexpr, BLOCK_HALF: constexpr, BLOCK_REST: constexpr, NORM: constexpr,
) -> Block:  # fmt: skip
    """Norm and rotate heads of x in place; returns them as `_heads` does."""
    low, high, rest = _heads(x, head, present, HEAD_DIM, HALF, BLOCK_HALF, BLOCK_REST)
    channel = tl.arange(0, BLOCK_HALF)
    real = channel < HALF
    if NORM:
        square = tl.sum(low * low + high * high, axis=1)
        if BLOCK_REST > 0:
            square += tl.sum(rest * rest, axis=1)
        factor = tl.rsqrt(square / HEAD_DIM + eps)[:, None]
        low *= factor * (_load(weight, channel, real) + offset)[None, :]
        high *= factor * (_load(weight, channel + HALF, real) + offset)[None, :]
        if BLOCK_REST > 0:
            after = 2 * HALF + tl.arange(0, BLOCK_REST)
            rest *= factor * (_load(weight, after, after < HEAD_DIM) + offset)[None, :]
    cosine = _load(cos, position * HALF + channel, real)[None, :]
    sine = _load(sin, position * HALF + channel, real)[None, :]
    low, high = low * cosine - high * sine, high * cosine + low * sine
    _write(x, x, low, high, rest, head, present, HEAD_DIM, HALF, BLOCK_HALF, BLOCK_REST, None)
    return low, high, rest


@jit()
def _write(
    x: Pointer, scales: Pointer, low: Block, high: Block, rest: Block, head: Block, present: Block,
    HEAD_DIM: constexpr, HALF: constexpr, BLOCK_HALF: constexpr, BLOCK_REST: constexpr, LARGEST_CODE: constexpr,
) -> None:  # fmt: skip
    """Store heads at x[head, :], divided by a scale of their own where x holds codes."""
    channel = tl.arange(0, BLOCK_HALF)[None, :]
    inside = present & (channel < HALF)
    if LARGEST_CODE is not None:
        largest = tl.max(tl.maximum(tl.abs(low), tl.abs(high)), axis=1)
        if BLOCK_REST > 0:
            largest = tl.maximum(largest, tl.max(tl.abs(rest), axis=1))
        scale = row_scale(largest, LARGEST_CODE)[:, None]
        tl.store(scales + head, scale, mask=present)
        low, high, rest = low / scale, high / scale, rest / scale
    dtype: tl.constexpr = x.dtype.element_ty
    tl.store(x + head * HEAD_DIM + channel, to_code(low, dtype), mask=inside)
    tl.store(x + head * HEAD_DIM + HALF + channel, to_code(high, dtype), mask=inside)
    if BLOCK_REST > 0:
        rest_channel = 2 * HALF + tl.arange(0, BLOCK_REST)[None, :]
        rest_inside = present & (rest_channel < HEAD_DIM)
        tl.store(x + head * HEAD_DIM + rest_channel, to_code(rest, dtype), mask=rest_inside)


@jit(do_not_specialize=["eps", "offset"])
def rope_kernel(
    q: Pointer, k: Pointer, v: Pointer, positions: Pointer, cos: Pointer, sin: Pointer,
    q_weight: Pointer, k_weight: Pointer,
    k_cache: Pointer, v_cache: Pointer, k_scales: Pointer, v_scales: Pointer, slots: Pointer,
    q_stride: Scalar, k_stride: Scalar, v_stride: Scalar, heads: Scalar, kv_heads: Scalar, eps: Scalar, offset: Scalar,
    QUERY_PROGRAMS: constexpr, HEAD_DIM: constexpr, HALF: constexpr, BLOCK_HALF: constexpr, BLOCK_REST: constexpr,
    NORM: constexpr, STORE: constexpr, LARGEST_CODE: constexpr, HEADS: constexpr,
) -> None:  # fmt: skip
    token, program = tl.program_id(0).to(tl.int64), tl.program_id(1)
    position = tl.load(positions + token).to(tl.int64)
    if program < QUERY_PROGRAMS:
        head = (program * HEADS + tl.arange(0, HEADS))[:, None]
        _turn(
            q + token * q_stride, q_weight, cos, sin, position, head, head < heads, eps, offset,
            HEAD_DIM, HALF, BLOCK_HALF, BLOCK_REST, NORM,
        )  # fmt: skip
        return
    head = ((program - QUERY_PROGRAMS) * HEADS + tl.arange(0, HEADS))[:, None]
    present = head < kv_heads
    low, high, rest = _turn(
        k + token * k_stride, k_weight, cos, sin, position, head, present, eps, offset,
        HEAD_DIM, HALF, BLOCK_HALF, BLOCK_REST, NORM,
    )  # fmt: skip
    if STORE:
        slot = tl.load(slots + token).to(tl.int64) * kv_heads
        _write(
            k_cache + slot * HEAD_DIM, k_scales + slot, low, high, rest, head, present,
            HEAD_DIM, HALF, BLOCK_HALF, BLOCK_REST, LARGEST_CODE,
        )  # fmt: skip
        low, high, rest = _heads(v + token * v_stride, head, present, HEAD_DIM, HALF, BLOCK_HALF, BLOCK_REST)
        _write(
            v_cache + slot * HEAD_DIM, v_scales + slot, low, high, rest, head, present,
            HEAD_DIM, HALF, BLOCK_HALF, BLOCK_REST, LARGEST_CODE,
        )  # fmt: skip
