"""Attention of one query a row over the row's own keys on the CPU: batched products that read keys and values once.

torch's fused kernel calls a small matrix product per row and key head, which takes longer than reading the keys does.
Scores of all heads come from one batched product with the queries on a block diagonal; values are summed by the kernel
of embedding bags, whose bags are a row's values weighted by its softmax.
"""

import torch
from torch.nn import functional

from dql.kernels.fused_cpu import State, wide_products

_LEAST = 32  # rows below which the fused kernel is as fast


def batches_pay(rows: int) -> bool:
    """Whether so many rows are faster together than one by one in the fused kernel."""
    return rows >= _LEAST and wide_products()


def attend_lanes(
    q: torch.Tensor,
    k: torch.Tensor,
    values: torch.Tensor,
    places: torch.Tensor,
    bias: torch.Tensor,
    scale: float,
) -> State:
    """q [rows, heads, dim] over k [rows, keys, kv_heads, dim]; bias [rows, 1, keys], HIDDEN where a key is not seen.

    values [n, dim], of which places int32 [rows · heads, keys] are each head's. All float32, and every row sees a key.
    Returns out [rows, heads, dim], lse [rows, heads].
    """
    rows, heads, dim = q.shape
    keys, kv_heads = k.shape[1:3]
    group = heads // kv_heads
    spread = q.new_zeros(rows, kv_heads, group, kv_heads, dim)
    spread.diagonal(dim1=1, dim2=3).copy_(q.view(rows, kv_heads, group, dim).permute(0, 2, 3, 1))
    scores = torch.bmm(k.flatten(2), spread.view(rows, heads, kv_heads * dim).transpose(1, 2)).transpose(1, 2)
    scores = torch.add(bias, scores.contiguous(), alpha=scale)
    highest = scores.amax(dim=-1)
    shares = torch.softmax(scores, dim=-1)
    lse = highest - shares.amax(dim=-1).log_()
    out = functional.embedding_bag(places, values, mode="sum", per_sample_weights=shares.view(rows * heads, keys))
    return out.view(rows, heads, dim), lse
