"""Joining attentions over disjoint keys by their log-sum-exp: the cascade's last step.

lse = log Σ_p exp(lse_p); out = Σ_p out_p · exp(lse_p − lse), over the state that is joined to and all parts.
"""

import torch

from dql.kernels.configs import choose
from dql.kernels.language import Pointer, Scalar, cdiv, constexpr, jit, power_of_two, tl, uses_triton
from dql.kernels.layout import FLOATS, check


def merge_states(out: torch.Tensor, lse: torch.Tensor, parts: torch.Tensor, part_lse: torch.Tensor) -> None:
    """Join parts [parts, tokens, heads, head_dim] to out [tokens, heads, head_dim] and lse [tokens, heads] in place.

    part_lse [parts, tokens, heads] and lse float32; −inf: no key seen, and what stands in the part is not looked at.
    """
    check("out", out, (None, None, None), dtypes=FLOATS)
    check("parts", parts, (None, *out.shape), dtypes=FLOATS, like=out)
    check("lse", lse, tuple(out.shape[:2]), dtypes=(torch.float32,), like=out)
    check("part_lse", part_lse, tuple(parts.shape[:3]), dtypes=(torch.float32,), like=out)
    merge = _triton if uses_triton(out) else _cpu
    merge(out, lse, parts, part_lse)


def _cpu(out: torch.Tensor, lse: torch.Tensor, parts: torch.Tensor, part_lse: torch.Tensor) -> None:
    sums = torch.cat((lse[None], part_lse))
    merged = torch.logsumexp(sums, dim=0)
    shares = torch.exp(sums - merged).nan_to_num_(0.0)[..., None]  # all −inf: nothing seen, and out becomes 0
    values = torch.cat((out[None].float(), parts.float()))
    out.copy_(torch.where(shares > 0, values * shares, 0.0).sum(dim=0))
    lse.copy_(merged)


def _triton(out: torch.Tensor, lse: torch.Tensor, parts: torch.Tensor, part_lse: torch.Tensor) -> None:
    tokens, heads, head_dim = out.shape
    config = choose("merge_states", "any")
    grid = (cdiv(tokens * heads, config.blocks["BLOCK"]),)
    _kernel[grid](
        out, lse, parts, part_lse, parts.shape[0], tokens * heads, head_dim,
        BLOCK_D=power_of_two(head_dim), **config.options(),
    )  # fmt: skip


@jit(do_not_specialize=["count", "states"])
def _kernel(
    out: Pointer, lse: Pointer, parts: Pointer, part_lse: Pointer, count: Scalar, states: Scalar, head_dim: Scalar,
    BLOCK: constexpr, BLOCK_D: constexpr,
) -> None:  # fmt: skip
    state = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    channel = tl.arange(0, BLOCK_D)
    present = state < states
    inside = present[:, None] & (channel < head_dim)[None, :]
    at = state[:, None] * head_dim + channel[None, :]
    largest = tl.load(lse + state, mask=present, other=float("-inf"))
    value = tl.load(out + at, mask=inside, other=0.0).to(tl.float32)
    value = tl.where((largest == float("-inf"))[:, None], 0.0, value)
    total = tl.where(largest == float("-inf"), 0.0, 1.0)
    for part in range(count):
        found = tl.load(part_lse + part * states + state, mask=present, other=float("-inf"))
        raised = tl.maximum(largest, found)
        floor = tl.where(raised == float("-inf"), 0.0, raised)
        decay, share = tl.exp(largest - floor), tl.exp(found - floor)
        seen = inside & (found != float("-inf"))[:, None]
        other = tl.load(parts + part * states * head_dim + at, mask=seen, other=0.0).to(tl.float32)
        value = value * decay[:, None] + other * share[:, None]
        total = total * decay + share
        largest = raised
    safe = tl.where(total == 0.0, 1.0, total)
    tl.store(out + at, (value / safe[:, None]).to(out.dtype.element_ty), mask=inside)
    tl.store(lse + state, tl.where(total == 0.0, float("-inf"), largest + tl.log(safe)), mask=present)
