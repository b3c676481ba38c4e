"""Rotary position scaling as plain data; the executor turns it into frequencies."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast, get_args

from dql.errors import UnsupportedError

RopeKind = Literal["linear", "llama3", "yarn", "tensor"]


@dataclass(frozen=True, slots=True)
class RopeScaling:
    """How rotary frequencies are stretched past the trained context.

    kind: `linear` divides positions by `factor`; `llama3` and `yarn` blend by wavelength; `tensor` divides the
    frequencies by the checkpoint's own tensor `rope_freqs.weight` (GGUF stores Llama 3's scaling that way).
    original_context: tokens trained on before scaling. attention_factor: on cosines and sines; None leaves yarn's
    default, `yarn_amplitude`.
    """

    kind: RopeKind
    factor: float = 1.0
    original_context: int = 0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None


def rope_kind(fields: Mapping[str, object]) -> object:
    """What a Hugging Face `rope_scaling` / `rope_parameters` entry calls its scaling; 'default' for none."""
    return fields.get("rope_type", fields.get("type", "default"))


def rope_scaling(fields: Mapping[str, object], context_length: int) -> RopeScaling | None:
    """The scaling of a Hugging Face `rope_scaling` / `rope_parameters` entry; None for plain rotary embeddings."""
    kind = rope_kind(fields)
    if kind == "default":
        return None
    if kind not in get_args(RopeKind) or kind == "tensor":
        raise UnsupportedError(f"rotary scaling {kind!r} is not supported", hint="supported: linear, llama3, yarn")
    original = int(_number(fields, "original_max_position_embeddings", context_length))
    factor = _number(fields, "factor", context_length / original if kind == "yarn" else 1.0)
    return RopeScaling(
        kind=cast(RopeKind, kind),
        factor=factor,
        original_context=original,
        low_frequency_factor=_number(fields, "low_freq_factor", 1.0),
        high_frequency_factor=_number(fields, "high_freq_factor", 4.0),
        beta_fast=_number(fields, "beta_fast", 32.0),
        beta_slow=_number(fields, "beta_slow", 1.0),
        attention_factor=_attention_factor(fields, factor),
    )


def yarn_amplitude(factor: float, weight: float = 1.0) -> float:
    """Yarn's factor on cosines and sines, weight · 0.1 ln(factor) + 1; 1 where nothing is stretched."""
    return 1.0 if factor <= 1 else 0.1 * weight * math.log(factor) + 1


def _attention_factor(fields: Mapping[str, object], factor: float) -> float | None:
    """What the entry says itself, or DeepSeek's quotient of two amplitudes; None for yarn's default."""
    if fields.get("attention_factor") is not None:
        return _number(fields, "attention_factor", 1.0)
    above, below = (_number(fields, name, 0.0) for name in ("mscale", "mscale_all_dim"))
    return yarn_amplitude(factor, above) / yarn_amplitude(factor, below) if above and below else None


def _number(fields: Mapping[str, object], key: str, default: float) -> float:
    value = fields.get(key)
    return float(value) if isinstance(value, int | float) else default
