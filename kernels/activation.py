"""The gated activations of a feed-forward block on the fused projection gate|up, plain and with quantised output.

y = act(gate) · up, where act is SiLU (SwiGLU: Llama, Qwen, Mistral) or tanh-approximated GELU (GeGLU: Gemma).
"""

from __future__ import annotations

from typing import Literal

import torch

from dql.kernels.layout import FLOATS, check
from dql.kernels.quantize import encode

Activation = Literal["silu", "gelu_tanh"]


def gated(x: torch.Tensor, activation: Activation) -> torch.Tensor:
    """x [rows, 2·width], gate first → [rows, width] in x's dtype. Computed in float32."""
    check("x", x, (None, None), dtypes=FLOATS)
    return _cpu(x, activation).to(x.dtype)


def gated_quantized(x: torch.Tensor, activation: Activation, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """`gated` as (codes [rows, width] of fp8 e4m3 or int8, scales [rows] float32)."""
    check("x", x, (None, None), dtypes=FLOATS)
    return encode(_cpu(x, activation), dtype)


def _cpu(x: torch.Tensor, activation: Activation) -> torch.Tensor:
    gate, up = x.float().chunk(2, dim=-1)
    if activation == "silu":
        return torch.nn.functional.silu(gate).mul_(up)
    return torch.nn.functional.gelu(gate, approximate="tanh").mul_(up)
