"""Fields of a ModelShape from a Hugging Face config.json.

Here it is decided how a model runs: families of FUSED by dql's own modules, all others, and what those modules lack,
by transformers' module of the family (hf_generic.py), where it has one that takes dql's attention.
"""

from collections.abc import Mapping
from typing import Any

from dql.errors import UnsupportedError
from dql.models import hf_generic
from dql.models.hf_keys import Keys
from dql.models.rope import rope_kind, rope_scaling

_GEMMA = {"norm_offset": 1.0, "activation": "gelu_tanh"}
# Facts that transformers keeps in each family's modelling code instead of its config.
_FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "qwen2": {"attention_bias": True},
    "qwen3": {"qk_norm": True},
    "gemma": _GEMMA,
    "gemma2": {**_GEMMA, "sandwich_norms": True},
    "gemma3": {**_GEMMA, "sandwich_norms": True, "qk_norm": True},
    "bert": {
        "norm": "layer",
        "gated_mlp": False,
        "causal": False,
        "learned_positions": True,
        "pooling": "mean",
        "attention_bias": True,
        "attention_output_bias": True,
        "mlp_bias": True,
    },
}
FUSED = frozenset({*_FAMILIES, "llama", "mistral", "smollm3"})
_ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
}
_ROTATIONS = frozenset({"default", "linear", "llama3", "yarn"})


def read(config: Mapping[str, object]) -> dict[str, Any]:
    """Keyword arguments of ModelShape. Raises ConfigError naming the key to blame."""
    if config.get("auto_map"):
        raise UnsupportedError(
            "the model brings its own Python code (auto_map in config.json), which dql never runs",
            hint="use a checkpoint of a family that transformers supports itself",
        )
    inner = config.get("text_config")
    keys = Keys(inner if isinstance(inner, Mapping) else config)
    family = keys.text("model_type").removesuffix("_text")
    if family not in FUSED or (family != "bert" and _lacks(keys, family)):
        return hf_generic.read(keys, nested=keys.values is not config)
    fields = {"architecture": family, **_sizes(keys, family), **_switches(keys, family), **_FAMILIES.get(family, {})}
    num_layers = fields["num_layers"]
    fields |= _rotation(keys, fields["context_length"], fields["head_dim"])
    fields |= _sliding(keys, family, num_layers)
    if family.startswith("gemma"):
        fields["embedding_scale"] = fields["hidden_size"] ** 0.5
        scalar = keys.number("query_pre_attn_scalar", fields["head_dim"])
        fields["query_scale"] = scalar**-0.5
        fields["attention_softcap"] = keys.optional("attn_logit_softcapping")
        fields["logit_softcap"] = keys.optional("final_logit_softcapping")
    if family == "smollm3":
        fields["no_rope_layers"] = _no_rope(keys, num_layers)
    return fields


def _lacks(keys: Keys, family: str) -> bool:
    """Whether a checkpoint of a fused family has a switch that its fused module does not know."""
    activation = None if family.startswith("gemma") else keys.values.get("hidden_act")  # Gemma's is always the same
    rotary = keys.mapping("rope_parameters") or keys.mapping("rope_scaling")
    entries = [entry for entry in rotary.values() if isinstance(entry, Mapping)] or [rotary]
    return (
        (isinstance(activation, str) and _ACTIVATIONS.get(activation, "gelu") == "gelu")
        or keys.values.get("use_bidirectional_attention") is True
        or any(isinstance(kind := rope_kind(entry), str) and kind not in _ROTATIONS for entry in entries)
        or any(entry.get("truncate") is False for entry in entries)
    )


def _sizes(keys: "Keys", family: str) -> dict[str, Any]:
    num_heads, hidden_size = keys.integer("num_attention_heads"), keys.integer("hidden_size")
    return {
        "num_layers": keys.integer("num_hidden_layers"),
        "hidden_size": hidden_size,
        "num_heads": num_heads,
        "num_kv_heads": keys.integer("num_key_value_heads", num_heads),
        "head_dim": keys.integer("head_dim", 256 if family.startswith("gemma") else hidden_size // max(num_heads, 1)),
        "intermediate_size": keys.integer("intermediate_size"),
        "vocab_size": keys.integer("vocab_size"),
        "context_length": keys.integer("max_position_embeddings"),
        "norm_eps": keys.number("layer_norm_eps" if family == "bert" else "rms_norm_eps", 1e-6),
    }


def _switches(keys: "Keys", family: str) -> dict[str, Any]:
    activation = keys.text("hidden_activation", keys.text("hidden_act", "silu"))
    if activation not in _ACTIVATIONS:
        raise UnsupportedError(f"activation {activation!r} is not supported", hint=f"supported: {sorted(_ACTIVATIONS)}")
    bias = keys.flag("attention_bias", False)
    return {
        "activation": _ACTIVATIONS[activation],
        "attention_bias": bias,
        "attention_output_bias": bias and family != "qwen2",
        "mlp_bias": keys.flag("mlp_bias", False),
        "tie_embeddings": keys.flag("tie_word_embeddings", family.startswith("gemma") or family == "bert"),
    }


def _rotation(keys: "Keys", context_length: int, head_dim: int) -> dict[str, Any]:
    """Old configs say rope_theta and rope_scaling; newer ones rope_parameters, per layer type where these differ."""
    parameters = keys.mapping("rope_parameters")
    local = parameters.get("sliding_attention")
    full = parameters.get("full_attention", parameters)
    main = Keys(full if isinstance(full, Mapping) else {})
    nearby = Keys(local if isinstance(local, Mapping) else {})
    original = keys.values.get("original_max_position_embeddings")
    beside = {} if original is None else {"original_max_position_embeddings": original}
    scaling = rope_scaling({**(main.values or keys.mapping("rope_scaling")), **beside}, context_length)
    partial = main.number("partial_rotary_factor", keys.number("partial_rotary_factor", 1.0))
    return {
        "rope_theta": main.number("rope_theta", keys.number("rope_theta", 10_000.0)),
        "rope_local_theta": nearby.optional("rope_theta") or keys.optional("rope_local_base_freq"),
        "rope_scaling": scaling,
        "rotary_dim": 0 if partial == 1.0 else int(head_dim * partial),
    }


def _sliding(keys: "Keys", family: str, num_layers: int) -> dict[str, Any]:
    window = keys.optional("sliding_window")
    if window is None or not keys.flag("use_sliding_window", family not in ("qwen2", "qwen3", "smollm3")):
        return {}
    types = keys.values.get("layer_types")
    if isinstance(types, list):
        layers = frozenset(i for i, kind in enumerate(types[:num_layers]) if kind == "sliding_attention")
    elif family in ("qwen2", "qwen3"):
        layers = frozenset(range(keys.integer("max_window_layers", num_layers), num_layers))
    elif family in ("gemma2", "gemma3"):
        period = keys.integer("sliding_window_pattern", 2 if family == "gemma2" else 6)
        layers = frozenset(i for i in range(num_layers) if (i + 1) % max(period, 1))
    else:
        layers = frozenset(range(num_layers))
    return {"sliding_window": int(window), "sliding_layers": layers}


def _no_rope(keys: "Keys", num_layers: int) -> frozenset[int]:
    """SmolLM3 lists, per layer, whether it rotates: 1 yes, 0 no."""
    rotates = keys.values.get("no_rope_layers")
    if isinstance(rotates, list):
        return frozenset(i for i, flag in enumerate(rotates[:num_layers]) if not flag)
    interval = max(keys.integer("no_rope_layer_interval", 4), 1)
    return frozenset(range(interval - 1, num_layers, interval))
