"""Rotary position embedding with the heads' norm before it and the KV cache's write after it, in one pass.

Half-split rotation of the first `rotary` = 2·cos.shape[1] channels of a head at position p, for i < rotary/2:
    y[i]            = x[i] · cos[p, i] − x[i + rotary/2] · sin[p, i]
    y[i + rotary/2] = x[i + rotary/2] · cos[p, i] + x[i] · sin[p, i]
"""

from __future__ import annotations

from dataclasses import dataclass

import torch

from dql.kernels.kv_cache import KVCache
from dql.kernels.layout import FLOATS, INTEGERS, check
from dql.kernels.quantize import encode


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
    _cpu(q, k, positions, cos, sin, norm)
    if cache is not None and v is not None and slots is not None:
        _store_cpu(k, v, cache, slots)


def _cpu(
    q: torch.Tensor,
    k: torch.Tensor,
    positions: torch.Tensor,
    cos: torch.Tensor,
    sin: torch.Tensor,
    norm: HeadNorm | None,
) -> None:
    cosines, sines = cos[positions][:, None], sin[positions][:, None]
    half = cos.shape[1]
    for x, weight in ((q, norm.q if norm else None), (k, norm.k if norm else None)):
        wide = x.float()
        if norm is not None and weight is not None:
            wide = torch.nn.functional.rms_norm(wide, (x.shape[-1],), weight.float() + norm.offset, norm.eps)
        low, high = wide[..., :half], wide[..., half : 2 * half]
        rotated = (low * cosines - high * sines, high * cosines + low * sines, wide[..., 2 * half :])
        x.copy_(torch.cat(rotated, dim=-1))


def _store_cpu(k: torch.Tensor, v: torch.Tensor, cache: KVCache, slots: torch.Tensor) -> None:
    index = slots.long()
    if cache.k_scales is None or cache.v_scales is None:
        cache.k.index_copy_(0, index, k.to(cache.k.dtype))
        cache.v.index_copy_(0, index, v.to(cache.v.dtype))
        return
    for target, scales, values in ((cache.k, cache.k_scales, k), (cache.v, cache.v_scales, v)):
        codes, row_scales = encode(values, target.dtype)
        target.view(torch.uint8).index_copy_(0, index, codes.view(torch.uint8))
        scales.index_copy_(0, index, row_scales)
