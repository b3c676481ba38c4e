"""The gated activations of a feed-forward block on the fused projection gate|up, plain and with quantised output.

y = act(gate) · up, where act is SiLU (SwiGLU: Llama, Qwen, Mistral) or tanh-approximated GELU (GeGLU: Gemma).
"""

from typing import Literal

import torch

from dql.kernels.configs import choose
from dql.kernels.device import row_scale, to_code
from dql.kernels.language import Block, Pointer, Scalar, cdiv, constexpr, jit, tl, uses_triton
from dql.kernels.layout import FLOATS, check
from dql.kernels.quantize import encode, largest_code

Activation = Literal["silu", "gelu_tanh"]


def gated(x: torch.Tensor, activation: Activation) -> torch.Tensor:
    """x [rows, 2·width], gate first → [rows, width] in x's dtype. Computed in float32."""
    check("x", x, (None, None), dtypes=FLOATS)
    if uses_triton(x):
        return _triton(x, activation)
    return _cpu(x, activation).to(x.dtype)


def gated_quantized(x: torch.Tensor, activation: Activation, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """`gated` as (codes [rows, width] of fp8 e4m3 or int8, scales [rows] float32), y ≈ codes · scales[:, None]."""
    check("x", x, (None, None), dtypes=FLOATS)
    if uses_triton(x):
        return _triton_quantized(x, activation, dtype)
    return encode(_cpu(x, activation), dtype)


def _cpu(x: torch.Tensor, activation: Activation) -> torch.Tensor:
    gate, up = x.float().chunk(2, dim=-1)
    if activation == "silu":
        return torch.nn.functional.silu(gate).mul_(up)
    return torch.nn.functional.gelu(gate, approximate="tanh").mul_(up)


def _triton(x: torch.Tensor, activation: Activation) -> torch.Tensor:
    rows, width = x.shape[0], x.shape[1] // 2
    y = torch.empty((rows, width), dtype=x.dtype, device=x.device)
    config = choose("gated", "any")
    grid = (rows, cdiv(width, config.blocks["BLOCK"]))
    _kernel[grid](x, y, width, ACTIVATION=activation, **config.options())
    return y


def _triton_quantized(x: torch.Tensor, activation: Activation, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    rows, width = x.shape[0], x.shape[1] // 2
    y = torch.empty((rows, width), dtype=dtype, device=x.device)
    scales = torch.empty(rows, device=x.device)
    options = choose("gated_quantized", "any").options()
    _quantized_kernel[(rows,)](
        x, y, scales, width, ACTIVATION=activation, LARGEST_CODE=largest_code(dtype), **options
    )  # fmt: skip
    return y, scales


@jit()
def _gate(x: Pointer, row: Scalar, column: Block, width: Scalar, ACTIVATION: constexpr) -> Block:
    inside = column < width
    gate = tl.load(x + row * 2 * width + column, mask=inside, other=0.0).to(tl.float32)
    up = tl.load(x + row * 2 * width + width + column, mask=inside, other=0.0).to(tl.float32)
    if ACTIVATION == "silu":
        return gate * tl.sigmoid(gate) * up
    return gate * tl.sigmoid(1.5957691216057308 * (gate + 0.044715 * gate * gate * gate)) * up


@jit()
def _kernel(x: Pointer, y: Pointer, width: Scalar, ACTIVATION: constexpr, BLOCK: constexpr) -> None:
    row = tl.program_id(0).to(tl.int64)
    column = tl.program_id(1) * BLOCK + tl.arange(0, BLOCK)
    value = _gate(x, row, column, width, ACTIVATION)
    tl.store(y + row * width + column, value.to(y.dtype.element_ty), mask=column < width)


@jit()
def _quantized_kernel(
    x: Pointer,
    y: Pointer,
    scales: Pointer,
    width: Scalar,
    ACTIVATION: constexpr,
    LARGEST_CODE: constexpr,
    BLOCK: constexpr,
) -> None:
    row = tl.program_id(0).to(tl.int64)
    largest = tl.zeros((BLOCK,), tl.float32)
    for start in range(0, width, BLOCK):
        largest = tl.maximum(largest, tl.abs(_gate(x, row, start + tl.arange(0, BLOCK), width, ACTIVATION)))
    scale = row_scale(tl.max(largest), LARGEST_CODE)
    tl.store(scales + row, scale)
    for start in range(0, width, BLOCK):  # the row again, now from the cache
        column = start + tl.arange(0, BLOCK)
        code = to_code(_gate(x, row, column, width, ACTIVATION) / scale, y.dtype.element_ty)
        tl.store(y + row * width + column, code, mask=column < width)
