"""The CausalModel of all other families: transformers' own module of the family, with dql's attention in its layers.

transformers lets an attention function be registered by name and hands it whatever keyword arguments the model is
called with. A step travels that way: the function stores keys and values in dql's cache, attends through dql's packed
attention, and so the module runs in the same scheduler as the fused families, on packed tokens with explicit positions,
without a cache or a mask of its own.
"""

import copy
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch.nn import functional
from transformers import AttentionInterface

from dql.errors import UnsupportedError
from dql.executor.models.decoder import Attention, PackedTokens
from dql.executor.models.head import Head, LogitHead
from dql.executor.models.linear import Layout
from dql.kernels.kv_cache import KVCache
from dql.models.shape import ModelShape

ATTENTION = "dql"  # the function's name among transformers' attention implementations
_ARGUMENT = "dql_step"
_ROWS = 256  # rows of logits over a whole vocabulary at once
_EXACT = 1e-5


class LayerCalls(Protocol):
    """What a step does at every call of attention."""

    def attend(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, options: Mapping[str, Any]
    ) -> torch.Tensor:
        """q [tokens, heads, key width], k, v [tokens, kv_heads, their width] → [tokens, heads · value width].

        options: what else the module passes, as sliding_window or a mask of its own.
        """
        ...


@dataclass(frozen=True, slots=True)
class StepCalls:
    """A step over dql's cache; `scale` is the one that `attention` applies."""

    slots: torch.Tensor
    caches: Sequence[KVCache]
    attention: Attention
    scale: float

    def attend(
        self, layer: int, q: torch.Tensor, k: torch.Tensor, v: torch.Tensor, scale: float, options: Mapping[str, Any]
    ) -> torch.Tensor:
        """See LayerCalls."""
        cache, width = self.caches[layer], v.shape[-1]
        # zeros change no score and no sum: narrower keys or values fill the cache's width
        q, k, v = (functional.pad(x, (0, cache.k.shape[-1] - x.shape[-1])) for x in (q, k, v))
        cache.store(self.slots, k, v)
        if scale != self.scale:
            q = q * (scale / self.scale)
        out = self.attention(q.contiguous(), cache, window=options.get("sliding_window") or None)
        return out.view(q.shape)[..., :width].flatten(1)


class GenericDecoder:
    """A causal language model of transformers, made with attn_implementation=ATTENTION, as a CausalModel."""

    def __init__(self, module: Any, shape: ModelShape, layout: Layout) -> None:
        """`shape`: what the module does, as `observe` saw it. `layout`: that of a plain LM head."""
        self.shape = shape
        self._base = base_of(module)
        self.head = _head(module, shape, layout)

    def forward(self, tokens: PackedTokens, caches: Sequence[KVCache], attention: Attention) -> torch.Tensor:
        """See CausalModel."""
        calls = StepCalls(tokens.slots, caches, attention, self.shape.attention_scale)
        return run_base(self._base, tokens.ids, tokens.positions, calls)[tokens.outputs]


def register_attention() -> None:
    """Make dql's attention known to transformers; doing it twice does nothing."""
    AttentionInterface.register(ATTENTION, _attention)


def run_base(base: Any, ids: torch.Tensor, positions: torch.Tensor, calls: LayerCalls) -> torch.Tensor:
    """Final hidden states [tokens, hidden_size] of packed tokens, attention by `calls`."""
    arguments = {_ARGUMENT: calls}
    hidden: torch.Tensor = base(
        input_ids=ids[None], position_ids=positions[None], use_cache=False, return_dict=True, **arguments
    ).last_hidden_state
    return hidden[0]


def base_of(module: Any) -> Any:
    """The part of a causal language model before its head. Raises UnsupportedError where there is no such part."""
    base = getattr(module, module.base_model_prefix, None)
    if base is None or base is module:
        raise UnsupportedError(f"{type(module).__name__} has no separate head, which dql needs")
    return base


class ModuleHead:
    """Logits by the module's own code after its base: a family may scale, cap or shift what its matrix gives."""

    tile: int | None = None

    def __init__(self, module: Any) -> None:
        self._module = copy.copy(module)
        self._module._modules = {**module._modules, module.base_model_prefix: _Given()}

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """See LogitHead."""
        return torch.cat(list(self._chunks(hidden)))

    def best(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """See LogitHead."""
        parts = [part.log_softmax(-1).max(dim=-1) for part in self._chunks(hidden)]
        return torch.cat([part.indices for part in parts]), torch.cat([part.values for part in parts])

    def token(self, hidden: torch.Tensor) -> torch.Tensor:
        """See LogitHead."""
        return torch.cat([part.argmax(dim=-1) for part in self._chunks(hidden)])

    def logsumexp(self, hidden: torch.Tensor) -> torch.Tensor:
        """See LogitHead."""
        return torch.cat([part.logsumexp(dim=-1) for part in self._chunks(hidden)])

    def rows(self, hidden: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """See LogitHead."""
        return torch.cat([part[:, tokens] for part in self._chunks(hidden)])

    def _chunks(self, hidden: torch.Tensor) -> Iterator[torch.Tensor]:
        for start in range(0, max(len(hidden), 1), _ROWS):
            yield self._module(inputs_embeds=hidden[None, start : start + _ROWS]).logits[0]


class _Given(torch.nn.Module):
    """Stands in for a base whose hidden states are known."""

    @property
    def decoder(self) -> "_Given":
        """OPT's head asks the base's inner part."""
        return self

    def forward(self, *_: object, inputs_embeds: torch.Tensor, **__: object) -> "_Output":
        return _Output(inputs_embeds)


class _Output:
    """What a base returns, everything but hidden states None: caches and router logits go by different names."""

    def __init__(self, hidden: torch.Tensor) -> None:
        self.last_hidden_state = hidden

    def __getitem__(self, index: Any) -> Any:
        return (self.last_hidden_state,)[index]

    def __getattr__(self, name: str) -> None:
        if name.startswith("__"):
            raise AttributeError(name)


def _head(module: Any, shape: ModelShape, layout: Layout) -> LogitHead:
    """The module's own head; where that is a plain product with its matrix, dql's, which computes what it is asked."""
    own = ModuleHead(module)
    matrix = module.get_output_embeddings().weight.detach()
    hidden = torch.randn(2, shape.hidden_size, generator=torch.Generator().manual_seed(0)).to(matrix)
    if matrix.shape != (shape.vocab_size, shape.hidden_size):
        return own
    expected, plain = own.logits(hidden), functional.linear(hidden, matrix)
    if (expected - plain).norm() > _EXACT * expected.norm():
        return own
    return Head(matrix, None, layout)


def _attention(
    module: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float | None = None,
    **options: Any,
) -> tuple[torch.Tensor, None]:
    """transformers' interface: query [1, heads, tokens, head_dim], key and value alike → [1, tokens, heads, head_dim].

    A family's usual masks are None, since dql registers no way to make them; the step knows what a token sees.
    """
    calls: LayerCalls | None = options.pop(_ARGUMENT, None)
    layer = getattr(module, "layer_idx", None)
    if calls is None or layer is None:
        family = module.config.model_type
        raise UnsupportedError(f"models of family {family!r} keep from their attention what they are called with")
    options["attention_mask"] = attention_mask
    options.setdefault("is_causal", getattr(module, "is_causal", True))
    q, k, v = (x[0].transpose(0, 1) for x in (query, key, value))
    scale = query.shape[-1] ** -0.5 if scaling is None else float(scaling)
    out = calls.attend(int(layer), q, k, v, scale, options)
    return out.view(1, q.shape[0], q.shape[1], v.shape[-1]), None
