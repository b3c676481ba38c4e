"""transformers' module of a model whose weights dql holds, GGUF ones dequantised: the same numbers in other hands."""

from collections.abc import Callable, Mapping
from typing import Any

import torch

from dql.errors import UnsupportedError
from dql.executor.models import names
from dql.executor.weights import Weights
from dql.models.shape import ModelShape


def transformers_model(shape: ModelShape, weights: Weights) -> Any:
    """A causal language model in fp32 that samples nothing and stops at no token by itself."""
    from transformers import AutoModelForCausalLM

    if shape.architecture not in _CONFIGS or not shape.tie_embeddings:
        known = ", ".join(_CONFIGS)
        raise UnsupportedError(f"the transformers peer is set up for these with tied embeddings only: {known}")
    load: Any = AutoModelForCausalLM.from_config
    module = load(_CONFIGS[shape.architecture](shape)).eval()
    missing, _ = module.load_state_dict(_state(shape, weights), strict=False)
    if set(missing) - {"lm_head.weight"}:
        raise UnsupportedError(f"the transformers peer lacks the weights {missing}")
    module.tie_weights()
    module.generation_config.eos_token_id = None
    return module


def _state(shape: ModelShape, weights: Weights) -> Mapping[str, torch.Tensor]:
    """Tensors by the names of transformers. Gemma's module adds one to norm weights; GGUF has them with it."""
    table = names.hf_names(shape, "model.")
    added = 1.0 if shape.architecture.startswith("gemma") and shape.norm_offset == 0 else 0.0
    state: dict[str, torch.Tensor] = {}
    for layer in (None, *range(shape.num_layers)):
        for role in table.model if layer is None else table.layer:
            if weights.has(role, layer) and (name := table.name(role, layer)) is not None:
                state[name] = weights.get(role, layer) - (added if role.endswith("norm") else 0.0)
    return state


def _sizes(shape: ModelShape) -> dict[str, Any]:
    return {
        "vocab_size": shape.vocab_size,
        "hidden_size": shape.hidden_size,
        "intermediate_size": shape.intermediate_size,
        "num_hidden_layers": shape.num_layers,
        "num_attention_heads": shape.num_heads,
        "num_key_value_heads": shape.num_kv_heads,
        "head_dim": shape.head_dim,
        "max_position_embeddings": shape.context_length,
        "rms_norm_eps": shape.norm_eps,
        "tie_word_embeddings": True,
    }


def _llama(shape: ModelShape) -> Any:
    from transformers import LlamaConfig

    rope = {"rope_type": "default", "rope_theta": shape.rope_theta}
    return LlamaConfig(**_sizes(shape), rope_parameters=rope)


def _gemma3(shape: ModelShape) -> Any:
    from transformers import Gemma3TextConfig

    thetas = {"full_attention": shape.rope_theta, "sliding_attention": shape.rope_local_theta}
    return Gemma3TextConfig(
        **_sizes(shape),
        query_pre_attn_scalar=round(shape.attention_scale**-2),
        sliding_window=shape.sliding_window,
        layer_types=[f"{'sliding' if shape.is_sliding(i) else 'full'}_attention" for i in range(shape.num_layers)],
        rope_parameters={kind: {"rope_type": "default", "rope_theta": theta} for kind, theta in thetas.items()},
    )


_CONFIGS: Mapping[str, Callable[[ModelShape], Any]] = {"llama": _llama, "gemma3": _gemma3}
