"""Fields of a ModelShape of a family that transformers' own module runs.

They size memory and price plans. What the module asks of attention (scale, window, softcap) is seen when it is loaded.
"""

from collections.abc import Mapping
from typing import Any

from dql.errors import UnsupportedError
from dql.models.hf_keys import Keys

_DECODERS = ("ForCausalLM", "LMHeadModel", "ForConditionalGeneration")
_LAYERS = frozenset({"full_attention", "sliding_attention"})
# Rotary scalings that depend on the longest text in a batch; within the trained context they are plain.
_BY_LENGTH = frozenset({"dynamic", "longrope"})


def read(keys: Keys, *, nested: bool) -> dict[str, Any]:
    """Keyword arguments of ModelShape. Raises ConfigError naming the key to blame, UnsupportedError.

    nested: whether `keys` describe the part of a larger model that reads text.
    """
    if nested:
        raise UnsupportedError(
            f"the model reads more than text around a decoder of family {keys.text('model_type')!r}",
            hint="of that family dql runs checkpoints of the decoder alone",
        )
    _check(keys)
    num_layers, hidden_size = keys.integer("num_hidden_layers"), keys.integer("hidden_size")
    num_heads = keys.integer("num_attention_heads")
    kv_heads = 1 if keys.values.get("multi_query") is True else keys.integer("num_key_value_heads", num_heads)
    inner, idle = _feed_forward(keys, num_layers, hidden_size)
    window = keys.values.get("sliding_window")
    sliding = isinstance(window, int) and window > 0 and keys.values.get("use_sliding_window") is not False
    return {
        "architecture": keys.text("model_type"),
        "generic": True,
        "num_layers": num_layers,
        "hidden_size": hidden_size,
        "num_heads": num_heads,
        "num_kv_heads": kv_heads,
        "head_dim": keys.integer("head_dim", hidden_size // max(num_heads, 1)),
        "intermediate_size": inner,
        "idle_parameters": idle,
        "vocab_size": keys.integer("vocab_size"),
        "context_length": _context(keys),
        "tie_embeddings": keys.flag("tie_word_embeddings", False),
        "sliding_window": window if sliding else None,
        "sliding_layers": _sliding_layers(keys, num_layers) if sliding else frozenset(),
    }


def _check(keys: Keys) -> None:
    family, classes, types = keys.text("model_type"), keys.values.get("architectures"), keys.values.get("layer_types")
    if isinstance(classes, list) and classes and not any(str(name).endswith(_DECODERS) for name in classes):
        raise UnsupportedError(f"{', '.join(map(str, classes))} is no decoder, and dql knows no encoder but BERT")
    if keys.values.get("is_encoder_decoder") is True:
        raise UnsupportedError(f"models of family {family!r} have an encoder and a decoder; dql runs decoders")
    if keys.values.get("quantization_config") is not None:
        raise UnsupportedError(
            f"this checkpoint of family {family!r} is stored quantised, which dql does not read",
            hint="use the float checkpoint of this model; dql quantises by itself",
        )
    other = {str(kind) for kind in types} - _LAYERS if isinstance(types, list) else set()
    if keys.values.get("attention_chunk_size") is not None:
        other.add("chunked_attention")
    if other:
        raise UnsupportedError(f"models of family {family!r} have layers of kinds that dql lacks: {sorted(other)}")


def _feed_forward(keys: Keys, num_layers: int, hidden_size: int) -> tuple[int, int]:
    """Inner width that a token goes through, and weights of all experts that it does not visit."""
    inner = keys.integer("intermediate_size", 4 * hidden_size)
    names = ("num_experts", "num_local_experts", "n_routed_experts")
    experts = next((keys.integer(name) for name in names if keys.values.get(name) is not None), 0)
    if experts < 2:
        return inner, 0
    width = keys.integer("moe_intermediate_size", inner)
    visited = min(experts, keys.integer("num_experts_per_tok", keys.integer("moe_topk", 2)))
    shared = keys.integer("shared_expert_intermediate_size", width * keys.integer("n_shared_experts", 0))
    return visited * width + shared, num_layers * (experts - visited) * 3 * hidden_size * width


def _sliding_layers(keys: Keys, num_layers: int) -> frozenset[int]:
    types = keys.values.get("layer_types")
    if not isinstance(types, list):
        return frozenset(range(num_layers))
    return frozenset(i for i, kind in enumerate(types[:num_layers]) if kind == "sliding_attention")


def _context(keys: Keys) -> int:
    context = keys.integer("max_position_embeddings")
    scaling: Mapping[str, object] = keys.mapping("rope_parameters") or keys.mapping("rope_scaling")
    if scaling.get("rope_type", scaling.get("type")) not in _BY_LENGTH:
        return context
    trained = scaling.get("original_max_position_embeddings", keys.values.get("original_max_position_embeddings"))
    return min(context, trained) if isinstance(trained, int) else context
