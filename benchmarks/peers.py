"""What dql is measured against, each behind the same two calls."""

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from transformers import LlamaConfig, LlamaForCausalLM

from dql.errors import UnsupportedError
from dql.executor.options import LoadFormat
from dql.executor.requests import Tokens
from dql.executor.weights import Weights, open_weights
from dql.models.model import Model
from dql.models.shape import ModelShape

_BATCH = 16
_MODEL_NAMES = {"embedding": "model.embed_tokens", "final_norm": "model.norm"}
_LAYER_NAMES = {
    "attention_norm": "input_layernorm",
    "q": "self_attn.q_proj",
    "k": "self_attn.k_proj",
    "v": "self_attn.v_proj",
    "o": "self_attn.o_proj",
    "mlp_norm": "post_attention_layernorm",
    "gate": "mlp.gate_proj",
    "up": "mlp.up_proj",
    "down": "mlp.down_proj",
}


class Peer(Protocol):
    """Another engine that runs the same weights."""

    @property
    def name(self) -> str: ...

    def generate(self, prompts: Sequence[Tokens], new_tokens: int) -> list[str]:
        """Exactly `new_tokens` greedy tokens for every prompt, as text without control tokens."""
        ...

    def score(self, prompts: Sequence[Tokens], labels: Sequence[Sequence[int]]) -> list[NDArray[np.float32]] | None:
        """Log-probability of every label's tokens after every prompt, not timed; None where the peer has none."""
        ...

    def close(self) -> None:
        """Let go of the model."""
        ...


class Transformers:
    """`generate` of transformers: fp32, left-padded batches, the usual way to run a table through it."""

    name = "transformers"

    def __init__(self, model: Model, load_format: LoadFormat = "auto") -> None:
        self._tokenizer = model.tokenizer
        self._model = llama(model.shape, open_weights(model, load_format))

    def generate(self, prompts: Sequence[Tokens], new_tokens: int) -> list[str]:
        outputs: list[NDArray[np.int32]] = []
        for start in range(0, len(prompts), _BATCH):
            batch = prompts[start : start + _BATCH]
            width = max(map(len, batch))
            ids, mask = (
                torch.zeros(len(batch), width, dtype=torch.int64),
                torch.zeros(len(batch), width, dtype=torch.int64),
            )
            for row, tokens in enumerate(batch):
                ids[row, width - len(tokens) :] = torch.from_numpy(tokens.astype(np.int64))
                mask[row, width - len(tokens) :] = 1
            with torch.inference_mode():
                full = self._model.generate(
                    input_ids=ids,
                    attention_mask=mask,
                    max_new_tokens=new_tokens,
                    do_sample=False,
                    pad_token_id=0,
                    eos_token_id=None,
                )
            outputs.extend(full[:, width:].to(torch.int32).numpy())
        return self._tokenizer.decode_batch(outputs)

    def score(self, prompts: Sequence[Tokens], labels: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        return [np.array([self._log_prob(prompt, label) for label in labels], np.float32) for prompt in prompts]

    def close(self) -> None:
        del self._model

    def _log_prob(self, prompt: Tokens, label: Sequence[int]) -> float:
        ids = torch.from_numpy(np.concatenate((prompt, label)).astype(np.int64))
        with torch.inference_mode():
            logits = self._model(input_ids=ids[None]).logits[0]
        tail = logits[len(prompt) - 1 : -1].log_softmax(-1)
        return float(tail.gather(1, ids[len(prompt) :, None]).sum())


def llama(shape: ModelShape, weights: Weights) -> Any:
    """A transformers model with these weights in fp32."""
    if shape.architecture != "llama" or not shape.tie_embeddings:
        raise UnsupportedError("the transformers peer is set up for Llama models with tied embeddings only")
    config = LlamaConfig(
        vocab_size=shape.vocab_size,
        hidden_size=shape.hidden_size,
        intermediate_size=shape.intermediate_size,
        num_hidden_layers=shape.num_layers,
        num_attention_heads=shape.num_heads,
        num_key_value_heads=shape.num_kv_heads,
        max_position_embeddings=shape.context_length,
        rms_norm_eps=shape.norm_eps,
        rope_parameters={"rope_type": "default", "rope_theta": shape.rope_theta},
        tie_word_embeddings=True,
    )
    model: Any = LlamaForCausalLM(config)
    model.eval()
    state = {f"{name}.weight": weights.get(role) for role, name in _MODEL_NAMES.items()}
    for layer in range(shape.num_layers):
        for role, name in _LAYER_NAMES.items():
            state[f"model.layers.{layer}.{name}.weight"] = weights.get(role, layer)
    state["lm_head.weight"] = state["model.embed_tokens.weight"]
    model.load_state_dict(state)
    model.generation_config.eos_token_id = None
    return model
