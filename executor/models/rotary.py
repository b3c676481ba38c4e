"""Cosines and sines of rotary position embeddings, with the ways of stretching them past the trained context.

Formulas as in transformers' modeling_rope_utils.py; computed in float32 as there, so that angles are equal.
"""

import math
from dataclasses import dataclass

import torch

from dql.models.rope import RopeScaling, yarn_amplitude
from dql.models.shape import ModelShape


@dataclass(frozen=True, slots=True)
class RotaryTable:
    """cos, sin [positions, rotary/2] float32."""

    cos: torch.Tensor
    sin: torch.Tensor

    def to(self, device: torch.device) -> "RotaryTable":
        """The same table on another device."""
        return RotaryTable(self.cos.to(device), self.sin.to(device))


def rotary_table(shape: ModelShape, positions: int, *, local: bool, divisors: torch.Tensor | None) -> RotaryTable:
    """The table of the model's full layers, or of its sliding ones (`local`), for positions 0 … positions − 1.

    divisors [rotary/2]: the checkpoint's own frequency divisors, where it brings them.
    """
    dim = shape.rotary_dim or shape.head_dim
    own = local and shape.rope_local_theta is not None
    theta = shape.rope_local_theta if own and shape.rope_local_theta is not None else shape.rope_theta
    scaling = None if own else shape.rope_scaling
    frequencies = 1.0 / theta ** (torch.arange(0, dim, 2, dtype=torch.int64).float() / dim)
    amplitude = 1.0
    if scaling is not None:
        frequencies, amplitude = _scaled(frequencies, scaling, theta, divisors)
    angles = torch.outer(torch.arange(positions).float(), frequencies)
    return RotaryTable(angles.cos() * amplitude, angles.sin() * amplitude)


def identity_table(shape: ModelShape, positions: int) -> RotaryTable:
    """A table that rotates nothing, for the layers of SmolLM3 that have no positions."""
    size = (positions, (shape.rotary_dim or shape.head_dim) // 2)
    return RotaryTable(torch.ones(size), torch.zeros(size))


def _scaled(
    frequencies: torch.Tensor, scaling: RopeScaling, theta: float, divisors: torch.Tensor | None
) -> tuple[torch.Tensor, float]:
    """Stretched frequencies, and the factor on cosines and sines."""
    match scaling.kind:
        case "linear":
            return frequencies / scaling.factor, 1.0
        case "tensor":
            return (frequencies if divisors is None else frequencies / divisors), 1.0
        case "llama3":
            return _llama3(frequencies, scaling), 1.0
        case "yarn":
            amplitude = scaling.attention_factor
            if amplitude is None:
                amplitude = yarn_amplitude(scaling.factor)
            return _yarn(frequencies, scaling, theta), amplitude


def _llama3(frequencies: torch.Tensor, scaling: RopeScaling) -> torch.Tensor:
    low, high = scaling.low_frequency_factor, scaling.high_frequency_factor
    wavelengths = 2 * math.pi / frequencies
    blend = (scaling.original_context / wavelengths - low) / (high - low)
    blended = (1 - blend) * frequencies / scaling.factor + blend * frequencies
    long = wavelengths > scaling.original_context / low
    short = wavelengths < scaling.original_context / high
    return torch.where(long, frequencies / scaling.factor, torch.where(short, frequencies, blended))


def _yarn(frequencies: torch.Tensor, scaling: RopeScaling, theta: float) -> torch.Tensor:
    dim = 2 * len(frequencies)

    def dimension(rotations: float) -> float:
        return dim * math.log(scaling.original_context / (rotations * 2 * math.pi)) / (2 * math.log(theta))

    low = max(math.floor(dimension(scaling.beta_fast)), 0)
    high = min(math.ceil(dimension(scaling.beta_slow)), dim - 1)
    ramp = ((torch.arange(dim // 2).float() - low) / max(high - low, 0.001)).clamp(0, 1)
    return frequencies / scaling.factor * ramp + frequencies * (1 - ramp)
