"""Rotary position embedding with the heads' norm before it and the KV cache's write after it, in one pass.

Half-split rotation of the first `rotary` = 2·cos.shape[1] channels of a head at position p, for i < rotary/2:
    y[i]            = x[i] · cos[p, i] − x[i + rotary/2] · sin[p, i]
    y[i + rotary/2] = x[i + rotary/2] · cos[p, i] + x[i] · sin[p, i]
"""

from dataclasses import dataclass

import torch

from dql.kernels.configs import choose
from dql.kernels.kv_cache import KVCache
from dql.kernels.language import cdiv, power_of_two, uses_triton
from dql.kernels.layout import FLOATS, INTEGERS, check
from dql.kernels.quantize import largest_code
from dql.kernels.rope_kernel import rope_kernel


@dataclass(frozen=True, slots=True)
class HeadNorm:
    """RMS norm of each query and key head before rotation (Qwen3, Gemma 3); q, k [head_dim], offset 1 for Gemma."""

    q: torch.Tensor
    k: torch.Tensor
    eps: float
    offset: float = 0.0


def rope(
    q: torch.Tensor,
    k: torch.Tensor,
    positions: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    *,
    norm: HeadNorm | None = None,
    v: torch.Tensor | None = None,
    cache: KVCache | None = None,
    slots: torch.Tensor | None = None,
) -> None:
    """Norm (if given) and rotate q [tokens, heads, head_dim] and k [tokens, kv_heads, head_dim] in place.

    positions [tokens] index the rows of cos, sin [positions, rotary/2] float32. q, k, v may be views into a fused
    projection (only the last two dimensions dense). With `cache`, the rotated keys and v [tokens, kv_heads, head_dim]
    are also stored at slots [tokens], quantised as the cache is.
    """
    tokens, _, head_dim = q.shape
    check("q", q, (None, None, None), dtypes=FLOATS, contiguous=False)
    check("k", k, (tokens, None, head_dim), dtypes=(q.dtype,), like=q, contiguous=False)
    check("positions", positions, (tokens,), dtypes=INTEGERS, like=q)
    check("cos", cos, (None, None), dtypes=(torch.float32,), like=q)
    check("sin", sin, tuple(cos.shape), dtypes=(torch.float32,), like=q)
    if cache is not None:
        if v is None or slots is None:
            raise TypeError("a KV write needs v and slots")
        check("v", v, tuple(k.shape), dtypes=(q.dtype,), like=q, contiguous=False)
        check("slots", slots, (tokens,), dtypes=INTEGERS, like=q)
    if uses_triton(q):
        _triton(q, k, positions, cos, sin, norm, v, cache, slots)
        return
    _cpu(q, k, positions, cos, sin, norm)
    if cache is not None and v is not None and slots is not None:
        cache.store(slots, k, v)


def _cpu(
    q: torch.Tensor,
    k: torch.Tensor,
    positions: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    norm: HeadNorm | None,
) -> None:
    cosines, sines = (table.index_select(0, positions)[:, None] for table in (cos, sin))
    both = _side_by_side(q, k)
    if norm is None and both is not None:
        _rotate(both, cosines, sines)
        return
    for x, weight in ((q, norm.q if norm else None), (k, norm.k if norm else None)):
        wide = x.float()
        if norm is not None and weight is not None:
            wide = torch.nn.functional.rms_norm(wide, (x.shape[-1],), weight.float() + norm.offset, norm.eps)
        _rotate(wide, cosines, sines)
        if wide is not x:
            x.copy_(wide)


def _rotate(x: torch.Tensor, cosines: torch.Tensor, sines: torch.Tensor) -> None:
    """Rotate float32 heads in place."""
    half = cosines.shape[-1]
    low, high = x[..., :half], x[..., half : 2 * half]
    crossed = low * sines
    low.mul_(cosines).addcmul_(high, sines, value=-1)
    high.mul_(cosines).add_(crossed)


def _side_by_side(q: torch.Tensor, k: torch.Tensor) -> torch.Tensor | None:
    """The heads of both as one tensor, which takes half as many passes, where they are float32 and k's follow q's."""
    (tokens, heads, head_dim), stride = q.shape, q.stride()
    follow = k.data_ptr() == q.data_ptr() + heads * stride[1] * q.element_size() and k.stride() == stride
    if q.dtype != torch.float32 or not follow or stride[0] < (heads + k.shape[1]) * stride[1]:
        return None
    return q.as_strided((tokens, heads + k.shape[1], head_dim), stride)


def _triton(
    q: torch.Tensor,
    k: torch.Tensor,
    positions: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    norm: HeadNorm | None,
    v: torch.Tensor | None,
    cache: KVCache | None,
    slots: torch.Tensor | None,
) -> None:
    """Programs along axis 1 take a few heads each: first those of q, then those of k (and v)."""
    (tokens, heads, head_dim), kv_heads, half = q.shape, k.shape[1], cos.shape[1]
    config = choose("rope", "any")
    query_programs, key_programs = (cdiv(count, config.blocks["HEADS"]) for count in (heads, kv_heads))
    quantised = cache is not None and cache.k_scales is not None
    rope_kernel[(tokens, query_programs + key_programs)](
        q, k, k if v is None else v, positions, cos, sin,
        norm.q if norm else q, norm.k if norm else q,
        cache.k if cache else q, cache.v if cache else q,
        cache.k_scales if quantised and cache else q, cache.v_scales if quantised and cache else q,
        positions if slots is None else slots,
        q.stride(0), k.stride(0), 0 if v is None else v.stride(0), heads, kv_heads,
        norm.eps if norm else 0.0, norm.offset if norm else 0.0,
        QUERY_PROGRAMS=query_programs, HEAD_DIM=head_dim, HALF=half,
        BLOCK_HALF=power_of_two(half), BLOCK_REST=power_of_two(head_dim - 2 * half) if head_dim > 2 * half else 0,
        NORM=norm is not None, STORE=cache is not None,
        LARGEST_CODE=largest_code(cache.k.dtype) if quantised and cache else None,
        **config.options(),
    )  # fmt: skip
