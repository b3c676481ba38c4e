"""What the library's int8 product leaves to do: its int32 sums times both sides' scales, and the bias, in one pass.

y[m, n] = x_scales[m] · scales[n] · sums[m, n] + bias[n]
"""

import torch

from dql.kernels.configs import choose
from dql.kernels.language import Pointer, Scalar, cdiv, constexpr, jit, tl, uses_triton
from dql.kernels.layout import FLOATS, check


def scale_sums(
    sums: torch.Tensor,
    x_scales: torch.Tensor,
    scales: torch.Tensor,
    dtype: torch.dtype,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """sums int32 [rows, outputs], x_scales float32 [rows], scales float32 [outputs], bias [outputs] → `dtype`."""
    check("sums", sums, (None, None), dtypes=(torch.int32,))
    check("x_scales", x_scales, (sums.shape[0],), dtypes=(torch.float32,), like=sums)
    check("scales", scales, (sums.shape[1],), dtypes=(torch.float32,), like=sums)
    if bias is not None:
        check("bias", bias, (sums.shape[1],), dtypes=FLOATS, like=sums)
    return (_triton if uses_triton(sums) else _cpu)(sums, x_scales, scales, dtype, bias)


def _cpu(
    sums: torch.Tensor, x_scales: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype, bias: torch.Tensor | None
) -> torch.Tensor:
    y = sums.float().mul_(x_scales[:, None]).mul_(scales)
    return (y if bias is None else y.add_(bias)).to(dtype)


def _triton(
    sums: torch.Tensor, x_scales: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype, bias: torch.Tensor | None
) -> torch.Tensor:
    rows, outputs = sums.shape
    y = torch.empty((rows, outputs), dtype=dtype, device=sums.device)
    config = choose("scale_sums", "any")
    _kernel[(rows, cdiv(outputs, config.blocks["BLOCK"]))](
        sums, x_scales, scales, scales if bias is None else bias, y, outputs, BIAS=bias is not None, **config.options()
    )  # fmt: skip
    return y


@jit()
def _kernel(
    sums: Pointer, x_scales: Pointer, scales: Pointer, bias: Pointer, y: Pointer, outputs: Scalar,
    BIAS: constexpr, BLOCK: constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    output = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    inside = output < outputs
    value = tl.load(sums + row * outputs + output, mask=inside, other=0).to(tl.float32)
    value = value * tl.load(x_scales + row) * tl.load(scales + output, mask=inside, other=0.0)
    if BIAS:
        value += tl.load(bias + output, mask=inside, other=0.0).to(tl.float32)
    tl.store(y + row * outputs + output, value.to(y.dtype.element_ty), mask=inside)
