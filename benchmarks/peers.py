"""What dql is measured against, each behind the same two calls."""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks.transformers_model import transformers_model
from dql.executor.options import LoadFormat
from dql.executor.requests import Tokens
from dql.executor.weights import open_weights
from dql.models.model import Model

_BATCH = 16


class Peer(Protocol):
    """Another engine that runs the same weights."""

    @property
    def name(self) -> str: ...

    @property
    def shares(self) -> bool:
        """Whether rows share what they begin with, so that fewer rows would be dearer ones."""
        ...

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
    shares = False

    def __init__(self, model: Model, load_format: LoadFormat = "auto") -> None:
        self._tokenizer = model.tokenizer
        self._model = transformers_model(model.shape, open_weights(model, load_format))

    def generate(self, prompts: Sequence[Tokens], new_tokens: int) -> list[str]:
        return self._tokenizer.decode_batch(self.generate_ids(prompts, new_tokens))

    def generate_ids(self, prompts: Sequence[Tokens], new_tokens: int) -> list[NDArray[np.int32]]:
        """As `generate`, the tokens themselves."""
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
        return outputs

    def score(self, prompts: Sequence[Tokens], labels: Sequence[Sequence[int]]) -> list[NDArray[np.float32]]:
        return [np.array([self._log_prob(prompt, label) for label in labels], np.float32) for prompt in prompts]

    def close(self) -> None:
        del self._model

    def _log_prob(self, prompt: Tokens, label: Sequence[int]) -> float:
        ids = torch.from_numpy(np.concatenate((prompt, label)).astype(np.int64))
        with torch.inference_mode():
            logits = self._model(input_ids=ids[None], logits_to_keep=len(label) + 1).logits[0]
        tail = logits[:-1].log_softmax(-1)
        return float(tail.gather(1, ids[len(prompt) :, None]).sum())
