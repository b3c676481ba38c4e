"""Joining two attentions over disjoint keys by their log-sum-exp: the cascade's last step.

lse = log(exp(lse_a) + exp(lse_b)); out = out_a · exp(lse_a − lse) + out_b · exp(lse_b − lse).
"""

from __future__ import annotations

import torch

from dql.kernels.layout import FLOATS, check


def merge_states(
    out_a: torch.Tensor, lse_a: torch.Tensor, out_b: torch.Tensor, lse_b: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    """out [tokens, heads, head_dim] of one dtype, lse [tokens, heads] float32 (−inf: no key seen) → both merged."""
    check("out_a", out_a, (None, None, None), dtypes=FLOATS)
    check("out_b", out_b, tuple(out_a.shape), dtypes=(out_a.dtype,), like=out_a)
    check("lse_a", lse_a, tuple(out_a.shape[:2]), dtypes=(torch.float32,), like=out_a)
    check("lse_b", lse_b, tuple(out_a.shape[:2]), dtypes=(torch.float32,), like=out_a)
    return _cpu(out_a, lse_a, out_b, lse_b)


def _cpu(
    out_a: torch.Tensor, lse_a: torch.Tensor, out_b: torch.Tensor, lse_b: torch.Tensor
) -> tuple[torch.Tensor, torch.Tensor]:
    lse = torch.logaddexp(lse_a, lse_b)
    share_b = torch.exp(lse_b - lse).nan_to_num_(0.0)[..., None]  # both −inf: nothing seen, out_a's zeros stand
    return torch.lerp(out_a.float(), out_b.float(), share_b).to(out_a.dtype), lse
