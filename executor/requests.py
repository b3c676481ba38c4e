"""What goes into the engine and what comes out of it: token ids in; token ids, label scores or vectors out."""

from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Sampling:
    """How the next token is drawn. Temperature 0 is greedy; `seed` None draws afresh on every run."""

    temperature: float = 0.0
    top_k: int = 0
    top_p: float = 1.0
    min_p: float = 0.0
    seed: int | None = None


@dataclass(frozen=True, slots=True)
class Generate:
    """Decode up to `max_tokens`, ending before one of the `stop` ids or one of the `stop_texts`.

    precise, of every task: tokens that the prompt begins with whatever the row, for a model that computes these in a
    higher precision. It is part of the question: another count may get another answer.
    """

    max_tokens: int
    stop: frozenset[int] = frozenset()
    stop_texts: tuple[str, ...] = ()
    sampling: Sampling = field(default_factory=Sampling)
    precise: int = 0


@dataclass(frozen=True, slots=True)
class Score:
    """Log-probability of each label's token ids (end mark included) as the continuation of the prompt; no decoding."""

    labels: tuple[tuple[int, ...], ...]
    precise: int = 0


@dataclass(frozen=True, slots=True)
class Follow:
    """How the model likes given tokens as the continuation of the prompt, in the pass that reads both; no decoding.

    whole: its log-probabilities of the whole vocabulary are told at each of them, which takes memory.
    """

    tokens: tuple[int, ...]
    whole: bool = False
    precise: int = 0


@dataclass(frozen=True, slots=True)
class Embed:
    """One vector for the prompt."""

    precise: int = 0


Task = Generate | Score | Follow | Embed


@dataclass(frozen=True, slots=True)
class Request:
    """One prompt, already token ids. `id` comes back on its answer; ids are the caller's and unique within a run."""

    id: int
    tokens: Tokens
    task: Task


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a row has no answer. `kind` is one of too_long, constraint, oom, timeout, cancelled, engine."""

    kind: str
    message: str
    retryable: bool = False


@dataclass(frozen=True, slots=True)
class Answer:
    """The answer to one request; what its task did not ask for is empty.

    tokens: generated ids without the stop id; for Follow the ids that the model ranks first in place of those given.
    logprobs: of the generated (NaN in a run without) or given tokens, or one per label for Score. distributions:
    log-probabilities, float32 [tokens, vocabulary], where Follow asks for them. finish: "stop" or "length".
    prompt_tokens counts the prompt, for Follow with all given tokens but the last, cached_tokens its part that was not
    computed for this row. seconds runs from admission to the last token, first_seconds to the first one. passes: of the
    model that drew the tokens, the stop id included; fewer than these where guesses were right. text: what the tokens
    spell, where whoever asked had them decoded; an engine leaves it None.
    """

    id: int
    tokens: Tokens
    logprobs: NDArray[np.float32]
    vector: NDArray[np.float32] | None = None
    finish: str = "stop"
    prompt_tokens: int = 0
    cached_tokens: int = 0
    seconds: float = 0.0
    first_seconds: float = 0.0
    passes: int = 0
    failure: Failure | None = None
    text: str | None = None
    distributions: NDArray[np.float32] | None = None
