"""What the LM head takes on this machine: for the best token of each row, and for what is asked beside that."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Protocol

import torch

from dql.executor.calibrate_deterministic import extended, factor
from dql.executor.cold_layers import COLD, Clock, ColdLayers
from dql.executor.models.head import Head
from dql.executor.quantize import layout
from dql.executor.requests import Sampling
from dql.executor.sampler import DrawParameters, draw
from dql.models.shape import ModelShape
from dql.planner.hardware import Curve, Operators

_VOCABULARY = 16_384  # least rows of the head that are measured
_SPREAD = 3.0  # standard deviation of the logits, about a model's: few are candidates for the best
_SAMPLING = Sampling(temperature=0.8)


class HeadClock(Clock, Protocol):
    """Times what is asked of a head."""

    def in_turn(self, works: Sequence[Callable[[], object]]) -> list[float]:
        """Seconds of each of these, run in turn."""
        ...

    def over(self, share: float) -> bool:
        """Whether this share of the seconds is spent."""
        ...


def sample_head(shape: ModelShape) -> Head:
    """As much of a head of this shape, of random weights, as no cache holds."""
    rows = min(shape.vocab_size, max(_VOCABULARY, COLD // (4 * shape.hidden_size)))
    values = torch.randn(min(rows, 1024), shape.hidden_size).repeat(-(-rows // 1024), 1)
    return Head(values[:rows], shape.logit_softcap, layout("fp32", torch.device("cpu")))


def head_seconds(head: Head, cold: ColdLayers, clock: HeadClock, rows: Sequence[int]) -> list[tuple[int, float]]:
    """(rows, seconds of the best token of each, its log-probability left out), until there is no more time."""
    found: list[tuple[int, float]] = []
    for count in rows:
        found.append((count, cold.head(head, count, clock)))
        if clock.over(0.7):
            break
    return found


def drawing_factors(head: Head, clock: HeadClock, rows: Sequence[int], typical: Operators) -> tuple[Curve, Curve]:
    """By what factor so many rows take longer with their tokens' log-probabilities, and drawn at a temperature."""
    told: list[tuple[float, float]] = []
    drawn: list[tuple[float, float]] = []
    for count in rows:
        if clock.over(0.75):
            break
        hidden = torch.randn(count, head.weight.shape[1]) * _SPREAD / head.weight.shape[1] ** 0.5
        greedy, hot = DrawParameters.empty(count), DrawParameters.empty(count)
        for row in range(count):
            hot.set(row, _SAMPLING, row)
        alone, beside, sampled = clock.in_turn(
            (
                partial(draw, head, hidden, greedy, logprobs=False),
                partial(draw, head, hidden, greedy),
                partial(draw, head, hidden, hot),
            )
        )
        told.append((float(count), factor(beside, alone)))
        drawn.append((float(count), factor(sampled, alone)))
    return extended(told, typical.told), extended(drawn, typical.drawn)
