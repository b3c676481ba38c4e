"""Shapes read from the configs of well-known checkpoints, old spelling and new."""

from typing import Any

import pytest

from dql.errors import ConfigError, UnsupportedError
from dql.models.gguf import GgmlType, TensorInfo
from dql.models.rope import RopeScaling
from dql.models.shape import ModelShape

LLAMA32_1B: dict[str, Any] = {
    "model_type": "llama", "hidden_size": 2048, "intermediate_size": 8192, "num_hidden_layers": 16,
    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 64, "vocab_size": 128256, "rms_norm_eps": 1e-5,
    "max_position_embeddings": 131072, "rope_theta": 500000.0, "tie_word_embeddings": True, "hidden_act": "silu",
    "rope_scaling": {
        "factor": 32.0, "high_freq_factor": 4.0, "low_freq_factor": 1.0,
        "original_max_position_embeddings": 8192, "rope_type": "llama3",
    },
}  # fmt: skip
QWEN3_06B: dict[str, Any] = {
    "model_type": "qwen3", "hidden_size": 1024, "intermediate_size": 3072, "num_hidden_layers": 28,
    "num_attention_heads": 16, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 151936, "rms_norm_eps": 1e-6,
    "max_position_embeddings": 40960, "rope_theta": 1000000, "rope_scaling": None, "tie_word_embeddings": True,
    "sliding_window": None, "use_sliding_window": False, "max_window_layers": 28, "attention_bias": False,
}  # fmt: skip
GEMMA2_2B: dict[str, Any] = {
    "model_type": "gemma2", "hidden_size": 2304, "intermediate_size": 9216, "num_hidden_layers": 26,
    "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 256000, "rms_norm_eps": 1e-6,
    "max_position_embeddings": 8192, "sliding_window": 4096, "query_pre_attn_scalar": 256,
    "attn_logit_softcapping": 50.0, "final_logit_softcapping": 30.0, "hidden_activation": "gelu_pytorch_tanh",
}  # fmt: skip
GEMMA3_4B: dict[str, Any] = {
    "model_type": "gemma3",
    "text_config": {
        "model_type": "gemma3_text", "hidden_size": 2560, "intermediate_size": 10240, "num_hidden_layers": 34,
        "num_attention_heads": 8, "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 262208,
        "max_position_embeddings": 131072, "sliding_window": 1024, "rope_theta": 1000000.0,
        "rope_local_base_freq": 10000.0, "rope_scaling": {"factor": 8.0, "rope_type": "linear"},
        "query_pre_attn_scalar": 256, "hidden_activation": "gelu_pytorch_tanh",
    },
}  # fmt: skip
SMOLLM3_3B: dict[str, Any] = {
    "model_type": "smollm3", "hidden_size": 2048, "intermediate_size": 11008, "num_hidden_layers": 36,
    "num_attention_heads": 16, "num_key_value_heads": 4, "vocab_size": 128256, "max_position_embeddings": 65536,
    "rope_theta": 5000000.0, "tie_word_embeddings": True, "no_rope_layers": [1, 1, 1, 0] * 9, "rms_norm_eps": 1e-6,
}  # fmt: skip
MISTRAL_7B: dict[str, Any] = {
    "model_type": "mistral", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 32000, "max_position_embeddings": 32768,
    "rope_theta": 10000.0, "sliding_window": 4096, "rms_norm_eps": 1e-5, "tie_word_embeddings": False,
}  # fmt: skip
QWEN2_05B: dict[str, Any] = {
    "model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
    "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151936, "max_position_embeddings": 32768,
    "rope_theta": 1000000.0, "sliding_window": 32768, "use_sliding_window": False, "tie_word_embeddings": True,
}  # fmt: skip

MILLIONS = [
    (LLAMA32_1B, 1236), (QWEN3_06B, 596), (GEMMA2_2B, 2614), (GEMMA3_4B, 3880), (SMOLLM3_3B, 3075),
    (MISTRAL_7B, 7242), (QWEN2_05B, 494),
]  # fmt: skip


@pytest.mark.parametrize(("config", "millions"), MILLIONS)
def test_parameters_are_the_published_ones(config: dict[str, Any], millions: int) -> None:
    assert ModelShape.from_hf_config(config).parameters / 1e6 == pytest.approx(millions, rel=2e-3)


def test_llama3_scaling() -> None:
    shape = ModelShape.from_hf_config(LLAMA32_1B)
    assert shape.rope_scaling == RopeScaling("llama3", 32.0, 8192, 1.0, 4.0)
    assert (shape.rope_theta, shape.norm_offset, shape.attention_scale) == (500_000.0, 0.0, 64**-0.5)


def test_biases_and_head_norms() -> None:
    qwen2, qwen3 = ModelShape.from_hf_config(QWEN2_05B), ModelShape.from_hf_config(QWEN3_06B)
    assert qwen2.attention_bias and not qwen2.attention_output_bias and not qwen2.qk_norm
    assert qwen3.qk_norm and not qwen3.attention_bias
    assert not qwen2.sliding_layers and not qwen3.sliding_layers


def test_gemma() -> None:
    second, third = ModelShape.from_hf_config(GEMMA2_2B), ModelShape.from_hf_config(GEMMA3_4B)
    assert (second.attention_softcap, second.logit_softcap) == (50.0, 30.0)
    assert second.sliding_layers == frozenset(range(0, 26, 2))
    assert third.sliding_layers == frozenset(i for i in range(34) if (i + 1) % 6)
    assert (third.rope_theta, third.rope_local_theta) == (1_000_000.0, 10_000.0)
    assert third.rope_scaling == RopeScaling("linear", 8.0, 131072)
    assert third.embedding_scale == 2560**0.5 and third.norm_offset == 1.0 and third.tie_embeddings


def test_layers_without_rotation() -> None:
    shape = ModelShape.from_hf_config(SMOLLM3_3B)
    assert [layer for layer in range(8) if not shape.has_rope(layer)] == [3, 7]
    del (config := dict(SMOLLM3_3B))["no_rope_layers"]
    assert ModelShape.from_hf_config(config) == shape


def test_windows() -> None:
    shape = ModelShape.from_hf_config(MISTRAL_7B)
    assert shape.sliding_window == 4096 and all(shape.is_sliding(layer) for layer in range(32))
    typed = {**GEMMA2_2B, "layer_types": ["full_attention", "sliding_attention"] * 13}
    assert ModelShape.from_hf_config(typed).sliding_layers == frozenset(range(1, 26, 2))


def test_new_rope_parameters_mean_the_old_keys() -> None:
    old = {key: value for key, value in LLAMA32_1B.items() if key not in ("rope_theta", "rope_scaling")}
    parameters = {"rope_theta": 500000.0, **LLAMA32_1B["rope_scaling"]}
    assert ModelShape.from_hf_config({**old, "rope_parameters": parameters}) == ModelShape.from_hf_config(LLAMA32_1B)
    text = dict(GEMMA3_4B["text_config"])
    for key in ("rope_theta", "rope_local_base_freq", "rope_scaling"):
        del text[key]
    text["rope_parameters"] = {
        "full_attention": {"rope_type": "linear", "factor": 8.0, "rope_theta": 1000000.0},
        "sliding_attention": {"rope_type": "default", "rope_theta": 10000.0},
    }
    assert ModelShape.from_hf_config(text) == ModelShape.from_hf_config(GEMMA3_4B)


@pytest.mark.parametrize(
    "change",
    [
        {"model_type": "granite", "rope_scaling": None},
        {"hidden_act": "relu2"},
        {"hidden_act": "gelu"},
        {"rope_scaling": {"rope_type": "longrope", "original_max_position_embeddings": 131072}},
        {"rope_scaling": {"rope_type": "yarn", "factor": 4.0, "truncate": False}},
    ],
)
def test_what_no_fused_module_knows_is_left_to_transformers(change: dict[str, Any]) -> None:
    shape = ModelShape.from_hf_config({**LLAMA32_1B, **change})
    fused = ModelShape.from_hf_config(LLAMA32_1B)
    assert shape.generic and not fused.generic
    assert (shape.parameters, shape.context_length) == (fused.parameters, fused.context_length)


def test_experts_that_a_token_does_not_visit_are_stored_and_not_multiplied() -> None:
    mixtral = {**MISTRAL_7B, "model_type": "mixtral", "num_local_experts": 8, "num_experts_per_tok": 2}
    shape = ModelShape.from_hf_config({**mixtral, "intermediate_size": 14336, "sliding_window": None})
    assert shape.parameters / 1e9 == pytest.approx(46.7, rel=2e-3)
    assert (shape.matmul_parameters + 2 * shape.embedding_parameters) / 1e9 == pytest.approx(12.9, rel=2e-3)


def test_yarn_amplitudes() -> None:
    def amplitude(**entry: object) -> float | None:
        scaling = {"rope_type": "yarn", "factor": 4.0, "original_max_position_embeddings": 32768, **entry}
        found = ModelShape.from_hf_config({**QWEN3_06B, "rope_scaling": scaling}).rope_scaling
        return None if found is None else found.attention_factor

    assert amplitude() is None and amplitude(attention_factor=0.7) == 0.7
    assert amplitude(mscale=1.0, mscale_all_dim=1.0) == 1.0
    whole = {**QWEN3_06B, "rope_scaling": {"type": "yarn", "original_max_position_embeddings": 10240}}
    assert ModelShape.from_hf_config(whole).rope_scaling == RopeScaling("yarn", 4.0, 10240)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"num_attention_heads": 0}, "num_heads is 0"),
        ({"num_key_value_heads": 5}, "32 query heads cannot share 5"),
        ({"hidden_size": 1 << 40}, "hidden_size"),
        ({"num_hidden_layers": "many"}, "not a whole number"),
        ({"num_hidden_layers": True}, "not a whole number"),
        ({"vocab_size": None}, "lacks vocab_size"),
        ({"rope_scaling": "yes"}, "not an object"),
        ({"auto_map": {"AutoModel": "x.Y"}}, "Python code"),
        ({"model_type": None}, "lacks model_type"),
    ],
)
def test_a_config_that_cannot_be_used_says_why(change: dict[str, Any], reason: str) -> None:
    with pytest.raises((ConfigError, UnsupportedError), match=reason):
        ModelShape.from_hf_config({**LLAMA32_1B, **change})


def tensors(*names: str) -> dict[str, TensorInfo]:
    return {name: TensorInfo(name, (256000, 64), GgmlType.F32, 0, 0) for name in ("token_embd.weight", *names)}


def gguf_metadata(architecture: str, **extra: object) -> dict[str, object]:
    keys: dict[str, object] = {
        "block_count": 12, "embedding_length": 64, "attention.head_count": 4, "feed_forward_length": 128,
        "context_length": 1024, "attention.layer_norm_rms_epsilon": 1e-6, **extra,
    }  # fmt: skip
    return {"general.architecture": architecture} | {f"{architecture}.{key}": value for key, value in keys.items()}


def test_gguf_facts_that_the_file_leaves_out() -> None:
    second = ModelShape.from_gguf(gguf_metadata("gemma2", **{"attention.key_length": 32}), tensors())
    assert (second.sliding_window, second.attention_softcap, second.head_dim) == (4096, 50.0, 32)
    assert second.sliding_layers == frozenset(range(0, 12, 2)) and second.norm_offset == 0.0
    third = ModelShape.from_gguf(gguf_metadata("gemma3"), tensors("blk.0.attn_q_norm.weight"))
    assert third.qk_norm and third.rope_theta == 1_000_000.0 and third.rope_local_theta == 10_000.0
    smol = ModelShape.from_gguf(gguf_metadata("smollm3"), tensors("output.weight"))
    assert smol.no_rope_layers == {3, 7, 11} and not smol.tie_embeddings and smol.rope_interleaved
    llama = ModelShape.from_gguf(gguf_metadata("llama"), tensors("rope_freqs.weight", "blk.0.attn_q.bias"))
    assert llama.rope_scaling == RopeScaling("tensor") and llama.attention_bias
    yarn = {"rope.scaling.type": "yarn", "rope.scaling.factor": 4.0, "rope.scaling.original_context_length": 256}
    assert ModelShape.from_gguf(gguf_metadata("qwen2", **yarn), tensors()).rope_scaling == RopeScaling("yarn", 4.0, 256)


@pytest.mark.parametrize(
    ("metadata", "reason"),
    [
        ({}, r"general\.architecture"),
        (gguf_metadata("mamba"), "'mamba' are not supported"),
        (gguf_metadata("llama", block_count="x"), r"llama\.block_count is 'x'"),
        (gguf_metadata("llama", **{"rope.scaling.type": "longrope"}), "'longrope'"),
        (gguf_metadata("llama", block_count=0), "num_layers is 0"),
        (gguf_metadata("llama", expert_count=8), "'llama' with expert_count"),
        (gguf_metadata("mistral3", **{"attention.temperature_scale": 0.1}), "with attention.temperature_scale"),
    ],
)
def test_gguf_metadata_that_cannot_be_used_says_why(metadata: dict[str, object], reason: str) -> None:
    with pytest.raises((ConfigError, UnsupportedError), match=reason):
        ModelShape.from_gguf(metadata, tensors())
