"""Given tokens as a model likes them: which it ranks first at each place, and how probable it finds the given one.

The hidden states are those of one pass over a prompt and what is given to follow it; the LM head runs over the places
of given tokens alone, a few at a time, so that no more logits exist at once than a fixed number.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from dql.executor.models.head import LogitHead

_LOGITS = 1 << 24  # that exist at once


@dataclass(frozen=True, slots=True)
class Followed:
    """What a model says at the places of given tokens.

    best int32 [places]: what it ranks first. logprobs float32 [places]: of the given tokens. distributions float32
    [places, vocabulary], where they are wanted.
    """

    best: NDArray[np.int32]
    logprobs: NDArray[np.float32]
    distributions: NDArray[np.float32] | None


def follow(
    head: LogitHead, hidden: torch.Tensor, given: torch.Tensor, vocabulary: int, *, whole: bool
) -> list[torch.Tensor]:
    """hidden [places, hidden_size], given int64 [places] → best int32 [places], log-probabilities float32 [places].

    Where `whole`, also those of all `vocabulary` tokens, float32 [places, vocabulary].
    """
    size = max(1, _LOGITS // vocabulary)
    parts: list[tuple[torch.Tensor, ...]] = []
    for start in range(0, len(given), size):
        tokens = given[start : start + size]
        logits = head.logits(hidden[start : start + size]).float()
        best, total = logits.argmax(dim=1).int(), logits.logsumexp(dim=1)
        liked = logits.gather(1, tokens[:, None]).squeeze(1) - total
        parts.append((best, liked, logits - total[:, None]) if whole else (best, liked))
    return [torch.cat(column) for column in zip(*parts, strict=True)]


def joined(parts: Sequence[Followed]) -> Followed:
    """Places in order, as one."""
    wholes = [part.distributions for part in parts if part.distributions is not None]
    return Followed(
        np.concatenate([part.best for part in parts]),
        np.concatenate([part.logprobs for part in parts]),
        np.concatenate(wholes) if wholes else None,
    )
