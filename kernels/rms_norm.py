"""Root-mean-square norm, alone, after a residual add, and with its output quantised.

y = x / √(mean(x²) + eps) · (weight + offset); offset is 1 for Gemma, whose weights are stored around zero.
"""

import torch

from dql.kernels.configs import choose
from dql.kernels.device import row_scale, to_code
from dql.kernels.language import Pointer, Scalar, constexpr, jit, power_of_two, tl, uses_triton
from dql.kernels.layout import FLOATS, check
from dql.kernels.quantize import encode, largest_code

NARROW = 2048


def rms_norm(x: torch.Tensor, weight: torch.Tensor, *, eps: float, offset: float = 0.0) -> torch.Tensor:
    """x [rows, width] → y [rows, width] in x's dtype; weight [width]. Computed in float32."""
    _check(x, weight)
    if uses_triton(x):
        return _triton(x, None, weight, x.dtype, eps, offset)[0]
    return _cpu(x, weight, eps, offset).to(x.dtype)


def add_rms_norm(
    x: torch.Tensor, residual: torch.Tensor, weight: torch.Tensor, *, eps: float, offset: float = 0.0
) -> torch.Tensor:
    """residual += x in place, then y = rms_norm(residual): x, residual, y [rows, width] of one dtype."""
    _check(x, weight)
    check("residual", residual, tuple(x.shape), dtypes=(x.dtype,), like=x)
    if uses_triton(x):
        return _triton(x, residual, weight, x.dtype, eps, offset)[0]
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
    if uses_triton(x):
        return _triton(x, residual, weight, dtype, eps, offset)
    if residual is not None:
        residual += x
    return encode(_cpu(x if residual is None else residual, weight, eps, offset), dtype)


def _check(x: torch.Tensor, weight: torch.Tensor) -> None:
    check("x", x, (None, None), dtypes=FLOATS)
    check("weight", weight, (x.shape[1],), dtypes=FLOATS, like=x)


def _cpu(x: torch.Tensor, weight: torch.Tensor, eps: float, offset: float) -> torch.Tensor:
    wide = x.float()
    gain = weight.float() + offset if offset else weight.float()
    # torch's own rms_norm squares into a tensor as large as x; the vector norm reads x once
    norms: torch.Tensor = torch.linalg.vector_norm(wide, dim=-1, keepdim=True)
    return (wide * norms.square_().mul_(1 / x.shape[1]).add_(eps).rsqrt_()).mul_(gain)


def _triton(
    x: torch.Tensor, residual: torch.Tensor | None, weight: torch.Tensor, dtype: torch.dtype, eps: float, offset: float
) -> tuple[torch.Tensor, torch.Tensor]:
    """One program a row; (y of `dtype`, scales, which only codes have)."""
    rows, width = x.shape
    quantised = dtype.itemsize == 1
    y = torch.empty((rows, width), dtype=dtype, device=x.device)
    scales = torch.empty(rows if quantised else 0, device=x.device)
    config = choose("rms_norm", "narrow" if width <= NARROW else "wide")
    _kernel[(rows,)](
        x, x if residual is None else residual, weight, y, scales, width, eps, offset,
        BLOCK=power_of_two(width),
        ADD=residual is not None,
        LARGEST_CODE=largest_code(dtype) if quantised else None,
        **config.options(),
    )  # fmt: skip
    return y, scales


@jit(do_not_specialize=["eps", "offset"])
def _kernel(
    x: Pointer,
    residual: Pointer,
    weight: Pointer,
    y: Pointer,
    scales: Pointer,
    width: Scalar,
    eps: Scalar,
    offset: Scalar,
    BLOCK: constexpr,
    ADD: constexpr,
    LARGEST_CODE: constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    at = row * width + column
    value = tl.load(x + at, mask=inside, other=0.0).to(tl.float32)
    if ADD:
        value += tl.load(residual + at, mask=inside, other=0.0).to(tl.float32)
        value = value.to(residual.dtype.element_ty)
        tl.store(residual + at, value, mask=inside)
        value = value.to(tl.float32)  # the norm sees what the residual stream keeps
    gain = tl.load(weight + column, mask=inside, other=0.0).to(tl.float32) + offset
    normed = value * tl.rsqrt(tl.sum(value * value) / width + eps) * gain
    if LARGEST_CODE is None:
        tl.store(y + at, normed.to(y.dtype.element_ty), mask=inside)
    else:
        scale = row_scale(tl.max(tl.where(inside, tl.abs(normed), 0.0)), LARGEST_CODE)
        tl.store(scales + row, scale)
        tl.store(y + at, to_code(normed / scale, y.dtype.element_ty), mask=inside)
