"""One decoder for the whole Llama line: families differ in the switches of their ModelShape and nowhere else.

Llama, Mistral, Qwen2, Qwen3, SmolLM2, SmolLM3, Gemma 2 and Gemma 3. A pass takes packed tokens, with no padding and no
notion of rows; what a token may see is the attention's business.
"""

from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from copy import copy
from dataclasses import dataclass, replace
from functools import partial
from typing import Protocol

import torch

from dql.errors import UnsupportedError
from dql.executor.models.head import Head, LogitHead
from dql.executor.models.joints import Norm, fed_forward, projected, sums_late
from dql.executor.models.linear import Gated, Layout, Linear
from dql.executor.models.rotary import RotaryTable, identity_table, rotary_table
from dql.executor.models.split import Split
from dql.executor.models.tiles import rowwise
from dql.executor.weights import Weights
from dql.kernels.kv_cache import KVCache
from dql.kernels.rope import HeadNorm, rope
from dql.models.shape import ModelShape


class Attention(Protocol):
    """Attention of one step over one layer's cache, the step's own keys and values already stored there."""

    def __call__(self, q: torch.Tensor, cache: KVCache, *, window: int | None) -> torch.Tensor:
        """q [tokens, heads, head_dim] → contiguous [tokens, heads · head_dim]."""
        ...


class CausalModel(Protocol):
    """A loaded decoder: packed tokens in, hidden states out. `forward` may be called by one thread at a time."""

    @property
    def shape(self) -> ModelShape: ...

    @property
    def head(self) -> LogitHead: ...

    def forward(self, tokens: "PackedTokens", caches: Sequence[KVCache], attention: Attention) -> torch.Tensor:
        """Store keys and values of all tokens in `caches` (one a layer); final hidden states [outputs, hidden_size]."""
        ...


@dataclass(frozen=True, slots=True)
class PackedTokens:
    """The tokens of one step, all integers [tokens]: ids, positions in their texts, and the cache slots they fill.

    outputs [n]: which of the tokens the caller wants the last hidden state of. precise [m]: which of them a model of
    two precisions computes in the higher.
    """

    ids: torch.Tensor
    positions: torch.Tensor
    slots: torch.Tensor
    outputs: torch.Tensor
    precise: torch.Tensor | None = None


@dataclass(frozen=True, slots=True)
class Layer:
    """One layer. precise: the same for tokens that are computed in a higher precision; it may share what both need."""

    attention_norm: Norm
    qkv: Linear
    o: Linear
    mlp_norm: Norm
    gated: Gated
    down: Linear
    head_norm: HeadNorm | None
    attention_out_norm: Norm | None
    mlp_out_norm: Norm | None
    rotary: RotaryTable
    window: int | None
    precise: "Layer | None" = None


class Decoder:
    """The CausalModel of the fused families."""

    def __init__(
        self,
        shape: ModelShape,
        weights: Weights,
        *,
        context: int,
        layout: Layout,
        precise: tuple[Weights, Layout] | None = None,
        streamed: bool = False,
    ) -> None:
        """Load every tensor; `context` bounds the positions that will be asked for. Raises ConfigError.

        precise: the same model in a higher precision, of which `layout` holds the output and down projections too; the
        rest is held beside, for tokens that are to be precise. streamed: layers are read anew as a pass comes to them,
        and dropped behind it.
        """
        if not shape.causal or shape.activation == "gelu" or not shape.gated_mlp or shape.norm != "rms":
            raise UnsupportedError(f"models of family {shape.architecture!r} are not decoders that dql runs")
        self.shape = shape
        builder = _Builder(shape, weights, context, layout, precise)
        with ThreadPoolExecutor(2) as threads:  # decoding blocks releases the interpreter lock
            layers = None if streamed else threads.map(builder.layer, range(shape.num_layers))
            self._embedding = builder.tensor("embedding")
            self._layers: Iterable[Layer] = _Streamed(builder, shape.num_layers) if layers is None else list(layers)
        self._final_norm = builder.norm("final_norm")
        head = self._embedding if shape.tie_embeddings else builder.tensor("head")
        self.head = Head(head, shape.logit_softcap, layout)
        self._tile: int | None = None

    def tiled(self, rows: int) -> "Decoder":
        """The same weights, all row-wise work done in tiles of so many rows (see `tiles`)."""
        other = copy(self)
        other._tile, other.head = rows, self.head.tiled(rows)
        return other

    def abridged(self) -> "Decoder":
        """The same weights, of each kind of attention two layers at most: which kernels are launched, they show."""
        other, kept = copy(self), list[Layer]()
        for layer in self._layers:
            if sum(layer.window == met.window for met in kept) < 2:
                kept.append(layer)
        other._layers, other.shape = kept, replace(self.shape, num_layers=len(kept))
        return other

    def forward(self, tokens: PackedTokens, caches: Sequence[KVCache], attention: Attention) -> torch.Tensor:
        """Store keys and values of all tokens in `caches` (one a layer); final hidden states [outputs, hidden_size]."""
        shape = self.shape
        x = self._embedding[tokens.ids]
        if shape.embedding_scale != 1:
            x *= torch.tensor(shape.embedding_scale, dtype=x.dtype)
        split = Split(tokens.precise, len(x))
        stream: tuple[torch.Tensor, ...] = (x,)  # hidden states, and perhaps what their next norm adds to them
        for number, (layer, cache) in enumerate(zip(self._layers, caches, strict=True), 1):
            project = partial(self._project, cache)
            (q,) = split.over(layer, project, self._tile, tokens.positions, tokens.slots, *stream)
            x = stream[0]
            if number == shape.num_layers and not len(tokens.outputs):
                return x[:0]  # the last keys and values are stored, and nothing else is asked for
            attended = attention(q, cache, window=layer.window)
            if number == shape.num_layers:  # nothing reads the other tokens after their keys and values are stored
                x, attended, split = x[tokens.outputs], attended[tokens.outputs], split.at(tokens.outputs)
            stream = split.over(layer, self._finish, self._tile, x, attended)
        (x,) = rowwise(lambda *rows: (self._final_norm(*rows),), self._tile, *stream)
        return x

    def _project(
        self, cache: KVCache, layer: Layer, positions: torch.Tensor, slots: torch.Tensor, *stream: torch.Tensor
    ) -> tuple[torch.Tensor]:
        """Store the tokens' keys and values; their queries [tokens, heads, head_dim]."""
        shape, (x, *added) = self.shape, stream
        qkv = projected(layer.qkv, layer.attention_norm, x, added[0] if added else None)
        heads = qkv.view(len(x), -1, shape.head_dim)
        q, k = heads[:, : shape.num_heads], heads[:, shape.num_heads : shape.num_heads + shape.num_kv_heads]
        v = heads[:, shape.num_heads + shape.num_kv_heads :]
        table = layer.rotary
        rope(q, k, positions, table.cos, table.sin, norm=layer.head_norm, v=v, cache=cache, slots=slots)
        return (q,)

    def _finish(self, layer: Layer, x: torch.Tensor, attended: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """Output projection and feed-forward, each with its residual; the last sum may be left to the next norm."""
        added = None
        if layer.attention_out_norm is not None:
            x = x + layer.attention_out_norm(layer.o(attended))
        elif sums_late(layer.o):
            added = layer.o(attended)
        else:
            x = layer.o.plus(attended, x)
        join = layer.mlp_out_norm is None and not sums_late(layer.down)
        result = fed_forward(layer.gated, layer.down, layer.mlp_norm, x, added, join=join)
        if layer.mlp_out_norm is not None:
            return (x + layer.mlp_out_norm(result),)
        return (result,) if join else (x, result)


class _Builder:
    """Turns a checkpoint's tensors into layers on the device."""

    def __init__(
        self,
        shape: ModelShape,
        weights: Weights,
        context: int,
        layout: Layout,
        precise: tuple[Weights, Layout] | None,
    ) -> None:
        self._shape, self._weights, self._layout = shape, weights, layout
        self._precise: _Builder | None = None
        if precise is not None:
            self._precise = copy(self)
            self._precise._weights, self._precise._layout = precise
        divisors = weights.optional("rope_divisors")
        self._full = rotary_table(shape, context, local=False, divisors=divisors).to(layout.device)
        self._local = (
            self._full
            if shape.rope_local_theta is None
            else rotary_table(shape, context, local=True, divisors=None).to(layout.device)
        )
        self._none = identity_table(shape, context).to(layout.device) if shape.no_rope_layers else self._full

    def layer(self, index: int) -> Layer:
        shape = self._shape
        sliding = shape.is_sliding(index)
        rotary = self._local if sliding else self._full
        layer = Layer(
            attention_norm=self.norm("attention_norm", index),
            qkv=self._linear(("q", "k", "v"), index, shape.attention_bias),
            o=self._linear(("o",), index, shape.attention_output_bias),
            mlp_norm=self.norm("mlp_norm", index),
            gated=self._gated(index),
            down=self._linear(("down",), index, shape.mlp_bias),
            head_norm=self._head_norm(index) if shape.qk_norm else None,
            attention_out_norm=self.norm("attention_out_norm", index) if shape.sandwich_norms else None,
            mlp_out_norm=self.norm("mlp_out_norm", index) if shape.sandwich_norms else None,
            rotary=rotary if shape.has_rope(index) else self._none,
            window=shape.sliding_window if sliding else None,
        )
        return layer if self._precise is None else replace(layer, precise=self._precise.above(layer, index))

    def above(self, layer: Layer, index: int) -> Layer:
        """A layer with this builder's matrices below norms, which are told apart by precision, and these norms."""
        return replace(
            layer,
            attention_norm=self.norm("attention_norm", index),
            qkv=self._linear(("q", "k", "v"), index, self._shape.attention_bias),
            mlp_norm=self.norm("mlp_norm", index),
            gated=self._gated(index),
        )

    def tensor(self, role: str, layer: int | None = None) -> torch.Tensor:
        return self._weights.get(role, layer).to(device=self._layout.device, dtype=self._layout.dtype)

    def norm(self, role: str, layer: int | None = None) -> Norm:
        return Norm(self.tensor(role, layer), self._shape.norm_eps, self._shape.norm_offset)

    def _gated(self, index: int) -> Gated:
        gate, up = self._weights.get("gate", index), self._weights.get("up", index)
        bias = self._weights.stacked(("gate_bias", "up_bias"), index) if self._shape.mlp_bias else None
        return self._layout.gated(gate, up, bias, "silu" if self._shape.activation == "silu" else "gelu_tanh")

    def _head_norm(self, index: int) -> HeadNorm:
        shape = self._shape
        return HeadNorm(self.tensor("q_norm", index), self.tensor("k_norm", index), shape.norm_eps, shape.norm_offset)

    def _linear(self, roles: tuple[str, ...], index: int, has_bias: bool) -> Linear:
        weight = self._weights.stacked(roles, index)
        bias = self._weights.stacked(tuple(f"{role}_bias" for role in roles), index) if has_bias else None
        return self._layout.linear("".join(roles), weight, bias)


@dataclass(frozen=True, slots=True)
class _Streamed:
    """The layers of a checkpoint, each loaded when its turn comes."""

    builder: _Builder
    count: int

    def __iter__(self) -> Iterator[Layer]:
        return map(self.builder.layer, range(self.count))
