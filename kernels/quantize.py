"""Per-row fp8 and int8, and int4 in groups of 128: how values become codes and scales."""

from dataclasses import dataclass

import torch

from dql.kernels.configs import choose
from dql.kernels.device import row_scale, to_code
from dql.kernels.language import Pointer, Scalar, constexpr, jit, tl, uses_triton
from dql.kernels.layout import FLOATS, FP8, check

GROUP = 128  # inputs that share one int4 scale
WORDS = GROUP // 8  # 32-bit words that hold a group


def largest_code(dtype: torch.dtype) -> float:
    """The code that a row's largest magnitude maps to: 448 for fp8 e4m3, 127 for int8."""
    return {FP8: 448.0, torch.int8: 127.0}[dtype]


def encode(values: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """(codes, scales) over the last dimension, in torch: scale = max|x| / largest_code, codes = round(x / scale)."""
    wide = values.float()
    scales = wide.abs().amax(-1).clamp_min(1e-12) / largest_code(dtype)
    codes = wide / scales[..., None]
    return (codes.round() if dtype is torch.int8 else codes).to(dtype), scales


def quantize_rows(x: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """x [rows, width] → codes [rows, width] of fp8 e4m3 or int8, scales [rows] float32; x ≈ codes · scales[:, None]."""
    check("x", x, (None, None), dtypes=FLOATS)
    return _triton(x, dtype) if uses_triton(x) else encode(x, dtype)


def _triton(x: torch.Tensor, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    rows, width = x.shape
    codes = torch.empty((rows, width), dtype=dtype, device=x.device)
    scales = torch.empty(rows, device=x.device)
    options = choose("quantize_rows", "any").options()
    _kernel[(rows,)](x, codes, scales, width, LARGEST_CODE=largest_code(dtype), **options)
    return codes, scales


@jit()
def _kernel(
    x: Pointer, codes: Pointer, scales: Pointer, width: Scalar, LARGEST_CODE: constexpr, BLOCK: constexpr
) -> None:
    row = tl.program_id(0).to(tl.int64)
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, width, BLOCK):
        column = start + tl.arange(0, BLOCK)
        value = tl.load(x + row * width + column, mask=column < width, other=0.0).to(tl.float32)
        largest = tl.maximum(largest, tl.abs(value))
    scale = row_scale(tl.max(largest), LARGEST_CODE)
    tl.store(scales + row, scale)
    for start in range(0, width, BLOCK):  # the row again, now from the cache
        column = start + tl.arange(0, BLOCK)
        value = tl.load(x + row * width + column, mask=column < width, other=0.0).to(tl.float32)
        tl.store(codes + row * width + column, to_code(value / scale, codes.dtype.element_ty), mask=column < width)


@dataclass(frozen=True, slots=True)
class Int4Weight:
    """A [outputs, inputs] weight in 4 bits: w = code · scale + minimum, per output and group of 128 inputs.

    words [groups, outputs, 16] int32: bits 4i…4i+3 of word j hold the code of input group·128 + 16i + j, so that one
    group of a tile of outputs is one dense block and a nibble plane is one dense slice of the inputs.
    scales, minimums [groups, outputs] float32.
    """

    words: torch.Tensor
    scales: torch.Tensor
    minimums: torch.Tensor

    @property
    def outputs(self) -> int:
        return self.words.shape[1]

    @property
    def inputs(self) -> int:
        return self.words.shape[0] * GROUP


def quantize_int4(weight: torch.Tensor) -> Int4Weight:
    """weight [outputs, inputs] (inputs a multiple of 128) → Int4Weight with codes 0…15 from each group's extremes."""
    check("weight", weight, (None, None), dtypes=FLOATS)
    outputs, inputs = weight.shape
    grouped = weight.float().view(outputs, inputs // GROUP, GROUP)
    low, high = grouped.amin(-1), grouped.amax(-1)
    scales = ((high - low) / 15).clamp_min(1e-12)
    codes = ((grouped - low[..., None]) / scales[..., None]).round().clamp_(0, 15).to(torch.int32)
    return pack_int4(codes.view(outputs, inputs), scales, low)


def pack_int4(codes: torch.Tensor, scales: torch.Tensor, minimums: torch.Tensor) -> Int4Weight:
    """codes [outputs, inputs] int32 in 0…15, scales and minimums [outputs, groups] → Int4Weight."""
    outputs, inputs = codes.shape
    planes = codes.view(outputs, inputs // GROUP, 8, WORDS)
    shifts = torch.arange(0, 32, 4, dtype=torch.int32, device=codes.device)[:, None]
    words = (planes << shifts).sum(2, dtype=torch.int64)  # disjoint bits: the sum is the bitwise or
    signed = torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32)
    return Int4Weight(
        signed.transpose(0, 1).contiguous(),
        scales.float().t().contiguous(),
        minimums.float().t().contiguous(),
    )


def dequantize_int4(weight: Int4Weight, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """The dense [outputs, inputs] weight."""
    shifts = torch.arange(0, 32, 4, dtype=torch.int32, device=weight.words.device)[:, None]
    codes = (weight.words[:, :, None, :] >> shifts) & 15  # [groups, outputs, 8, words]
    dense = codes.flatten(2) * weight.scales[..., None] + weight.minimums[..., None]
    return dense.transpose(0, 1).reshape(weight.outputs, weight.inputs).to(dtype)
