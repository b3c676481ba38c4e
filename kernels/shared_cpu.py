"""Attention of many tokens over one run of keys on the CPU, as plain products through oneDNN.

The tokens have attended to other keys already, with result `out` and log-sum-exp `lse`. With those as one more column,
a softmax over the scores joins both without a maximum or a sum of its own:

    [p, p'] = softmax([scale · q·kᵀ, lse]);  out ← p·v + p' · out

On two Zen 5 cores oneDNN's products reach 350 to 440 GFLOP/s, and MKL's, which torch's fused kernel calls, 210: that
pays for the scores' way through the cache.
"""

import torch

from dql.kernels.fused_cpu import wide_products

_SCORES = 3 << 18  # of a block: 3 MB, about what two cores hold next to them
_LEAST_ROWS, _LEAST_KEYS = 256, 256  # below which the fused kernel is as fast


def products_pay(rows: int, keys: int) -> bool:
    """Whether `rows` queries of a key head over so many keys are faster as products than by the fused kernel."""
    return rows >= _LEAST_ROWS and keys >= _LEAST_KEYS and wide_products()


def join_shared(
    q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, out: torch.Tensor, lse: torch.Tensor, scale: float
) -> None:
    """Let q [tokens, heads, dim] attend to k, v [keys, kv_heads, dim] as well: out, like q, is renewed in place.

    lse [tokens, heads] is of the keys before, and is left as it is. All float32.
    """
    tokens, heads, dim = q.shape
    keys, kv_heads, _ = k.shape
    scaled = torch.zeros(kv_heads, keys + 1, dim)
    torch.mul(k.transpose(0, 1), scale, out=scaled[:, :keys])
    values = torch.zeros(kv_heads, dim, keys + 1)
    values[:, :, :keys] = v.permute(1, 2, 0)
    queries, before, weights = (_by_key_head(x, kv_heads) for x in (q, out, lse[..., None]))
    rows = queries.shape[1]
    blocks = -(-rows * (keys + 1) // _SCORES)
    size = -(-rows // blocks)
    for head in range(kv_heads):
        for start in range(0, rows, size):
            block = slice(start, start + size)
            scores = _product(queries[head, block], scaled[head])
            scores[:, keys:] = weights[head, block]
            shares = torch.softmax(scores, dim=-1)
            other = before[head, block].mul_(shares[:, keys:])
            before[head, block] = _product_plus(shares, values[head], other)
    group = heads // kv_heads
    out.view(tokens, kv_heads, group, dim).copy_(before.view(kv_heads, tokens, group, dim).transpose(0, 1))


def _by_key_head(x: torch.Tensor, kv_heads: int) -> torch.Tensor:
    """[tokens, heads, dim] → a copy [kv_heads, tokens · group, dim]."""
    tokens, _, dim = x.shape
    parted = x.reshape(tokens, kv_heads, -1, dim).transpose(0, 1)
    return parted.clone(memory_format=torch.contiguous_format).view(kv_heads, -1, dim)


def _product(x: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """x · weightᵀ."""
    y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], "")
    return y


def _product_plus(x: torch.Tensor, weight: torch.Tensor, other: torch.Tensor) -> torch.Tensor:
    """x · weightᵀ + other."""
    y: torch.Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, other, weight, None, "add")
    return y
