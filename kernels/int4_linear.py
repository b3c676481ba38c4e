"""The linear layer with a 4-bit weight in groups of 128 inputs (W4A16).

y[m, n] = Σ_g scales[g, n] · Σ_{k in g} code[n, k] · x[m, k] + minimums[g, n] · Σ_{k in g} x[m, k], summed in float32.
Up to 64 rows a Triton kernel unpacks the weight in registers on its way into the product; above, the weight is unpacked
once and the library's GEMM takes over. Layout: `quantize.Int4Weight`.
"""

import torch

from dql.kernels.configs import choose
from dql.kernels.language import (
    Block,
    Pointer,
    Scalar,
    cdiv,
    compute_type,
    constexpr,
    jit,
    power_of_two,
    tl,
    uses_triton,
)
from dql.kernels.layout import FLOATS, check
from dql.kernels.quantize import GROUP, Int4Weight, dequantize_int4
from dql.kernels.split_k import join_parts, splits_of

SKINNY = 64  # rows up to which the Triton kernel is used


def int4_linear(x: torch.Tensor, weight: Int4Weight) -> torch.Tensor:
    """x [rows, inputs] float → [rows, outputs] like x."""
    check("x", x, (None, weight.inputs), dtypes=FLOATS, like=weight.words)
    if uses_triton(x) and x.shape[0] <= SKINNY:
        return _triton(x, weight)
    return torch.nn.functional.linear(x, dequantize_int4(weight, x.dtype))


def _triton(x: torch.Tensor, weight: Int4Weight) -> torch.Tensor:
    (rows, _), outputs = x.shape, weight.outputs
    if not rows:  # the kernel reads the last row in place of those beyond it
        return x.new_empty((0, outputs))
    block_m = max(16, power_of_two(rows))
    config = choose("int4_linear", f"{block_m} rows")
    splits = splits_of(outputs, weight.inputs, config.blocks["BLOCK_N"], GROUP)
    groups = weight.words.shape[0]
    parts = torch.empty((splits, rows, outputs), dtype=x.dtype if splits == 1 else torch.float32, device=x.device)
    _kernel[(cdiv(outputs, config.blocks["BLOCK_N"]), splits)](
        x, weight.words, weight.scales, weight.minimums, parts, rows, outputs, groups, cdiv(groups, splits),
        COMPUTE=compute_type(x.dtype), BLOCK_M=block_m, **config.options(),
    )  # fmt: skip
    return parts.view(rows, outputs) if splits == 1 else join_parts(parts, x.dtype)


@jit()
def _plane(word: Block, x: Block, products: Block, PLANE: constexpr, COMPUTE: constexpr) -> Block:
    """products + 2⁻²² · 16^(PLANE mod 5) · the codes of a nibble plane [BLOCK_N, 16] · their inputs [BLOCK_M, 16].

    A code is read where it lies: as the low bits of a float32 it is the subnormal code · 16^place · 2⁻¹⁴⁹, which one
    exact product lifts to normal numbers. Shifts (none for five planes of eight) and conversions would bind otherwise.
    """
    PLACE: tl.constexpr = PLANE % 5
    shifted = word >> (4 * (PLANE - PLACE)) if PLANE != PLACE else word
    codes = (shifted & (15 << (4 * PLACE))).to(tl.float32, bitcast=True) * 1.7014118346046923e38
    inputs = tl.load(x + PLANE * 16).to(COMPUTE)
    return tl.dot(codes.to(COMPUTE), tl.trans(inputs), products, input_precision="tf32x3")


@jit(do_not_specialize=["rows", "groups", "stretch"])
def _kernel(
    x: Pointer, words: Pointer, scales: Pointer, minimums: Pointer, parts: Pointer,
    rows: Scalar, outputs: Scalar, groups: Scalar, stretch: Scalar,
    COMPUTE: constexpr, BLOCK_M: constexpr, BLOCK_N: constexpr,
) -> None:  # fmt: skip
    """One group a step, one product per nibble plane: plane i of the words meets inputs 16i … 16i + 15."""
    output = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    split = tl.program_id(1)
    begin = split * stretch
    row, inner = tl.arange(0, BLOCK_M), tl.arange(0, 16)
    output_row = begin.to(tl.int64) * outputs + tl.minimum(output, outputs - 1)
    x += tl.minimum(row, rows - 1).to(tl.int64)[:, None] * (groups * 128) + begin * 128 + inner[None, :]
    words += output_row[:, None] * 16 + inner[None, :]
    scales += output_row
    minimums += output_row
    total = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
    for _ in range(begin, tl.minimum(begin + stretch, groups)):
        word = tl.load(words)
        zero = tl.zeros((BLOCK_N, BLOCK_M), tl.float32)
        first = _plane(word, x, _plane(word, x, zero, 0, COMPUTE), 5, COMPUTE)
        second = _plane(word, x, _plane(word, x, zero, 1, COMPUTE), 6, COMPUTE)
        third = _plane(word, x, _plane(word, x, zero, 2, COMPUTE), 7, COMPUTE)
        fourth = _plane(word, x, zero, 3, COMPUTE)
        fifth = _plane(word, x, zero, 4, COMPUTE)
        products = first + second * 0.0625 + third * 0.00390625 + fourth * 0.000244140625 + fifth * 1.52587890625e-05
        sums = tl.zeros((BLOCK_M, 16), tl.float32)
        for plane in tl.static_range(8):
            sums += tl.load(x + plane * 16).to(tl.float32)
        total += products * (tl.load(scales) * 4194304.0)[:, None]
        total += tl.load(minimums)[:, None] * tl.sum(sums, axis=1)[None, :]
        words += outputs * 16
        scales += outputs
        minimums += outputs
        x += 128
    at = (split.to(tl.int64) * rows + row)[None, :] * outputs + output[:, None]
    inside = (row < rows)[None, :] & (output < outputs)[:, None]
    tl.store(parts + at, total.to(parts.dtype.element_ty), mask=inside)
