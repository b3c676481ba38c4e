"""Fields of a ModelShape from GGUF metadata; what llama.cpp decides in code per architecture is a table here."""

from collections.abc import Mapping
from typing import Any

from dql.errors import ConfigError, UnsupportedError
from dql.models.gguf import TensorInfo
from dql.models.rope import RopeScaling, yarn_amplitude

# Facts that GGUF leaves to the reader of the file (llama.cpp: src/llama-model.cpp, src/models/*.cpp).
_FAMILIES: Mapping[str, Mapping[str, Any]] = {
    "llama": {"rope_interleaved": True},
    "mistral3": {"rope_interleaved": True},
    "qwen2": {},
    "qwen3": {},
    "smollm3": {"rope_interleaved": True},
    "gemma": {"activation": "gelu_tanh"},
    "gemma2": {"activation": "gelu_tanh", "sandwich_norms": True},
    "gemma3": {"activation": "gelu_tanh", "sandwich_norms": True},
    "bert": {"norm": "layer", "activation": "gelu", "gated_mlp": False, "causal": False, "learned_positions": True},
}
# Keys of llama.cpp that change what these architectures compute, and the value that changes nothing.
_PLAIN: Mapping[str, float] = {
    "expert_count": 0,
    "attention.temperature_scale": 0,
    "attention.clamp_kqv": 0,
    "attention.max_alibi_bias": 0,
    "logit_scale": 1,
    "residual_scale": 1,
    "embedding_scale": 1,
    "rope.scaling.yarn_log_multiplier": 0,
}
_POOLING = {0: "none", 1: "mean", 2: "cls", 3: "last"}


def read(metadata: Mapping[str, object], tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    """Keyword arguments of ModelShape. Raises ConfigError for missing keys, UnsupportedError for other families."""
    architecture = metadata.get("general.architecture")
    if not isinstance(architecture, str):
        raise ConfigError("the GGUF file does not say its general.architecture")
    if architecture not in _FAMILIES:
        raise UnsupportedError(
            f"GGUF files of architecture {architecture!r} are not supported",
            hint="supported: " + ", ".join(sorted(_FAMILIES)) + "; or use the model's safetensors: 'hf:org/repo'",
        )
    keys = _Keys(metadata, architecture)
    for name, plain in _PLAIN.items():
        if keys.number(name, plain) not in (0, plain):
            raise UnsupportedError(
                f"GGUF files of architecture {architecture!r} with {name} are not supported",
                hint="use the model's safetensors: 'hf:org/repo'",
            )
    fields = dict(_FAMILIES[architecture]) | _sizes(keys, tensors) | _switches(tensors)
    fields["architecture"] = "mistral" if architecture == "mistral3" else architecture
    fields |= _rotation(keys, tensors, fields["head_dim"])
    if architecture.startswith("gemma"):
        fields |= _gemma(keys, architecture, fields)
    if architecture == "smollm3":
        fields["no_rope_layers"] = frozenset(range(3, fields["num_layers"], 4))
    elif "sliding_layers" not in fields and (window := keys.integer("attention.sliding_window", 0)):
        fields |= {"sliding_window": window, "sliding_layers": frozenset(range(fields["num_layers"]))}
    if architecture == "bert":
        fields["pooling"] = _POOLING.get(keys.integer("pooling_type", 1), "mean")
    return fields


def _sizes(keys: "_Keys", tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    if "token_embd.weight" not in tensors or len(tensors["token_embd.weight"].shape) != 2:
        raise ConfigError("the GGUF file holds no token embedding (token_embd.weight)")
    num_heads = keys.integer("attention.head_count")
    hidden_size = keys.integer("embedding_length")
    is_layer_norm = keys.architecture == "bert"
    epsilon = "attention.layer_norm_epsilon" if is_layer_norm else "attention.layer_norm_rms_epsilon"
    return {
        "num_layers": keys.integer("block_count"),
        "hidden_size": hidden_size,
        "num_heads": num_heads,
        "num_kv_heads": keys.integer("attention.head_count_kv", num_heads),
        "head_dim": keys.integer("attention.key_length", hidden_size // max(num_heads, 1)),
        "intermediate_size": keys.integer("feed_forward_length"),
        "vocab_size": tensors["token_embd.weight"].shape[0],
        "context_length": keys.integer("context_length"),
        "norm_eps": keys.number(epsilon),
    }


def _switches(tensors: Mapping[str, TensorInfo]) -> dict[str, Any]:
    return {
        "tie_embeddings": "output.weight" not in tensors,
        "attention_bias": "blk.0.attn_q.bias" in tensors,
        "attention_output_bias": "blk.0.attn_output.bias" in tensors,
        "mlp_bias": "blk.0.ffn_down.bias" in tensors,
        "qk_norm": "blk.0.attn_q_norm.weight" in tensors,
    }


def _rotation(keys: "_Keys", tensors: Mapping[str, TensorInfo], head_dim: int) -> dict[str, Any]:
    kind = keys.text("rope.scaling.type", "none")
    scaling: RopeScaling | None = None
    if "rope_freqs.weight" in tensors:
        scaling = RopeScaling("tensor")
    elif kind in ("linear", "yarn"):
        scaling = RopeScaling(
            "linear" if kind == "linear" else "yarn",
            factor=keys.number("rope.scaling.factor", 1.0),
            original_context=keys.integer("rope.scaling.original_context_length", keys.integer("context_length")),
            beta_fast=keys.number("rope.scaling.yarn_beta_fast", 32.0),
            beta_slow=keys.number("rope.scaling.yarn_beta_slow", 1.0),
            attention_factor=_attention_factor(keys) if kind == "yarn" else None,
        )
    elif kind != "none":
        raise UnsupportedError(f"rotary scaling {kind!r} is not supported", hint="supported: linear, llama3, yarn")
    rotary_dim = keys.integer("rope.dimension_count", head_dim)
    return {
        "rope_theta": keys.number("rope.freq_base", 10_000.0),
        "rope_scaling": scaling,
        "rotary_dim": 0 if rotary_dim == head_dim else rotary_dim,
    }


def _attention_factor(keys: "_Keys") -> float | None:
    """llama.cpp multiplies yarn's own amplitude by attn_factor."""
    given = keys.number("rope.scaling.attn_factor", keys.number("rope.scaling.yarn_attn_factor", 1.0))
    return None if given == 1 else given * yarn_amplitude(keys.number("rope.scaling.factor", 1.0))


def _gemma(keys: "_Keys", architecture: str, sizes: Mapping[str, Any]) -> dict[str, Any]:
    num_layers, hidden_size = sizes["num_layers"], sizes["hidden_size"]
    fields: dict[str, Any] = {"embedding_scale": hidden_size**0.5}
    if architecture == "gemma":
        return fields
    # The 27B models scale by hidden size per head instead of head size; only their depth tells.
    if num_layers == (46 if architecture == "gemma2" else 62):
        fields["query_scale"] = (hidden_size / sizes["num_heads"]) ** -0.5
    period = 2 if architecture == "gemma2" else 6
    fields["sliding_window"] = keys.integer("attention.sliding_window", 4096 if architecture == "gemma2" else 1024)
    fields["sliding_layers"] = frozenset(i for i in range(num_layers) if (i + 1) % period)
    if architecture == "gemma2":
        fields["attention_softcap"] = keys.number("attn_logit_softcapping", 50.0)
        fields["logit_softcap"] = keys.number("final_logit_softcapping", 30.0)
    else:
        fields["rope_theta"] = keys.number("rope.freq_base", 1_000_000.0)
        fields["rope_local_theta"] = keys.number("rope.freq_base_swa", 10_000.0)
    return fields


class _Keys:
    """Typed look-ups of `<architecture>.<name>`; without a default a missing key is an error."""

    def __init__(self, metadata: Mapping[str, object], architecture: str) -> None:
        self.architecture = architecture
        self._metadata = metadata

    def integer(self, name: str, default: int | None = None) -> int:
        value = self._value(name, default)
        if not isinstance(value, int) or isinstance(value, bool):
            raise ConfigError(f"the GGUF key {self.architecture}.{name} is {value!r}, not a whole number")
        return value

    def number(self, name: str, default: float | None = None) -> float:
        value = self._value(name, default)
        if not isinstance(value, int | float) or isinstance(value, bool):
            raise ConfigError(f"the GGUF key {self.architecture}.{name} is {value!r}, not a number")
        return float(value)

    def text(self, name: str, default: str) -> str:
        value = self._value(name, default)
        if not isinstance(value, str):
            raise ConfigError(f"the GGUF key {self.architecture}.{name} is {value!r}, not text")
        return value

    def _value(self, name: str, default: object) -> object:
        value = self._metadata.get(f"{self.architecture}.{name}", default)
        if value is None:
            raise ConfigError(f"the GGUF file lacks the key {self.architecture}.{name}")
        return value
