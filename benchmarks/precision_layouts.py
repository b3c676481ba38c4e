"""Matrices in the precisions that the benchmarks of precisions compare: dql's own, and those that were not chosen.

The latter are written as dql would call them, so that their figures are those of the alternative and not of a sketch.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch.nn import functional

from dql.executor.models.linear import Activation, GateActivation, Gated, Layout, Linear, StackedGated, activated
from dql.executor.models.linear_int8 import Int8Gated, Int8Linear
from dql.executor.quantize import Bf16Layout, layout
from dql.planner.hardware import cpu_precisions

CPU = torch.device("cpu")
GROUP = 32  # inputs of one scale in int4; 576, the width of SmolLM2-135M, is no multiple of 128


@dataclass(frozen=True, slots=True)
class Uniform:
    """All matrices of one kind, none of them chosen by role; hidden states in fp32, and the head as well."""

    make: Callable[[torch.Tensor, torch.Tensor | None], Linear]
    device: torch.device = CPU
    dtype: torch.dtype = torch.float32

    def linear(self, role: str, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Linear:
        return layout("fp32", CPU).linear(role, weight, bias) if role == "head" else self.make(weight, bias)

    def gated(
        self, gate: torch.Tensor, up: torch.Tensor, bias: torch.Tensor | None, activation: GateActivation
    ) -> Gated:
        if self.make is Int8Linear:  # as dql has it: x is rounded once for both
            return Int8Gated(gate, up, bias, activation)
        return StackedGated(self.make(torch.cat((gate, up)), bias), activation)


@dataclass(frozen=True, slots=True)
class ByRole:
    """Each matrix in the layout of its role ('qkv', 'o', 'gated', 'down'), others and the head in fp32."""

    layouts: Mapping[str, Layout]
    device: torch.device = CPU
    dtype: torch.dtype = torch.float32

    def linear(self, role: str, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Linear:
        return self._of(role).linear(role, weight, bias)

    def gated(
        self, gate: torch.Tensor, up: torch.Tensor, bias: torch.Tensor | None, activation: GateActivation
    ) -> Gated:
        return self._of("gated").gated(gate, up, bias, activation)

    def _of(self, role: str) -> Layout:
        return self.layouts.get(role) or layout("fp32", CPU)


class _Scaled:
    """What a product needs around it where all that differs is the product: the tail and the sum as passes."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.outputs: int = weight.shape[0]
        self._bias = bias

    def __call__(self, x: torch.Tensor, activation: Activation = "none") -> torch.Tensor:
        y = self.product(x)
        return activated(y if self._bias is None else y.add_(self._bias), activation)

    def plus(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return self(x).add_(residual)

    def product(self, x: torch.Tensor) -> torch.Tensor:
        """x · weightᵀ, float32 [rows, outputs] for x float32 [rows, inputs]."""
        raise NotImplementedError


class HalfLinear(_Scaled):
    """bf16 by F.linear, the weight as it lies in memory."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__(weight, bias)
        self._weight = weight.bfloat16()

    def product(self, x: torch.Tensor) -> torch.Tensor:
        return functional.linear(x.bfloat16(), self._weight).float()


class WeightInt8Linear(_Scaled):
    """The weight alone in int8, a scale a row; activations of the given type."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, dtype: torch.dtype = torch.bfloat16) -> None:
        super().__init__(weight, bias)
        self._weight, scales = _codes(weight)
        self._scales = scales[:, 0].to(dtype)

    def product(self, x: torch.Tensor) -> torch.Tensor:
        narrow = x.to(self._scales.dtype)
        y: torch.Tensor = torch.ops.aten._weight_int8pack_mm(narrow, self._weight, self._scales)
        return y.float()


class WeightInt4Linear(_Scaled):
    """The weight alone in 4 bits, scale and zero of each group of inputs; activations in bf16."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__(weight, bias)
        grouped = weight.view(len(weight), -1, GROUP)
        least = grouped.amin(2)
        scales = (grouped.amax(2) - least).clamp_min_(1e-12).div_(15)
        codes = ((grouped - least[..., None]) / scales[..., None]).round_().clamp_(0, 15).int().view_as(weight)
        self._weight: torch.Tensor = torch.ops.aten._convert_weight_to_int4pack_for_cpu(codes, 1)
        self._scales = torch.stack((scales, least + 8 * scales), -1).transpose(0, 1).contiguous().bfloat16()

    def product(self, x: torch.Tensor) -> torch.Tensor:
        y: torch.Tensor = torch.ops.aten._weight_int4pack_mm_for_cpu(x.bfloat16(), self._weight, GROUP, self._scales)
        return y.float()


class IntMmLinear(_Scaled):
    """Both sides in int8 by torch._int_mm, which hands out sums in int32; a scale a row on each side."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__(weight, bias)
        codes, self._scales = _codes(weight)
        self._weight = codes.t()

    def product(self, x: torch.Tensor) -> torch.Tensor:
        codes, scales = _codes(x)
        return torch._int_mm(codes, self._weight).float().mul_(scales).mul_(self._scales.t())


def chosen() -> dict[str, Layout]:
    """The kinds that dql has on this processor, by name, fp32 first."""
    known: dict[str, Layout] = {"bf16": Bf16Layout(CPU), "int8": Uniform(Int8Linear)}
    return {"fp32": layout("fp32", CPU)} | {name: known[name] for name in cpu_precisions() if name in known}


def passed_over() -> dict[str, Layout]:
    """The kinds that were measured and not taken, by name."""
    return {
        "bf16, F.linear": Uniform(HalfLinear),
        "int8 weight-only": Uniform(WeightInt8Linear),
        "int4 weight-only": Uniform(WeightInt4Linear),
        "int8, `torch._int_mm`": Uniform(IntMmLinear),
    }


def _codes(x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """x [rows, inputs] as int8 codes and a scale a row [rows, 1]."""
    scales = x.abs().amax(1, keepdim=True).clamp_min_(1e-12).div_(127)
    return torch.div(x, scales).round_().to(torch.int8), scales
