"""Matrices held as codes and multiplied by dql's kernels: W8A8 in fp8 or int8, W4A16 in groups of 128."""

import torch

from dql.executor.models.linear import Activation, activated
from dql.kernels.eight_bit_linear import quantized_linear
from dql.kernels.int4_linear import int4_linear
from dql.kernels.quantize import encode, quantize_int4, quantize_rows


class EightBitLinear:
    """Both sides in fp8 e4m3 or int8: one scale per output of the weight, one per row of x, found as it runs."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, codes: torch.dtype) -> None:
        self.outputs: int = weight.shape[0]
        self._weight, self._scales = encode(weight, codes)
        self._bias = bias

    def __call__(self, x: torch.Tensor, activation: Activation = "none") -> torch.Tensor:
        codes, scales = quantize_rows(x, self._weight.dtype)
        y = quantized_linear(codes, scales, self._weight, self._scales, x.dtype)
        return activated(y if self._bias is None else y.add_(self._bias), activation)

    def plus(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return self(x).add_(residual)


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
