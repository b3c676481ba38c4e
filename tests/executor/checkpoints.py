"""Tiny random checkpoints of every fused family, written by transformers itself, and what it answers from them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dql.executor.requests import Tokens
from dql.models import Model, open_model

VOCABULARY = 160
WINDOW = 12
_COMMON: Mapping[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 4,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 256,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 10_000.0,
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
_YARN = {"rope_type": "yarn", "rope_theta": 10_000.0, "factor": 4.0, "original_max_position_embeddings": 64}
_LINEAR = {"rope_type": "linear", "rope_theta": 10_000.0, "factor": 4.0}
_SLIDING = {"sliding_window": WINDOW}
FAMILIES: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "llama": ("llama", {"tie_word_embeddings": True}),
    "llama, untied, biased, llama3 scaling": (
        "llama",
        {"tie_word_embeddings": False, "attention_bias": True, "mlp_bias": True, "rope_parameters": _LLAMA3},
    ),
    "llama, linear scaling": ("llama", {"rope_parameters": _LINEAR}),
    "llama, yarn scaling": ("llama", {"rope_parameters": {**_YARN, "mscale": 0.8, "mscale_all_dim": 0.3}}),
    "mistral, sliding": ("mistral", {**_SLIDING, "head_dim": 16}),
    "qwen2": ("qwen2", {}),
    "qwen2, sliding": ("qwen2", {**_SLIDING, "use_sliding_window": True, "max_window_layers": 2}),
    "qwen3": ("qwen3", {"head_dim": 16, "rope_parameters": _YARN}),
    "smollm3": ("smollm3", {}),
    "gemma": ("gemma", {"head_dim": 16}),
    "gemma2": ("gemma2", {**_SLIDING, "head_dim": 16, "query_pre_attn_scalar": 16}),
    "gemma3": ("gemma3_text", {**_SLIDING, "head_dim": 16, "sliding_window_pattern": 2}),
    "gemma3, linear scaling": (
        "gemma3_text",
        {
            **_SLIDING,
            "head_dim": 16,
            "query_pre_attn_scalar": 16,
            "num_hidden_layers": 7,
            "rope_parameters": {
                "full_attention": {**_LINEAR, "rope_theta": 1_000_000.0},
                "sliding_attention": {"rope_type": "default", "rope_theta": 10_000.0},
            },
        },
    ),
}
# Families that transformers' own modules run: other norms, factors, experts, windows, learned positions, latent keys.
_MOE = {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 24}
GENERIC: Mapping[str, tuple[str, Mapping[str, Any]]] = {
    "olmo2": ("olmo2", {}),
    "granite": ("granite", {"logits_scaling": 4.0, "embedding_multiplier": 3.0, "attention_multiplier": 0.2}),
    "qwen2_moe": ("qwen2_moe", {**_MOE, "shared_expert_intermediate_size": 40}),
    "cohere2, sliding": ("cohere2", {**_SLIDING, "sliding_window_pattern": 2, "logit_scale": 0.5}),
    "gpt2": ("gpt2", {"n_inner": 48}),
    "deepseek_v2": (
        "deepseek_v2",
        {
            "num_key_value_heads": 4,
            "kv_lora_rank": 16,
            "q_lora_rank": 16,
            "head_dim": 8,
            "v_head_dim": 12,
            "qk_rope_head_dim": 8,
            "qk_nope_head_dim": 8,
            "n_routed_experts": 4,
            "num_experts_per_tok": 2,
            "moe_intermediate_size": 24,
            "n_shared_experts": 1,
            "first_k_dense_replace": 1,
        },
    ),
}


@dataclass(frozen=True, slots=True)
class Checkpoint:
    """The same weights twice: as files that dql opens, and as transformers' own module."""

    model: Model
    oracle: Any

    def log_probs(self, prompt: Tokens, following: Sequence[int]) -> torch.Tensor:
        """Log-probabilities of all tokens at every place that `following` fills: [following, vocabulary]."""
        ids = torch.tensor([*prompt.tolist(), *following])
        with torch.no_grad():
            logits: torch.Tensor = self.oracle(input_ids=ids[None], use_cache=False).logits[0, len(prompt) - 1 : -1]
        return logits.log_softmax(-1)

    def label_scores(self, prompt: Tokens, labels: Sequence[Sequence[int]]) -> list[float]:
        """Log-softmax over labels of the log-probability of each label's tokens after a prompt."""
        scores = [self.log_probs(prompt, label).gather(1, torch.tensor(label)[:, None]).sum() for label in labels]
        found: list[float] = torch.stack(scores).log_softmax(0).tolist()
        return found


def checkpoint(
    folder: Path, family: str, *, vocab_size: int = VOCABULARY, max_shard_size: str = "1GB", **sizes: int
) -> Checkpoint:
    """Write and open a seeded random checkpoint; weights wide enough that greedy choices are clear."""
    from transformers import AutoConfig, AutoModelForCausalLM  # takes seconds, which a test that needs none is spared

    model_type, changes = {**FAMILIES, **GENERIC}[family]
    config = AutoConfig.for_model(model_type, **{**_COMMON, **changes, **sizes, "vocab_size": vocab_size})
    torch.manual_seed(7)
    oracle: Any = AutoModelForCausalLM.from_config(config, attn_implementation="eager")  # type: ignore[no-untyped-call]
    oracle.eval()
    with torch.no_grad():
        for name, parameter in oracle.named_parameters():
            scale = 0.2 if name.endswith("bias") or "norm" in name else 2.0 * parameter.shape[-1] ** -0.5
            parameter.copy_(torch.randn_like(parameter) * scale + ("norm" in name and "gemma" not in model_type))
    oracle.save_pretrained(folder, max_shard_size=max_shard_size)
    return Checkpoint(open_model(folder, name=family, uri=str(folder)), oracle)
