"""Linear layers with 8-bit weights: both sides quantised per row (W8A8, fp8 or int8), or the weight alone (W8A16).

y[m, n] = x_scales[m] · scales[n] · Σ_k x[m, k] · weight[n, k], summed in float32 (int8 · int8 in int32, exactly). Up
to 64 rows the product is bound by reading the weight, and a Triton kernel reads it once, split over k; above, the
library's GEMM takes over.

Hopper's fp8 products accumulate in fewer bits than float32: the kernel adds them up in float32 every PROMOTE inputs.
"""

import torch

from dql.kernels.configs import choose
from dql.kernels.language import (
    Pointer,
    Scalar,
    cdiv,
    compute_type,
    constexpr,
    interpreting,
    jit,
    power_of_two,
    tl,
    uses_triton,
)
from dql.kernels.layout import FLOATS, FP8, check
from dql.kernels.scale_sums import scale_sums
from dql.kernels.split_k import join_parts, splits_of

SKINNY = 64  # rows up to which the Triton kernel is used
PROMOTE = 128
_LIBRARY = 16  # extents of a weight that the library's 8-bit products take: multiples of this


def quantized_linear(
    x: torch.Tensor,
    x_scales: torch.Tensor,
    weight: torch.Tensor,
    scales: torch.Tensor,
    dtype: torch.dtype,
    bias: torch.Tensor | None = None,
) -> torch.Tensor:
    """x codes [rows, inputs], x_scales [rows], weight codes [outputs, inputs], scales [outputs] → [rows, outputs].

    x and weight are both fp8 e4m3 or both int8, scales float32, the result `dtype`; bias [outputs] is added to it.
    """
    check("x", x, (None, None), dtypes=(FP8, torch.int8))
    check("x_scales", x_scales, (x.shape[0],), dtypes=(torch.float32,), like=x)
    _check_weight(x, weight, scales, x.dtype)
    library = x.shape[0] > SKINNY and not (weight.shape[0] % _LIBRARY or weight.shape[1] % _LIBRARY)
    if uses_triton(x) and library and x.dtype == torch.int8:
        return scale_sums(torch._int_mm(x, weight.t()), x_scales, scales, dtype, bias)
    y = _product(x, x_scales, weight, scales, dtype, library)
    return y if bias is None else y.add_(bias)


def _product(
    x: torch.Tensor,
    x_scales: torch.Tensor,
    weight: torch.Tensor,
    scales: torch.Tensor,
    dtype: torch.dtype,
    library: bool,
) -> torch.Tensor:
    if not uses_triton(x):
        return _cpu(x.float(), weight.float(), x_scales[:, None] * scales).to(dtype)
    if x.shape[0] <= SKINNY:
        return _triton(x, weight, x_scales, scales, dtype)
    if not library:
        wide = dtype if dtype == torch.float32 else torch.bfloat16  # in which all codes are exact
        return (_cpu(x.to(wide), weight.to(wide), scales).float() * x_scales[:, None]).to(dtype)
    return torch._scaled_mm(x, weight.t(), x_scales[:, None], scales[None], out_dtype=dtype)


def weight_only_linear(x: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """x [rows, inputs] float, weight int8 [outputs, inputs], scales [outputs] float32 → [rows, outputs] like x."""
    check("x", x, (None, None), dtypes=FLOATS)
    _check_weight(x, weight, scales, torch.int8)
    if uses_triton(x) and x.shape[0] <= SKINNY:
        return _triton(x, weight, None, scales, x.dtype)
    return _cpu(x, weight.to(x.dtype), scales).to(x.dtype)


def _check_weight(x: torch.Tensor, weight: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype) -> None:
    check("weight", weight, (None, x.shape[1]), dtypes=(dtype,), like=x)
    check("scales", scales, (weight.shape[0],), dtypes=(torch.float32,), like=x)


def _cpu(x: torch.Tensor, weight: torch.Tensor, factors: torch.Tensor) -> torch.Tensor:
    return torch.nn.functional.linear(x, weight) * factors


def _triton(
    x: torch.Tensor, weight: torch.Tensor, x_scales: torch.Tensor | None, scales: torch.Tensor, dtype: torch.dtype
) -> torch.Tensor:
    (rows, inputs), outputs = x.shape, weight.shape[0]
    if not rows:  # the kernel reads the last row in place of those beyond it
        return x.new_empty((0, outputs), dtype=dtype)
    kind = "w8a16" if x_scales is None else "fp8" if x.dtype == FP8 else "int8"
    config = choose("eight_bit_linear", kind)
    block_n, block_k = config.blocks["BLOCK_N"], config.blocks["BLOCK_K"]
    splits = splits_of(outputs, inputs, block_n, block_k)
    parts = torch.empty((splits, rows, outputs), dtype=dtype if splits == 1 else torch.float32, device=x.device)
    compute = compute_type(dtype) if x_scales is None or interpreting() else None  # None: the codes as they are
    _kernel[(cdiv(outputs, block_n), splits)](
        x, weight, x if x_scales is None else x_scales, scales, parts, rows, outputs, inputs,
        cdiv(cdiv(inputs, block_k), splits) * block_k,
        SCALED=x_scales is not None, EXACT=kind == "int8" and not interpreting(), COMPUTE=compute,
        EVEN=inputs % block_k == 0, IMPRECISE=PROMOTE, BLOCK_M=max(16, power_of_two(rows)), **config.options(),
    )  # fmt: skip
    return parts.view(rows, outputs) if splits == 1 else join_parts(parts, dtype)


@jit(do_not_specialize=["rows"])
def _kernel(
    x: Pointer, weight: Pointer, x_scales: Pointer, scales: Pointer, parts: Pointer,
    rows: Scalar, outputs: Scalar, inputs: Scalar, stretch: Scalar,
    SCALED: constexpr, EXACT: constexpr, COMPUTE: constexpr, EVEN: constexpr, IMPRECISE: constexpr,
    BLOCK_M: constexpr, BLOCK_N: constexpr, BLOCK_K: constexpr,
) -> None:  # fmt: skip
    """The transposed product: outputs fill the tensor core's long side, the few rows its short one."""
    output = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    split = tl.program_id(1)
    row, inner = tl.arange(0, BLOCK_M), tl.arange(0, BLOCK_K)
    begin = split * stretch
    # beyond the edge the last real one is read again: its result is not stored, and no load needs a mask
    output_row = tl.minimum(output, outputs - 1).to(tl.int64)
    weight += output_row[:, None] * inputs + inner[None, :]
    x += tl.minimum(row, rows - 1).to(tl.int64)[:, None] * inputs + inner[None, :]
    total = tl.zeros((BLOCK_N, BLOCK_M), tl.int32 if EXACT else tl.float32)
    for k in range(begin, tl.minimum(begin + stretch, inputs), BLOCK_K):
        if EVEN:
            w, rows_of_x = tl.load(weight + k), tl.load(x + k)
        else:
            inside = (k + inner < inputs)[None, :]
            w, rows_of_x = tl.load(weight + k, mask=inside, other=0.0), tl.load(x + k, mask=inside, other=0.0)
        if COMPUTE is not None:
            w, rows_of_x = w.to(COMPUTE), rows_of_x.to(COMPUTE)
        if EXACT:
            total = tl.dot(w, tl.trans(rows_of_x), total, out_dtype=tl.int32)
        else:
            total = tl.dot(
                w, tl.trans(rows_of_x), total, input_precision="tf32x3", max_num_imprecise_acc=IMPRECISE
            )  # fmt: skip
    result = total.to(tl.float32) * tl.load(scales + output_row)[:, None]
    if SCALED:
        result *= tl.load(x_scales + row, mask=row < rows, other=0.0)[None, :]
    at = (split.to(tl.int64) * rows + row)[None, :] * outputs + output[:, None]
    inside = (row < rows)[None, :] & (output < outputs)[:, None]
    tl.store(parts + at, result.to(parts.dtype.element_ty), mask=inside)
