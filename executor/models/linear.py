"""Matrices that activations are multiplied with: what a decoder asks of one, and the full-precision layouts.

On the CPU oneDNN's packed layout with its fused tails (activation, product, sum) is used where torch offers it: 15–35 %
faster than F.linear at 64 to 1,024 rows on AVX-512, and no pass over memory for the tails.
"""

from typing import Literal, Protocol

import torch
from torch.nn import functional

from dql.kernels.activation import gated

Activation = Literal["none", "silu", "gelu_tanh", "gelu"]
GateActivation = Literal["silu", "gelu_tanh"]

_ROWS = 256  # the packed layout is chosen for about so many rows; it serves all others
_TAILS = {"none": ("none", ""), "silu": ("swish", ""), "gelu_tanh": ("gelu", "tanh"), "gelu": ("gelu", "none")}


class Linear(Protocol):
    """y = x · weightᵀ + bias, with weight [outputs, inputs] in whatever precision and x [rows, inputs]."""

    @property
    def outputs(self) -> int: ...

    def __call__(self, x: torch.Tensor, activation: Activation = "none") -> torch.Tensor:
        """act(x · weightᵀ + bias), [rows, outputs], like x."""
        ...

    def plus(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        """residual + x · weightᵀ + bias, [rows, outputs], like residual, in whose memory it may lie."""
        ...


class Gated(Protocol):
    """act(x · gateᵀ) ⊙ (x · upᵀ), x [rows, inputs] → [rows, width] in whatever type the matrix below takes."""

    def __call__(self, x: torch.Tensor) -> torch.Tensor: ...


class Layout(Protocol):
    """How a model is held: its device, the type of its hidden states, and what becomes of its matrices."""

    @property
    def device(self) -> torch.device: ...

    @property
    def dtype(self) -> torch.dtype: ...

    def linear(self, role: str, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Linear:
        """The matrix with this role ('qkv', 'o', 'up', 'down', 'head'); weight float32 [outputs, inputs]."""
        ...

    def gated(
        self, gate: torch.Tensor, up: torch.Tensor, bias: torch.Tensor | None, activation: GateActivation
    ) -> Gated:
        """gate, up float32 [width, inputs]; bias [2 · width] of both, gate first."""
        ...


class DenseLinear:
    """Any device, any float type; weight and x have the same."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self.outputs: int = weight.shape[0]
        self._weight, self._bias = weight.contiguous(), bias

    def __call__(self, x: torch.Tensor, activation: Activation = "none") -> torch.Tensor:
        return activated(functional.linear(x, self._weight, self._bias), activation)

    def plus(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        if residual.is_cuda and self._bias is None:  # cuBLAS adds up to what is there, in float32
            return residual.addmm_(x, self._weight.t())
        return self(x).add_(residual)


class PackedLinear:
    """oneDNN's packed layout, fp32 or bf16; x has the weight's type."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None = None) -> None:
        self.outputs: int = weight.shape[0]
        self._weight: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), _ROWS)
        self._bias = bias

    def __call__(self, x: torch.Tensor, activation: Activation = "none") -> torch.Tensor:
        name, algorithm = _TAILS[activation]
        y: torch.Tensor = torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, name, [], algorithm)
        return y

    def plus(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return self._joined(x, residual, "add")

    def times(self, x: torch.Tensor, factor: torch.Tensor) -> torch.Tensor:
        """factor ⊙ (x · weightᵀ + bias), [rows, outputs]."""
        return self._joined(x, factor, "mul")

    def _joined(self, x: torch.Tensor, other: torch.Tensor, operation: str) -> torch.Tensor:
        y: torch.Tensor = torch.ops.mkldnn._linear_pointwise.binary(x, other, self._weight, self._bias, operation)
        return y


class StackedGated:
    """Both products in one matrix [2 · width, inputs], gate first; the activation in a pass of its own."""

    def __init__(self, both: Linear, activation: GateActivation) -> None:
        self._both, self._activation = both, activation

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return gated(self._both(x), self._activation)


class PackedGated:
    """Two packed matrices, the activation and the product fused into them as tails."""

    def __init__(self, gate: PackedLinear, up: PackedLinear, activation: GateActivation) -> None:
        self._gate, self._up, self._activation = gate, up, activation

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self._up.times(x, self._gate(x, self._activation))


def activated(y: torch.Tensor, activation: Activation) -> torch.Tensor:
    """act(y), in place where torch can."""
    if activation == "silu":
        return functional.silu(y, inplace=True)
    if activation == "none":
        return y
    return functional.gelu(y, approximate="tanh" if activation == "gelu_tanh" else "none")


def packing_works(dtype: torch.dtype = torch.float32) -> bool:
    """Whether this torch build offers the packed CPU layout and gets a small product, with every tail, right."""
    if not hasattr(torch.ops.mkldnn, "_linear_pointwise"):
        return False
    weight = torch.arange(24.0).view(4, 6).sub_(11.5).div_(12)
    x = torch.arange(18.0).view(3, 6).sub_(8.5).div_(9)
    other = torch.linspace(-2, 2, 12).view(3, 4)
    plain = DenseLinear(weight)
    try:
        packed = PackedLinear(weight.to(dtype))
        activations: tuple[Activation, ...] = ("none", "silu", "gelu_tanh", "gelu")
        pairs = [(packed(x.to(dtype), name), plain(x, name)) for name in activations]
        pairs.append((packed.plus(x.to(dtype), other.to(dtype)), plain.plus(x, other)))
        pairs.append((packed.times(x.to(dtype), other.to(dtype)), plain(x).mul_(other)))
    except (RuntimeError, NotImplementedError):  # the operator exists and this processor cannot run it
        return False
    atol = 1e-5 if dtype == torch.float32 else 0.05
    return all(torch.allclose(a.float(), b, atol=atol) for a, b in pairs)
