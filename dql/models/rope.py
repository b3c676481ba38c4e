"""Rotary position scaling as plain data; the executor turns it into frequencies."""

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
    original_context: tokens trained on before scaling. attention_factor None leaves yarn's default, 0.1 ln(factor) + 1.
    """

    kind: RopeKind
    factor: float = 1.0
    original_context: int = 0
    low_frequency_factor: float = 1.0
    high_frequency_factor: float = 4.0
    beta_fast: float = 32.0
    beta_slow: float = 1.0
    attention_factor: float | None = None


def rope_scaling(fields: Mapping[str, object], context_length: int) -> RopeScaling | None:
    """The scaling of a Hugging Face `rope_scaling` / `rope_parameters` entry; None for plain rotary embeddings."""
    kind = fields.get("rope_type", fields.get("type", "default"))
    if kind == "default":
        return None
    if kind not in get_args(RopeKind) or kind == "tensor":
        raise UnsupportedError(f"rotary scaling {kind!r} is not supported", hint="supported: linear, llama3, yarn")
    attention_factor = fields.get("attention_factor")
    return RopeScaling(
        kind=cast(RopeKind, kind),
        factor=_number(fields, "factor", 1.0),
        original_context=int(_number(fields, "original_max_position_embeddings", context_length)),
        low_frequency_factor=_number(fields, "low_freq_factor", 1.0),
        high_frequency_factor=_number(fields, "high_freq_factor", 4.0),
        beta_fast=_number(fields, "beta_fast", 32.0),
        beta_slow=_number(fields, "beta_slow", 1.0),
        attention_factor=None if attention_factor is None else _number(fields, "attention_factor", 1.0),
    )


def _number(fields: Mapping[str, object], key: str, default: float) -> float:
    value = fields.get(key)
    return float(value) if isinstance(value, int | float) else default
