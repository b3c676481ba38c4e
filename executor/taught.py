"""A model beside a reference: what it says where the reference's answers are put into its mouth, and how far apart
the two are.

An answer is given to the model token by token behind the same prompt, and judged in the pass that reads it. What parts
the two is the Kullback-Leibler divergence Σ p (log p − log q) of the model's distribution q from the reference's p.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from functools import partial

import numpy as np
from numpy.typing import NDArray

from dql.executor.context import Context
from dql.executor.inquiry import Inquiry, Question, ask
from dql.executor.requests import Answer, Follow, Tokens
from dql.planner.measured import Measured
from dql.planner.physical import CallExec

Given = Mapping[int, tuple[int, ...]]  # by row: the tokens of an answer and, where it ended by itself, a stop id
Floats = NDArray[np.floating]


def taught(
    call: CallExec,
    prompts: Sequence[Tokens],
    given: Given,
    context: Context,
    *,
    whole: bool = False,
    precise: int = 0,
) -> dict[int, Answer]:
    """What the model of a call says to answers given behind its prompts, by row; whole, precise: see Follow.

    Raises KeyboardInterrupt where the user stops it.
    """
    found: dict[int, Answer] = {}
    asked = [
        Question(row, prompts[row], Follow(tokens, whole, precise), partial(found.__setitem__, row))
        for row, tokens in given.items()
        if tokens
    ]
    rows = np.arange(0)
    plain = replace(call, label="a sample", draft=None)
    ask([Inquiry(plain, Measured(), rows, rows, [], asked)], context)
    if context.cancelled.is_set():
        raise KeyboardInterrupt
    return found


def share_first(answer: Answer | None, tokens: tuple[int, ...], stop: frozenset[int]) -> float:
    """The share of given tokens that the model ranks first; any stop id ends an answer as well as another."""
    if not tokens:
        return 1.0
    if answer is None or answer.failure is not None:
        return 0.0
    ends, best, wanted = np.array(sorted(stop), np.int64), answer.tokens, np.array(tokens)
    return float(np.mean((best == wanted) | (np.isin(best, ends) & np.isin(wanted, ends))))


def first_places(given: Given, most: int) -> dict[int, tuple[int, ...]]:
    """The first `most` tokens of the answers, row by row."""
    kept: dict[int, tuple[int, ...]] = {}
    for row, tokens in given.items():
        if most > 0 and tokens:
            kept[row] = tokens[:most]
            most -= len(kept[row])
    return kept


def divergence(reference: Floats, model: Floats) -> NDArray[np.float64]:
    """In nats, of log-probabilities [rows, choices] each: [rows]."""
    p, q = np.asarray(reference, np.float64), np.asarray(model, np.float64)
    possible = p > -np.inf
    terms = np.zeros(p.shape)
    np.subtract(p, q, out=terms, where=possible)
    found: NDArray[np.float64] = (np.exp(p) * terms).sum(axis=-1)
    return np.maximum(found, 0.0)
