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
from dql.executor.models.linear_codes import EightBitGated, EightBitLinear, Int4Linear
from dql.executor.models.linear_int8 import Int8Gated, Int8Linear, int8_works
from dql.executor.smooth import TEXT, smoothed
from dql.executor.weights import Weights
from dql.kernels.language import interpreting
from dql.kernels.layout import FP8
from dql.kernels.quantize import GROUP
from dql.models.model import Model
from dql.planner.hardware import cpu_precisions

KV_TYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
KERNEL_KV_TYPES = {"bf16": torch.bfloat16, "fp8": FP8}  # on a GPU, beside 16-bit queries
_CODES = {"fp8": FP8, "int8": torch.int8}


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


@dataclass(frozen=True, slots=True)
class MixedInt8Layout:
    """int8 on the CPU for the matrices below norms; `sensitive` holds the others, whose inputs have wide outliers.

    `sensitive` also holds all matrices for tokens that are to be precise.
    """

    sensitive: Layout

    @property
    def device(self) -> torch.device:
        return self.sensitive.device

    @property
    def dtype(self) -> torch.dtype:
        return self.sensitive.dtype

    def linear(self, role: str, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Linear:
        return Int8Linear(weight, bias) if role == "qkv" else self.sensitive.linear(role, weight, bias)

    def gated(
        self, gate: torch.Tensor, up: torch.Tensor, bias: torch.Tensor | None, activation: GateActivation
    ) -> Gated:
        return Int8Gated(gate, up, bias, activation)


@dataclass(frozen=True, slots=True)
class CodesLayout:
    """Matrices in 8-bit or 4-bit codes for dql's kernels, hidden states, embedding and head in 16 bits.

    int4 leaves a matrix whose inputs are no multiple of its groups as it is.
    """

    device: torch.device
    weights: str
    dtype: torch.dtype = torch.bfloat16

    def linear(self, role: str, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Linear:
        offset = None if bias is None else bias.to(device=self.device, dtype=self.dtype)
        if role == "head" or (self.weights == "int4" and weight.shape[1] % GROUP):
            return DenseLinear(weight.to(device=self.device, dtype=self.dtype), offset)
        exact = weight.to(self.device)
        if self.weights == "int4":
            return Int4Linear(exact, offset)
        return EightBitLinear(exact, offset, _CODES[self.weights])

    def gated(
        self, gate: torch.Tensor, up: torch.Tensor, bias: torch.Tensor | None, activation: GateActivation
    ) -> Gated:
        both = self.linear("gated", torch.cat((gate, up)), bias)
        return EightBitGated(both, activation) if isinstance(both, EightBitLinear) else StackedGated(both, activation)


def layout(weights: str, device: torch.device) -> Layout:
    """The layout of a precision. Raises UnsupportedError where device, chip or torch build lack it."""
    if device.type == "cpu":
        return _cpu_layout(weights, device)
    kernels = ("bf16", "int8", "int4")  # the attention kernels take 16-bit queries: no fp32
    if weights == "bf16":
        return DenseLayout(device, torch.bfloat16)
    if weights not in (*kernels, "fp8"):
        raise _unsupported(weights, str(device), ("fp8", *kernels))
    if weights == "fp8" and torch.cuda.get_device_capability(device) < (8, 9):
        raise _unsupported(weights, torch.cuda.get_device_name(device), kernels)
    return CodesLayout(device, weights)


def prepared(weights: Weights, model: Model, held: Layout) -> Weights:
    """The weights as this layout wants them: smoothed for activations in int8 on the CPU, elsewhere as they are."""
    if not isinstance(held, MixedInt8Layout) or not model.shape.causal:
        return weights
    ids, _ = model.tokenizer.encode_data([TEXT])
    return smoothed(weights, model.shape, ids[: model.shape.context_length].tolist(), layout("fp32", held.device))


def above(weights: Weights, held: Layout) -> tuple[Weights, Layout] | None:
    """The checkpoint and the layout of precise tokens, where this layout is of two precisions."""
    return (weights, held.sensitive) if isinstance(held, MixedInt8Layout) else None


def kv_type(kv_cache: str, device: torch.device) -> torch.dtype:
    """The type that keys and values are stored in. Raises UnsupportedError."""
    types = KERNEL_KV_TYPES if device.type != "cpu" else KV_TYPES | KERNEL_KV_TYPES if interpreting() else KV_TYPES
    if kv_cache not in types:
        raise UnsupportedError(f"kv_cache = {kv_cache} does not run on {device}", hint=f"it runs {', '.join(types)}")
    return types[kv_cache]


def _cpu_layout(weights: str, device: torch.device) -> Layout:
    exact: Layout = PackedLayout(device) if packing_works() else DenseLayout(device)
    if weights == "fp32":
        return exact
    offered = cpu_precisions()
    if weights not in offered:
        raise _unsupported(weights, "this processor", offered)
    half = Bf16Layout(device) if "bf16" in offered and packing_works(torch.bfloat16) else None
    if weights == "bf16" and half is not None:
        return half
    if weights == "int8" and int8_works():
        return MixedInt8Layout(half or exact)
    raise _unsupported(weights, f"torch {torch.__version__} on this processor", ("fp32",))


def _unsupported(weights: str, where: str, offered: tuple[str, ...]) -> UnsupportedError:
    return UnsupportedError(f"quantization = {weights} does not run on {where}", hint=f"it runs {', '.join(offered)}")
