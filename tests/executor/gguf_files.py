"""The tiny checkpoints once more, as GGUF: names, layouts and metadata as llama.cpp's converter writes them."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
from numpy.typing import NDArray

_ARCHITECTURES = {"mistral": "llama", "gemma3_text": "gemma3"}
_PERMUTED = ("llama", "smollm3")  # q and k rows stored for rotation by adjacent pairs


def write_gguf(path: Path, oracle: Any) -> None:
    """Write a causal language model of transformers."""
    config = oracle.config
    family = _ARCHITECTURES.get(config.model_type, config.model_type)
    arch = next(arch for arch, name in gguf.MODEL_ARCH_NAMES.items() if name == family)
    table = gguf.get_tensor_name_map(arch, config.num_hidden_layers)
    writer = gguf.GGUFWriter(path, family)
    _write_sizes(writer, config, family)
    _write_rotation(writer, config, family)
    for name, values in _tensors(oracle).items():
        target = table.get_name(name, try_suffixes=(".weight", ".bias"))
        assert target is not None, name
        if family in _PERMUTED and ".q_proj." in name:
            values = _permuted(values, config.num_attention_heads)
        if family in _PERMUTED and ".k_proj." in name:
            values = _permuted(values, config.num_key_value_heads)
        if family.startswith("gemma") and name.endswith("norm.weight"):
            values = values + 1
        writer.add_tensor(target, values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _tensors(oracle: Any) -> Mapping[str, NDArray[np.float32]]:
    tied = oracle.config.tie_word_embeddings
    state = oracle.state_dict()
    return {name: values.numpy() for name, values in state.items() if not (tied and name == "lm_head.weight")}


def _permuted(values: NDArray[np.float32], heads: int) -> NDArray[np.float32]:
    """LlamaModel.permute of llama.cpp's convert_hf_to_gguf.py."""
    split = values.reshape(heads, 2, values.shape[0] // heads // 2, *values.shape[1:])
    return np.ascontiguousarray(split.swapaxes(1, 2).reshape(values.shape))


def _write_sizes(writer: gguf.GGUFWriter, config: Any, family: str) -> None:
    writer.add_block_count(config.num_hidden_layers)
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    writer.add_key_length(head_dim)
    writer.add_value_length(head_dim)
    if family in ("gemma2", "gemma3"):
        writer.add_sliding_window(config.sliding_window)
    if family == "gemma2":
        writer.add_attn_logit_softcapping(config.attn_logit_softcapping)
        writer.add_final_logit_softcapping(config.final_logit_softcapping)


def _write_rotation(writer: gguf.GGUFWriter, config: Any, family: str) -> None:
    from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

    rope = config.rope_parameters
    rope = rope.get("full_attention", rope)
    writer.add_rope_freq_base(rope["rope_theta"])
    match rope["rope_type"]:
        case "linear":
            writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
            writer.add_rope_scaling_factor(rope["factor"])
        case "yarn":
            writer.add_rope_scaling_type(gguf.RopeScalingType.YARN)
            writer.add_rope_scaling_factor(rope["factor"])
            writer.add_rope_scaling_orig_ctx_len(rope["original_max_position_embeddings"])
        case "llama3":  # the converter stores by how much each frequency is divided
            scaled, _ = ROPE_INIT_FUNCTIONS["llama3"](config, "cpu")
            dim = 2 * len(scaled)
            plain = 1.0 / rope["rope_theta"] ** (np.arange(0, dim, 2, dtype=np.float32) / dim)
            writer.add_tensor("rope_freqs.weight", (plain / scaled.numpy()).astype(np.float32))
