"""The LM head: next-token logits, in vocabulary chunks so that no more than is asked for is ever written out."""

from copy import copy
from typing import Protocol

import torch
from torch.nn import functional

from dql.executor.models.linear import Layout
from dql.executor.models.screen import screen_of
from dql.executor.models.tiles import rowwise
from dql.kernels.label_head import vocabulary_logsumexp
from dql.kernels.language import uses_triton
from dql.kernels.sample import greedy

_SPAN = 64  # logits whose maximum is taken without its place first
_CHUNK = 4096  # vocabulary rows at once: the logits of a chunk stay in cache until they are reduced


class LogitHead(Protocol):
    """Logits over the vocabulary of hidden states [rows, hidden_size] that have been through the final norm.

    tile: where it works in tiles of a fixed number of rows (see `tiles`), how many.
    """

    tile: int | None

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        """All logits, [rows, vocab_size]."""
        ...

    def best(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """The most probable token of each row and its log-probability: int64 [rows], float32 [rows]."""
        ...

    def token(self, hidden: torch.Tensor) -> torch.Tensor:
        """The most probable token of each row alone, int64 [rows]: cheaper where a first pass leaves few candidates."""
        ...

    def logsumexp(self, hidden: torch.Tensor) -> torch.Tensor:
        """log Σ exp of all logits of each row, [rows]."""
        ...

    def rows(self, hidden: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        """The logits of some tokens only: tokens int64 [n] → [rows, n]."""
        ...


class Head:
    """A matrix as LogitHead, its logits perhaps capped."""

    def __init__(self, weight: torch.Tensor, softcap: float | None, layout: Layout) -> None:
        """weight [vocab_size, hidden_size], kept as it is for label rows and laid out in chunks for whole passes."""
        self.weight = weight
        self._softcap = softcap
        starts = range(0, 0 if weight.is_cuda else weight.shape[0], _CHUNK)
        self._chunks = [layout.linear("head", weight[start : start + _CHUNK]) for start in starts]
        self._screen = screen_of(weight, softcap)
        self.tile: int | None = None

    def tiled(self, rows: int) -> "Head":
        """The same weights, worked with in tiles of so many rows (see `tiles`)."""
        other = copy(self)
        other.tile = rows
        return other

    def logits(self, hidden: torch.Tensor) -> torch.Tensor:
        (logits,) = rowwise(self._logits, self.tile, hidden)
        return logits

    def _logits(self, hidden: torch.Tensor) -> tuple[torch.Tensor]:
        if hidden.is_cuda:
            return (self._cap(_wide(hidden, self.weight)),)
        parts = [self._cap(chunk(hidden)) for chunk in self._chunks]
        return (torch.cat(parts, dim=-1) if len(parts) > 1 else parts[0],)

    def best(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        if uses_triton(hidden):
            return greedy(self.logits(hidden))
        tokens, logprobs = rowwise(self._best, self.tile, hidden)
        return tokens, logprobs

    def token(self, hidden: torch.Tensor) -> torch.Tensor:
        if self._screen is None or self.tile is not None or uses_triton(hidden):
            return self.best(hidden)[0]
        return self._screen.tokens(hidden, lambda rows: self._best(rows)[0])

    def _best(self, hidden: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        best = hidden.new_full((len(hidden),), -torch.inf)
        token = torch.zeros(len(hidden), dtype=torch.int64, device=hidden.device)
        normalisers = []
        start = 0
        for chunk in self._chunks:
            logits = self._cap(chunk(hidden))
            value, index = _highest(logits)
            token = torch.where(value > best, index + start, token)
            best = torch.maximum(best, value)
            normalisers.append(logits.sub_(value[:, None]).exp_().sum(dim=-1).log_().add_(value))
            start += chunk.outputs
        return token, best - torch.stack(normalisers).logsumexp(dim=0)

    def logsumexp(self, hidden: torch.Tensor) -> torch.Tensor:
        if uses_triton(hidden):
            return vocabulary_logsumexp(hidden, self.weight, softcap=self._softcap)
        parts = [self._cap(chunk(hidden)).logsumexp(dim=-1) for chunk in self._chunks]
        return torch.stack(parts).logsumexp(dim=0)

    def rows(self, hidden: torch.Tensor, tokens: torch.Tensor) -> torch.Tensor:
        weight = self.weight[tokens]
        return self._cap(_wide(hidden, weight) if hidden.is_cuda else functional.linear(hidden, weight))

    def _cap(self, logits: torch.Tensor) -> torch.Tensor:
        return logits if self._softcap is None else torch.tanh(logits / self._softcap) * self._softcap


def _highest(logits: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """The highest of each row's logits, and where it first stands: [rows], int64 [rows].

    torch looks for a maximum with its place ten times as long as for one without: so the span first, then the place.
    """
    rows, width = logits.shape
    if width % _SPAN:
        return torch.max(logits, dim=-1)
    spans = logits.view(rows, -1, _SPAN)
    span = spans.amax(dim=-1).argmax(dim=-1)
    value, place = spans[torch.arange(rows, device=logits.device), span].max(dim=-1)
    return value, span * _SPAN + place


def _wide(hidden: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """hidden · weightᵀ in float32 of 16-bit matrices on CUDA.

    A logit rounded to bf16 is off by 1/16 at 16, more than what lies between many a pair of labels or next tokens.
    """
    return torch.mm(hidden, weight.t(), out_dtype=torch.float32)
