"""transformers' continuous batching on the same token ids: random weights of the same shape, greedy decoding."""

import gc
from collections.abc import Sequence
from time import perf_counter

import torch
from transformers import ContinuousBatchingConfig, GenerationConfig, LlamaConfig, LlamaForCausalLM

from dql.executor.requests import Tokens
from dql.models.shape import ModelShape


def continuous_batching(shape: ModelShape, device: torch.device, prompts: Sequence[Tokens], new_tokens: int) -> float:
    """Seconds for `new_tokens` after every prompt, by `generate_batch` as it comes, after a warm-up.

    bf16 on a GPU, fp32 on the CPU. Raises RuntimeError where a row comes out short.
    """
    config = LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        head_dim=shape.head_dim,
        max_position_embeddings=shape.context_length,
        rms_norm_eps=shape.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        tie_word_embeddings=shape.tie_embeddings,
        dtype=torch.bfloat16 if device.type == "cuda" else torch.float32,
    )
    with device:
        model = LlamaForCausalLM._from_config(config)  # type: ignore[no-untyped-call]
    model.eval()
    model.set_attn_implementation("sdpa")
    rules = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=new_tokens, do_sample=False, eos_token_id=-1, pad_token_id=0
    )
    inputs = [prompt.tolist() for prompt in prompts]
    settings = None if device.type == "cuda" else _small(prompts, new_tokens)
    model.generate_batch(inputs[: max(1, len(inputs) // 8)], rules, settings)
    began = perf_counter()
    found = model.generate_batch(inputs, rules, settings)
    seconds = perf_counter() - began
    short = [output for output in found.values() if len(output.generated_tokens) != new_tokens]
    if len(found) != len(inputs) or short:
        raise RuntimeError(f"transformers answered {len(found) - len(short)} of {len(inputs)} rows in full")
    del model
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return seconds


def _small(prompts: Sequence[Tokens], new_tokens: int) -> ContinuousBatchingConfig:
    """Enough memory for all rows and no more: off a GPU it would take most of the machine's."""
    longest = max(len(prompt) for prompt in prompts) + new_tokens
    return ContinuousBatchingConfig(page_size=256, num_blocks=len(prompts) * (1 + longest // 256), max_batch_tokens=256)
