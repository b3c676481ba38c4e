"""Precisions: what becomes of a model's matrices as it is loaded, for each kind of device.

A layout is handed to the model that is being built, so that one matrix at a time is held in fp32 beside its result.
Nothing here chooses a precision: the caller names one, and a machine that lacks it says so.
"""

from dataclasses import dataclass

import torch

from dql.errors import UnsupportedError
from dql.executor.models.linear import (
    DenseLinear,
    GateActivation,
    Gated,
    Layout,
    Linear,
    PackedGated,
    PackedLinear,
    StackedGated,
    packing_works,
)
from dql.executor.models.linear_bf16 import Bf16Gated, Bf16Linear
from dql.kernels.language import interpreting
from dql.planner.hardware import cpu_precisions

KV_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
KERNEL_KV_TYPES = {"bf16": torch.bfloat16, "fp8": torch.float8_e4m3fn}  # on a GPU, beside 16-bit queries


@dataclass(frozen=True, slots=True)
class DenseLayout:
    """Matrices as they are, in one float type."""

    device: torch.device
    dtype: torch.dtype = torch.float32

    def linear(self, role: str, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Linear:
        return DenseLinear(self._held(weight), None if bias is None else self._held(bias))

    def gated(
        self, gate: torch.Tensor, up: torch.Tensor, bias: torch.Tensor | None, activation: GateActivation
    ) -> Gated:
        return StackedGated(self.linear("gated", torch.cat((gate, up)), bias), activation)

    def _held(self, tensor: torch.Tensor) -> torch.Tensor:
        return tensor.to(device=self.device, dtype=self.dtype)


@dataclass(frozen=True, slots=True)
class PackedLayout:
    """fp32 on the CPU in oneDNN's layout."""

    device: torch.device
    dtype: torch.dtype = torch.float32

    def linear(self, role: str, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Linear:
        return PackedLinear(weight, bias)

    def gated(
        self, gate: torch.Tensor, up: torch.Tensor, bias: torch.Tensor | None, activation: GateActivation
    ) -> Gated:
        first, second = (None, None) if bias is None else bias.chunk(2)
        return PackedGated(PackedLinear(gate, first), PackedLinear(up, second), activation)


@dataclass(frozen=True, slots=True)
class Bf16Layout:
    """bf16 matrices on the CPU; hidden states and the LM head stay in fp32."""

    device: torch.device
    dtype: torch.dtype = torch.float32

    def linear(self, role: str, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Linear:
        return PackedLinear(weight, bias) if role == "head" else Bf16Linear(weight, bias)

    def gated(
        self, gate: torch.Tensor, up: torch.Tensor, bias: torch.Tensor | None, activation: GateActivation
    ) -> Gated:
        return Bf16Gated(gate, up, bias, activation)


def layout(weights: str, device: torch.device) -> Layout:
    """The layout of a precision. Raises UnsupportedError where device, chip or torch build lack it."""
    if device.type == "cpu":
        return _cpu_layout(weights, device)
    types = {"bf16": torch.bfloat16}  # the attention kernels take 16-bit queries
    if weights not in types:
        raise _unsupported(weights, str(device), tuple(types))
    return DenseLayout(device, types[weights])


def kv_type(kv_cache: str, device: torch.device) -> torch.dtype:
    """The type that keys and values are stored in. Raises UnsupportedError."""
    types = KERNEL_KV_TYPES if device.type != "cpu" else KV_TYPES | KERNEL_KV_TYPES if interpreting() else KV_TYPES
    if kv_cache not in types:
        raise UnsupportedError(f"kv_cache = {kv_cache} does not run on {device}", hint=f"it runs {', '.join(types)}")
    return types[kv_cache]


def _cpu_layout(weights: str, device: torch.device) -> Layout:
    if weights == "fp32":
        return PackedLayout(device) if packing_works() else DenseLayout(device)
    offered = cpu_precisions()
    if weights not in offered:
        raise _unsupported(weights, "this processor", offered)
    if not packing_works(torch.bfloat16):
        raise _unsupported(weights, f"torch {torch.__version__} on this processor", ("fp32",))
    return Bf16Layout(device)


def _unsupported(weights: str, where: str, offered: tuple[str, ...]) -> UnsupportedError:
    return UnsupportedError(f"quantization = {weights} does not run on {where}", hint=f"it runs {', '.join(offered)}")
