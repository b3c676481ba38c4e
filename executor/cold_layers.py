"""A model's layers as a step runs them, on random weights, for calibration.

Between two layers' attention a step goes through weights that no cache holds. So attention is timed among the layers,
not by itself over keys and code that are at hand: for few rows it takes two to four times as long.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import Protocol

import torch

from dql.executor.models.decoder import Attention, Decoder, PackedTokens
from dql.executor.models.head import Head
from dql.executor.quantize import layout
from dql.executor.weights import dummy_weights
from dql.kernels.kv_cache import KVCache
from dql.models.shape import ModelShape

COLD = 96 << 20  # bytes of weights that no cache holds, as those of a whole model
MANY = 256  # tokens from which a step is bound by arithmetic, so that two layers tell as much as all


class Clock(Protocol):
    """Times work within what a profile may take."""

    def time(self, work: Callable[[], object]) -> float:
        """Seconds of a call."""
        ...

    def extra(self, work: Callable[[], object], base: Callable[[], object]) -> float:
        """Seconds that `work` takes beyond `base`."""
        ...


def decoder(shape: ModelShape, precision: str = "fp32") -> Decoder:
    """A decoder of random weights, laid out as a loaded one is. Raises UnsupportedError."""
    weights = dummy_weights(shape)
    return Decoder(shape, weights, context=4096, layout=layout(precision, torch.device("cpu")))


class ColdLayers:
    """As many layers of a model as no cache holds; two for many tokens. Figures are those of one layer, or the head."""

    def __init__(self, shape: ModelShape, precision: str = "fp32") -> None:
        layer_bytes = 4 * shape.matmul_parameters // shape.num_layers
        self._shape, self._precision = shape, precision
        self._few = min(shape.num_layers, max(1, -(-COLD // layer_bytes)))
        self._decoders: dict[int, Decoder] = {}

    def seconds(self, tokens: int, clock: Clock) -> float:
        """Of a step of so many tokens, without attention."""
        caches = self._caches(tokens, tokens)
        return clock.time(lambda: self._forward(tokens, caches, _skip)) / len(caches)

    def attention(
        self, attention: Attention, tokens: int, slots: int, clock: Clock, base: Attention | None = None
    ) -> float:
        """Of the attention of so many tokens over keys in `slots` slots, beyond what `base` takes."""
        caches, less = self._caches(tokens, slots), base or _skip
        beyond = clock.extra(
            lambda: self._forward(tokens, caches, attention), lambda: self._forward(tokens, caches, less)
        )
        return beyond / len(caches)

    def head(self, head: Head, rows: int, clock: Clock) -> float:
        """Of the best token of each of so many rows, after the layers."""
        caches = self._caches(rows, rows)
        return clock.extra(
            lambda: head.token(self._forward(rows, caches, _skip)), lambda: self._forward(rows, caches, _skip)
        )

    @property
    def few(self) -> Decoder:
        """As many layers as no cache holds, below a small head."""
        return self._decoder(1)

    def _forward(self, tokens: int, caches: list[KVCache], attention: Attention) -> torch.Tensor:
        at = torch.arange(tokens)
        packed = PackedTokens(at % self._decoder(tokens).shape.vocab_size, at % 4096, at, at)
        return self._decoder(tokens).forward(packed, caches, attention)

    def _decoder(self, tokens: int) -> Decoder:
        layers = self._few if tokens < MANY else min(self._few, 2)
        if layers not in self._decoders:
            self._decoders[layers] = decoder(replace(self._shape, num_layers=layers, vocab_size=256), self._precision)
        return self._decoders[layers]

    def _caches(self, tokens: int, slots: int) -> list[KVCache]:
        shape = self._decoder(tokens).shape
        return random_caches(shape, max(slots, tokens), shape.num_layers)


def random_caches(shape: ModelShape, slots: int, count: int) -> list[KVCache]:
    """Caches of so many slots, all with the same values: drawing anew would take longer than what is measured."""
    caches = [KVCache.allocate(slots, shape.num_kv_heads, shape.head_dim, torch.float32, "cpu") for _ in range(count)]
    caches[0].k.normal_()
    caches[0].v.copy_(caches[0].k)
    for cache in caches[1:]:
        cache.k.copy_(caches[0].k)
        cache.v.copy_(caches[0].v)
    return caches


def _skip(q: torch.Tensor, cache: KVCache, *, window: int | None) -> torch.Tensor:
    return q.flatten(1)
