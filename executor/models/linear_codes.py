"""Matrices held as codes and multiplied by dql's kernels: W8A8 in fp8 or int8, W4A16 in groups of 128."""

import torch

from dql.executor.models.linear import Activation, GateActivation, activated
from dql.kernels.activation import gated, gated_quantized
from dql.kernels.eight_bit_linear import quantized_linear
from dql.kernels.int4_linear import int4_linear
from dql.kernels.quantize import encode, quantize_int4, quantize_rows


class EightBitLinear:
    """Both sides in fp8 e4m3 or int8: one scale per output of the weight, one per row of x, found as it runs."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, codes: torch.dtype) -> None:
        self.outputs: int = weight.shape[0]
        self._weight, self._scales = encode(weight, codes)
        self._bias = bias

    @property
    def codes(self) -> torch.dtype:
        """The type of the codes on both sides."""
        return self._weight.dtype

    def __call__(self, x: torch.Tensor, activation: Activation = "none") -> torch.Tensor:
        return activated(self.product(*quantize_rows(x, self.codes), x.dtype), activation)

    def plus(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return self(x).add_(residual)

    def product(self, codes: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
        """The product of rows that are codes already: codes [rows, inputs], scales [rows] → [rows, outputs] `dtype`."""
        return quantized_linear(codes, scales, self._weight, self._scales, dtype, self._bias)


class EightBitGated:
    """Both products in one matrix of 8-bit codes [2 · width, inputs], gate first."""

    def __init__(self, both: EightBitLinear, activation: GateActivation) -> None:
        self.both, self._activation = both, activation

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return gated(self.both(x), self._activation)

    def codes_of(
        self, codes: torch.Tensor, scales: torch.Tensor, dtype: torch.dtype, below: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """From codes of x to (codes, scales) of type `below` for the matrix below; between them, `dtype`."""
        return gated_quantized(self.both.product(codes, scales, dtype), self._activation, below)


class Int4Linear:
    """The weight in 4 bits, x as it is. The inputs are a multiple of 128."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.outputs: int = weight.shape[0]
        self._weight = quantize_int4(weight.contiguous())
        self._bias = bias

    def __call__(self, x: torch.Tensor, activation: Activation = "none") -> torch.Tensor:
        y = int4_linear(x, self._weight)
        return activated(y if self._bias is None else y.add_(self._bias), activation)

    def plus(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return self(x).add_(residual)
