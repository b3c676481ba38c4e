"""Joining two attentions over disjoint keys by their log-sum-exp: the cascade's last step.

lse = log(exp(lse_a) + exp(lse_b)); out = out_a · exp(lse_a − lse) + out_b · exp(lse_b − lse).
"""

import torch

from dql.kernels.configs import choose
from dql.kernels.language import Pointer, Scalar, cdiv, constexpr, jit, power_of_two, tl, uses_triton
from dql.kernels.layout import FLOATS, check


def merge_states(
    out_a: torch.Tensor, lse_a: torch.Tensor, out_b: torch.Tensor, lse_b: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """out [tokens, heads, head_dim] of one dtype, lse [tokens, heads] float32 (−inf: no key seen) → both merged."""
    check("out_a", out_a, (None, None, None), dtypes=FLOATS)
    check("out_b", out_b, tuple(out_a.shape), dtypes=(out_a.dtype,), like=out_a)
    check("lse_a", lse_a, tuple(out_a.shape[:2]), dtypes=(torch.float32,), like=out_a)
    check("lse_b", lse_b, tuple(out_a.shape[:2]), dtypes=(torch.float32,), like=out_a)
    merge = _triton if uses_triton(out_a) else _cpu
    return merge(out_a, lse_a, out_b, lse_b)


def _cpu(
    out_a: torch.Tensor, lse_a: torch.Tensor, out_b: torch.Tensor, lse_b: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    lse = torch.logaddexp(lse_a, lse_b)
    share_b = torch.exp(lse_b - lse).nan_to_num_(0.0)[..., None]  # both −inf: nothing seen, out_a's zeros stand
    return torch.lerp(out_a.float(), out_b.float(), share_b).to(out_a.dtype), lse


def _triton(
    out_a: torch.Tensor, lse_a: torch.Tensor, out_b: torch.Tensor, lse_b: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    tokens, heads, head_dim = out_a.shape
    out, lse = torch.empty_like(out_a), torch.empty_like(lse_a)
    config = choose("merge_states", "any")
    grid = (cdiv(tokens * heads, config.blocks["BLOCK"]),)
    _kernel[grid](
        out_a, lse_a, out_b, lse_b, out, lse, tokens * heads, head_dim,
        BLOCK_D=power_of_two(head_dim), **config.options(),
    )  # fmt: skip
    return out, lse


@jit(do_not_specialize=["states"])
def _kernel(
    out_a: Pointer,
    lse_a: Pointer,
    out_b: Pointer,
    lse_b: Pointer,
    out: Pointer,
    lse: Pointer,
    states: Scalar,
    head_dim: Scalar,
    BLOCK: constexpr,
    BLOCK_D: constexpr,
) -> None:
    state = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    present = state < states
    a = tl.load(lse_a + state, mask=present, other=0.0)
    b = tl.load(lse_b + state, mask=present, other=0.0)
    largest = tl.maximum(a, b)
    unseen = largest == float("-inf")
    floor = tl.where(unseen, 0.0, largest)
    weight_a, weight_b = tl.exp(a - floor), tl.exp(b - floor)
    total = tl.where(unseen, 1.0, weight_a + weight_b)
    merged = tl.where(unseen, float("-inf"), floor + tl.log(total))
    share_b = (weight_b / total)[:, None]
    channel = tl.arange(0, BLOCK_D)
    at = state[:, None] * head_dim + channel
    inside = present[:, None] & (channel < head_dim)
    value_a = tl.load(out_a + at, mask=inside, other=0.0).to(tl.float32)
    value_b = tl.load(out_b + at, mask=inside, other=0.0).to(tl.float32)
    tl.store(out + at, (value_a + share_b * (value_b - value_a)).to(out.dtype.element_ty), mask=inside)
    tl.store(lse + state, merged, mask=present)
