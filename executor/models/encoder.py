"""BERT-class encoders: packed texts in, one vector for each out."""

from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Literal

import torch
from torch.nn import functional

from dql.errors import UnsupportedError
from dql.executor.models.linear import Layout, Linear
from dql.executor.weights import Weights
from dql.kernels.attention import packed_attention
from dql.kernels.pooling import pool
from dql.models.shape import ModelShape

_POOLING: dict[str, Literal["mean", "first", "last"]] = {"mean": "mean", "cls": "first", "last": "last"}


@dataclass(frozen=True, slots=True)
class _Norm:
    weight: torch.Tensor
    bias: torch.Tensor

    def __call__(self, x: torch.Tensor, eps: float) -> torch.Tensor:
        return functional.layer_norm(x, self.weight.shape, self.weight, self.bias, eps)


@dataclass(frozen=True, slots=True)
class _Layer:
    qkv: Linear
    o: Linear
    attention_norm: _Norm
    up: Linear
    down: Linear
    mlp_norm: _Norm


class Encoder:
    """A loaded encoder."""

    def __init__(self, shape: ModelShape, weights: Weights, layout: Layout) -> None:
        """Load every tensor. Raises ConfigError, UnsupportedError for what is no BERT."""
        if shape.causal or not shape.learned_positions or shape.gated_mlp or shape.pooling == "none":
            raise UnsupportedError(f"models of family {shape.architecture!r} are not encoders that dql runs")
        self.shape = shape
        self._weights, self._layout = weights, layout
        with ThreadPoolExecutor(2) as threads:
            layers = threads.map(self._layer, range(shape.num_layers))
            self._tokens = self._tensor("embedding")
            self._layers = list(layers)
        self._positions = self._tensor("positions") + self._tensor("token_types")[0]
        self._norm = self._norm_of("embedding_norm")

    def embed(self, ids: torch.Tensor, lengths: torch.Tensor) -> torch.Tensor:
        """ids int64 [tokens] of texts end to end, lengths int64 [texts] → unit vectors [texts, hidden_size] float32."""
        shape, eps = self.shape, self.shape.norm_eps
        offsets = functional.pad(lengths.cumsum(0), (1, 0))
        positions = torch.arange(len(ids), device=ids.device) - offsets[:-1].repeat_interleave(lengths)
        x = self._norm(self._tokens[ids] + self._positions[positions], eps)
        longest = int(lengths.max())
        for layer in self._layers:
            heads = layer.qkv(x).view(len(x), 3, shape.num_heads, shape.head_dim)
            q, k, v = heads[:, 0], heads[:, 1], heads[:, 2]
            attended, _ = packed_attention(
                q, k, v, offsets, max_length=longest, scale=shape.attention_scale, causal=False
            )
            x = layer.attention_norm(layer.o.plus(attended.flatten(1), x), eps)
            x = layer.mlp_norm(layer.down.plus(layer.up(x, "gelu"), x), eps)
        return pool(x, offsets, _POOLING[shape.pooling], normalize=True)

    def _layer(self, index: int) -> _Layer:
        return _Layer(
            qkv=self._linear(("q", "k", "v"), index),
            o=self._linear(("o",), index),
            attention_norm=self._norm_of("attention_out_norm", index),
            up=self._linear(("up",), index),
            down=self._linear(("down",), index),
            mlp_norm=self._norm_of("mlp_out_norm", index),
        )

    def _linear(self, roles: tuple[str, ...], index: int) -> Linear:
        weight, bias = (
            self._weights.stacked(tuple(role + suffix for role in roles), index) for suffix in ("", "_bias")
        )
        return self._layout.linear("".join(roles), weight, bias)

    def _norm_of(self, role: str, layer: int | None = None) -> _Norm:
        return _Norm(self._tensor(role, layer), self._tensor(f"{role}_bias", layer))

    def _tensor(self, role: str, layer: int | None = None) -> torch.Tensor:
        return self._weights.get(role, layer).to(self._layout.device, self._layout.dtype)
