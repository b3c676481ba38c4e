"""bf16 matrices on a CPU that multiplies bf16 by itself (AVX512-BF16, AMX), in a model of fp32 hidden states.

Weights are rounded once and activations on their way in; oneDNN sums in fp32 and rounds the result to bf16. Residuals,
norms, rotary embeddings and softmax stay in fp32.
"""

import torch

from dql.executor.models.linear import Activation, GateActivation, PackedLinear


class Bf16Linear:
    """x fp32 or bf16 in, fp32 out."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self.outputs: int = weight.shape[0]
        self._product = PackedLinear(weight.bfloat16(), bias)

    def __call__(self, x: torch.Tensor, activation: Activation = "none") -> torch.Tensor:
        return self._product(x.bfloat16(), activation).float()

    def plus(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return residual + self._product(x.bfloat16())


class Bf16Gated:
    """x fp32 in, bf16 out: the matrix below takes it as it is."""

    def __init__(
        self, gate: torch.Tensor, up: torch.Tensor, bias: torch.Tensor | None, activation: GateActivation
    ) -> None:
        first, second = (None, None) if bias is None else bias.bfloat16().chunk(2)  # a product as tail wants x's type
        self._gate = PackedLinear(gate.bfloat16(), first)
        self._up = PackedLinear(up.bfloat16(), second)
        self._activation = activation

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        narrow = x.bfloat16()
        return self._up.times(narrow, self._gate(narrow, self._activation))
