"""Root-mean-square norm, alone, after a residual add, and with its output quantised.

y = x / √(mean(x²) + eps) · (weight + offset); offset is 1 for Gemma, whose weights are stored around zero.
"""

from __future__ import annotations

import torch

from dql.kernels.layout import FLOATS, check
from dql.kernels.quantize import encode


def rms_norm(x: torch.Tensor, weight: torch.Tensor, *, eps: float, offset: float = 0.0) -> torch.Tensor:
    """x [rows, width] → y [rows, width] in x's dtype; weight [width]. Computed in float32."""
    _check(x, weight)
    return _cpu(x, weight, eps, offset).to(x.dtype)


def add_rms_norm(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, *, eps: float, offset: float = 0.0
) -> torch.Tensor:
    """residual += x in place, then y = rms_norm(residual): x, residual, y [rows, width] of one dtype."""
    _check(x, weight)
    check("residual", residual, tuple(x.shape), dtypes=(x.dtype,), like=x)
    residual += x
    return _cpu(residual, weight, eps, offset).to(x.dtype)


def rms_norm_quantized(
    x: torch.Tensor,
    weight: torch.Tensor,
    dtype: torch.dtype,
    *,
    eps: float,
    offset: float = 0.0,
    residual: torch.Tensor | None = None,
) -> tuple[torch.Tensor, torch.Tensor]:
    """rms_norm, or add_rms_norm where `residual` is given, as (codes [rows, width], scales [rows] float32).

    `dtype` is fp8 e4m3 or int8; codes are per row: y ≈ codes · scales[:, None].
    """
    _check(x, weight)
    if residual is not None:
        check("residual", residual, tuple(x.shape), dtypes=(x.dtype,), like=x)
        residual += x
    return encode(_cpu(x if residual is None else residual, weight, eps, offset), dtype)


def _check(x: torch.Tensor, weight: torch.Tensor) -> None:
    check("x", x, (None, None), dtypes=FLOATS)
    check("weight", weight, (x.shape[1],), dtypes=FLOATS, like=x)


def _cpu(x: torch.Tensor, weight: torch.Tensor, eps: float, offset: float) -> torch.Tensor:
    wide = x.float()
    gain = weight.float() + offset if offset else weight.float()
    return torch.nn.functional.rms_norm(wide, (x.shape[1],), gain, eps)
