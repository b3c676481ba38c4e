"""Attention on the CPU through torch's fused kernel, which keeps scores in cache and returns their log-sum-exp.

s = scale · q·k + bias, capped before the bias where softcap is given; lse = log Σ exp(s); out = Σ exp(s − lse) · v.
A bias hides keys with HIDDEN instead of −inf: a query that sees no key then gets an lse so low that `merge_states`
drops it, where the fused kernel would report 0.
"""

from __future__ import annotations

import torch

HIDDEN = -1e30

State = tuple[torch.Tensor, torch.Tensor]


def attend_padded(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, bias: torch.Tensor, scale: float, softcap: float | None
) -> State:
    """q [rows, queries, heads, dim] over k, v [rows, keys, kv_heads, dim], padded.

    bias [rows, 1, group · queries or 1, keys] float32, group-major: the query heads of one key head are folded into the
    queries, so that each product has group · queries rows. Returns out [rows, queries, heads, dim], lse without dim.
    """
    rows, queries, heads, dim = q.shape
    kv_heads = k.shape[2]
    group = heads // kv_heads
    folded = q.reshape(rows, queries, kv_heads, group, dim).permute(0, 2, 3, 1, 4)
    folded = folded.reshape(rows, kv_heads, group * queries, dim)
    out, lse = attend(folded, k.transpose(1, 2), v.transpose(1, 2), bias, False, scale, softcap)
    out = out.reshape(rows, kv_heads, group, queries, dim).permute(0, 3, 1, 2, 4)
    lse = lse.reshape(rows, kv_heads, group, queries).permute(0, 3, 1, 2)
    return out.reshape(rows, queries, heads, dim), lse.reshape(rows, queries, heads)


def attend_dense(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bias: torch.Tensor | None,
    scale: float,
    softcap: float | None,
    *,
    causal: bool = False,
) -> State:
    """All of q [queries, heads, dim] over the same k, v [keys, kv_heads, dim]; bias [queries, keys] float32 or none.

    causal: queries and keys are the same tokens. Returns out [queries, heads, dim], lse [queries, heads], as views.
    """
    keys, kv_heads, dim = k.shape
    group = q.shape[1] // kv_heads
    folded = q.view(len(q), kv_heads, group, dim).permute(1, 2, 0, 3)
    wide = (kv_heads, group, keys, dim)
    k, v = (x.transpose(0, 1)[:, None].expand(wide) for x in (k, v))
    planes = None if bias is None else bias[None, None]
    out, lse = attend(folded, k, v, planes, causal, scale, softcap)
    return out.permute(2, 0, 1, 3).flatten(1, 2), lse.permute(2, 0, 1).flatten(1)


def attend(
    q: torch.Tensor,
    k: torch.Tensor,
    v: torch.Tensor,
    bias: torch.Tensor | None,
    causal: bool,
    scale: float,
    softcap: float | None,
) -> State:
    """q [batch, heads, queries, dim] over k, v [batch, heads, keys, dim]; bias [batch, …, queries, keys].

    q is float32, keys and values are too or both of a narrower type, in which the products are then taken.
    """
    if softcap is None:
        out, lse = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu(
            q.to(k.dtype), k, v, 0.0, causal, attn_mask=bias, scale=scale
        )
        return out.to(q.dtype), lse
    k, v = k.to(q.dtype), v.to(q.dtype)
    scores = torch.tanh(q @ k.transpose(-1, -2) * (scale / softcap)) * softcap
    if causal:
        later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu_(1)
        scores = scores.masked_fill_(later, HIDDEN)
    if bias is not None:
        scores = scores + bias
    lse = torch.logsumexp(scores, dim=-1)
    return (scores - lse[..., None]).exp_() @ v, lse


def wide_products() -> bool:
    """Whether plain products may beat the fused kernel, whose own are MKL's: with 512-bit vectors and oneDNN."""
    return torch.backends.cpu.get_cpu_capability() == "AVX512" and hasattr(torch.ops.mkldnn, "_linear_pointwise")
