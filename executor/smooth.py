"""SmoothQuant (Xiao et al. 2023): channels that are wide in the activations are made narrow there, and the weight wide.

y = (x / s) · (weight ⊙ s)ᵀ for any s > 0 per input channel; s = max|x| ** strength / max|weight| ** (1 − strength).
What divides x is folded into the norm above the matrix, so that it costs nothing. max|x| is seen on a fixed text that
runs through the model in fp32, layer by layer, before it loads: of all inputs it is the widest channels that matter,
and these are the model's own and not the data's.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import torch

from dql.executor.models.decoder import Decoder, Layer, PackedTokens
from dql.executor.models.joints import Norm
from dql.executor.models.linear import Layout
from dql.executor.weights import Weights
from dql.kernels.fused_cpu import attend_dense
from dql.kernels.kv_cache import KVCache
from dql.models.shape import ModelShape

STRENGTH = 0.7  # 0.5 agrees with fp32 at least as often so far: docs/decisions/precisions.md
TEXT = (
    "Thank you for your order of 12 March. The parcel (no. 4471-B) left Rotterdam on Tuesday & should reach you by "
    "Friday; shipping was €7.90. If anything is missing, write to help@example.org.\n"
    "The film is too long by half an hour, but what a last act! I laughed, I wept, and I would see it again.\n"
    '{"name": "Ada", "age": 36, "tags": ["math", "engines"], "active": true}\n'
    "def mean(values):\n    return sum(values) / len(values)\n"
    "In 1905 a clerk in Bern published four papers; the third of them, on moving bodies, changed what a second is.\n"
    "1. Boil the water. 2. Add salt. 3. Cook the rice for 11 minutes. Q: Is it done? A: Yes, it is.\n"
    "The patient, 54, reports pain in the left knee after running; no fever, pulse 72, blood pressure 128/81."
)
# each norm, and the matrices that read what it puts out
_FED: Mapping[str, tuple[str, ...]] = {"attention_norm": ("q", "k", "v"), "mlp_norm": ("gate", "up")}
_NORM_OF = {role: norm for norm, roles in _FED.items() for role in roles}

Widths = Sequence[Mapping[str, torch.Tensor]]  # per layer and norm, the largest magnitude of each channel it puts out


class _Observed(Decoder):
    """A decoder that notes how wide its norms' outputs are. It holds few layers at a time, never the model."""

    def __init__(self, shape: ModelShape, weights: Weights, context: int, layout: Layout) -> None:
        super().__init__(shape, weights, context=context, layout=layout, streamed=True)
        self._widest: list[dict[str, torch.Tensor]] = []  # per layer so far
        self._layers = _Watched(self._layers, self._widest)

    def widths(self, ids: Sequence[int]) -> Widths:
        """Run a text of these tokens."""
        shape, at = self.shape, torch.arange(len(ids))
        caches = [
            KVCache.allocate(len(ids), shape.num_kv_heads, shape.head_dim, torch.float32, "cpu")
            for _ in range(shape.num_layers)
        ]

        def attention(q: torch.Tensor, cache: KVCache, *, window: int | None) -> torch.Tensor:
            scale, softcap = shape.attention_scale, shape.attention_softcap
            return attend_dense(q, cache.k, cache.v, None, scale, softcap, causal=True)[0].flatten(1)

        with torch.inference_mode():
            self.forward(PackedTokens(torch.tensor(ids), at, at, at), caches, attention)
        return self._widest


@dataclass(frozen=True, slots=True)
class _Watched:
    """Layers whose norms note how wide what they put out is, each layer in a mapping of its own."""

    layers: Iterable[Layer]
    widest: list[dict[str, torch.Tensor]]

    def __iter__(self) -> Iterator[Layer]:
        for layer in self.layers:
            self.widest.append({})
            first, second = layer.attention_norm, layer.mlp_norm
            yield replace(
                layer,
                attention_norm=_NotingNorm(first.weight, first.eps, first.offset, "attention_norm", self.widest[-1]),
                mlp_norm=_NotingNorm(second.weight, second.eps, second.offset, "mlp_norm", self.widest[-1]),
            )


@dataclass(frozen=True, slots=True)
class _NotingNorm(Norm):
    name: str
    widest: dict[str, torch.Tensor]

    def __call__(self, x: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        y = Norm.__call__(self, x, added)
        self.widest[self.name] = y.abs().amax(0)
        return y


def smoothed(
    weights: Weights, shape: ModelShape, ids: Sequence[int], layout: Layout, strength: float = STRENGTH
) -> Weights:
    """The checkpoint smoothed for the text with these token ids; `layout` is fp32's."""
    return SmoothedWeights(weights, shape, _Observed(shape, weights, len(ids), layout).widths(ids), strength)


class SmoothedWeights(Weights):
    """A checkpoint's tensors with widths moved from activations to weights; the model computes the same."""

    def __init__(self, inner: Weights, shape: ModelShape, widths: Widths, strength: float = STRENGTH) -> None:
        self._inner, self._strength = inner, strength
        self._offset = shape.norm_offset
        self._factors = [
            {norm: self._factor(norm, at, layer) for norm, at in of.items()} for layer, of in enumerate(widths)
        ]

    def has(self, role: str, layer: int | None = None) -> bool:
        return self._inner.has(role, layer)

    def get(self, role: str, layer: int | None = None) -> torch.Tensor:
        tensor = self._inner.get(role, layer)
        if layer is None:
            return tensor
        if role in _FED:
            return (tensor + self._offset) / self._factors[layer][role] - self._offset
        norm = _NORM_OF.get(role)
        return tensor if norm is None else tensor * self._factors[layer][norm]

    def _factor(self, norm: str, widest: torch.Tensor, layer: int) -> torch.Tensor:
        weights = torch.stack([self._inner.get(role, layer).abs().amax(0) for role in _FED[norm]]).amax(0)
        strength = self._strength
        factor: torch.Tensor = widest.clamp_min(1e-5) ** strength / weights.clamp_min(1e-5) ** (1 - strength)
        return factor.clamp(1e-3, 1e3)
