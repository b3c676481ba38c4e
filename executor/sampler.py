"""Drawing next tokens for many rows at once: greedy straight from the head's chunks, sampled rows from their logits."""

import hashlib
import secrets
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dql.executor.models.head import LogitHead
from dql.executor.requests import Sampling, Tokens
from dql.executor.transfer import to_device
from dql.kernels.sample import SamplingRows, sample


@dataclass(slots=True)
class DrawParameters:
    """Per row [rows]: what it samples with, its own noise stream, and how many tokens it has drawn before."""

    temperature: NDArray[np.float32]
    top_k: NDArray[np.int32]
    top_p: NDArray[np.float32]
    min_p: NDArray[np.float32]
    seeds: NDArray[np.int64]
    steps: NDArray[np.int32]

    @classmethod
    def empty(cls, rows: int) -> "DrawParameters":
        """Greedy parameters of `rows` rows, to be set one by one."""
        floats, integers = np.zeros(rows, np.float32), np.zeros(rows, np.int32)
        return cls(floats, integers, floats + 1, floats.copy(), np.zeros(rows, np.int64), integers.copy())

    def set(self, row: int, sampling: Sampling, seed: int) -> None:
        """What row number `row` samples with, from its first token on."""
        self.temperature[row] = sampling.temperature
        self.top_k[row] = sampling.top_k
        self.top_p[row] = sampling.top_p
        self.min_p[row] = sampling.min_p
        self.seeds[row] = seed
        self.steps[row] = 0

    def at(self, rows: NDArray[np.int64]) -> "DrawParameters":
        """The parameters of some rows."""
        return DrawParameters(*(getattr(self, name)[rows] for name in self.__slots__))

    @classmethod
    def concatenated(cls, parts: "list[DrawParameters]") -> "DrawParameters":
        """The rows of all parts after each other."""
        return cls(*(np.concatenate([getattr(part, name) for part in parts]) for name in cls.__slots__))


def row_seed(sampling: Sampling, prompt: Tokens) -> int:
    """The row's noise stream: a function of (seed, prompt) and not of batch or order; fresh where there is no seed."""
    if sampling.seed is None:
        return secrets.randbits(63)
    digest = hashlib.blake2b(prompt.tobytes(), digest_size=8, key=str(sampling.seed).encode()[:64])
    return int.from_bytes(digest.digest(), "little") >> 1


def draw(
    head: LogitHead, hidden: torch.Tensor, parameters: DrawParameters, *, logprobs: bool = True
) -> tuple[torch.Tensor, torch.Tensor]:
    """The next token of each row of hidden [rows, hidden_size] and its log-probability under the model itself.

    Returns int64 [rows], float32 [rows] on the device of `hidden`, without waiting for it. Without `logprobs` greedy
    rows have NaN there, and are cheaper.
    """
    hot = parameters.temperature > 0
    tokens = torch.empty(len(hot), dtype=torch.int64, device=hidden.device)
    sure = torch.empty(len(hot), device=hidden.device)
    for sampled in (False, True):
        places = np.flatnonzero(hot == sampled)
        if len(places) == len(hot):
            return _sampled(head, hidden, parameters) if sampled else _greedy(head, hidden, logprobs)
        if len(places):
            at = to_device(places, hidden.device)
            states = hidden[at]
            tokens[at], sure[at] = (
                _sampled(head, states, parameters.at(places)) if sampled else _greedy(head, states, logprobs)
            )
    return tokens, sure


def _greedy(head: LogitHead, hidden: torch.Tensor, logprobs: bool) -> tuple[torch.Tensor, torch.Tensor]:
    if logprobs:
        return head.best(hidden)
    return head.token(hidden), torch.full((len(hidden),), torch.nan, device=hidden.device)


def _sampled(head: LogitHead, hidden: torch.Tensor, parameters: DrawParameters) -> tuple[torch.Tensor, torch.Tensor]:
    tensors = (to_device(getattr(parameters, name), hidden.device) for name in DrawParameters.__slots__)
    rows, logits = SamplingRows(*tensors), head.logits(hidden)
    if head.tile is None:
        return sample(logits, rows)
    # one by one: how many rows are drawn together would show in the last bit of their log-probabilities
    places = torch.split(torch.arange(len(logits), device=hidden.device), 1)
    tokens, logprobs = zip(*(sample(logits[place], rows.at(place)) for place in places), strict=True)
    return torch.cat(tokens), torch.cat(logprobs)
