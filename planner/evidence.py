"""What only a running engine can tell, as the planner asks for it: answers to a sample of the user's own rows.

The executor implements `Evidence` and the session hands it over. Everything that is concluded from the answers is here,
so that it can be tested without an engine.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dql.planner.cascade import Calibration, calibrate, sample_size
from dql.planner.certify import Proof, certify, first_look, most_rows
from dql.planner.physical import CallExec, InferExec
from dql.planner.quality import agree

FLOOR_ROWS = 64  # rows on which the reference is compared with itself


@dataclass(frozen=True, slots=True)
class Aim:
    """What is to be proven: the mean agreement is at least `target`, wrong with probability at most `delta`.

    by_token: of free text the share of tokens is meant, not whole answers. least: rows that are drawn, if there are as
    many, though fewer would do: what is proven on as many can be compared.
    """

    target: float
    delta: float
    by_token: bool = False
    least: int = 0

    @property
    def first(self) -> float:
        """Rows that a flawless candidate takes; infinite where no sample proves the target."""
        return max(first_look(self.target, self.delta), self.least)

    def most(self, rows: int) -> int:
        """Rows that one candidate of a query over `rows` may take; 0 where these prove nothing."""
        return most_rows(rows, self.target, self.delta, self.least)


@dataclass(frozen=True, slots=True)
class Told:
    """One answer: its value, None where there is none, and how sure the model is of it."""

    value: object
    confidence: float | None = None


class Sample(Protocol):
    """Random rows of one call's input, in random order.

    population: the rows that the call runs for; exact: whether these were counted, or are reckoned from a part.
    """

    @property
    def population(self) -> int: ...
    @property
    def exact(self) -> bool: ...
    def __len__(self) -> int: ...


class Evidence(Protocol):
    """Answers from running engines. What was asked once is remembered, for the run that follows as well."""

    def pilot(self, node: InferExec, call: CallExec, rows: int) -> Sample:
        """At most `rows` random rows of those that a call of a node is to run for."""

    def answers(self, call: CallExec, sample: Sample, start: int, end: int, *, fresh: bool = False) -> Sequence[Told]:
        """What the call, on its model and at its placement, says to the sample's rows from `start` to `end`.

        fresh: asked anew and in another batch. Raises KeyboardInterrupt where the user stops it.
        """

    def follows(
        self, reference: CallExec, candidate: CallExec, sample: Sample, start: int, end: int
    ) -> Sequence[float | None]:
        """Of each row the share of the tokens of the reference's answer that the candidate ranks first, given those
        before; the end counts as one. None where the reference has no answer. Both calls generate, greedily, on one
        model."""

    def divergence(self, reference: CallExec, candidate: CallExec, sample: Sample, rows: int) -> float | None:
        """Kullback-Leibler divergence of the candidate's distribution from the reference's, in nats, on rows that both
        have answered: of free text the mean over the reference's tokens, given those before; else over answers, of the
        distributions over labels. None where the two do not choose among the same things."""

    def keep(self, call: CallExec, instead: CallExec, sample: Sample) -> None:
        """Answer the sample's rows with what `call` said to them where the run asks `instead`."""


def agreement(
    evidence: Evidence, sample: Sample, reference: CallExec, candidate: CallExec, aim: Aim, most: int
) -> Proof:
    """Test whether a candidate leaves at least the target of the answers as they are, on at most `most` rows."""
    by_token = aim.by_token and follows_tokens(reference, candidate)

    def draw(start: int, end: int) -> list[float]:
        if by_token:
            shares = evidence.follows(reference, candidate, sample, start, end)
            return [0.0 if share is None else share for share in shares]
        ones = evidence.answers(reference, sample, start, end)
        others = evidence.answers(candidate, sample, start, end)
        return [float(same(reference, a, b)) for a, b in zip(ones, others, strict=True)]

    population = sample.population if sample.exact else 0
    return certify(draw, aim.target, aim.delta, min(most, len(sample)), population, aim.least)


def follows_tokens(reference: CallExec, candidate: CallExec) -> bool:
    """Whether answers can be compared token by token; where not, whole answers are compared, which is stricter."""
    greedy = reference.op == "generate" and reference.decoding.temperature == 0
    return greedy and reference.model == candidate.model


def noise_floor(evidence: Evidence, sample: Sample, reference: CallExec) -> tuple[int, int]:
    """Rows on which the reference disagrees with itself in another batch, and rows compared."""
    rows = min(FLOOR_ROWS, len(sample))
    ones = evidence.answers(reference, sample, 0, rows)
    others = evidence.answers(reference, sample, 0, rows, fresh=True)
    return sum(not same(reference, a, b) for a, b in zip(ones, others, strict=True)), rows


def calibrated(
    evidence: Evidence, sample: Sample, stages: Sequence[CallExec], target: float, confidence: float
) -> Calibration:
    """Calibrate a cascade, `stages` in the order in which they are asked; its sample keeps the last one's answers."""
    *before, last = stages
    rows = min(len(sample), sample_size(sample.population, target, 1 - confidence))
    oracle = evidence.answers(last, sample, 0, rows) if rows else ()
    told = [evidence.answers(stage, sample, 0, rows) for stage in before] if rows else [()] * len(before)
    sure = np.array([[-1.0 if t.confidence is None else t.confidence for t in stage] for stage in told])
    right = np.array([[same(last, t, o) for t, o in zip(stage, oracle, strict=True)] for stage in told], bool)
    for stage in before if rows else ():
        evidence.keep(last, stage, sample)
    return calibrate(sure.reshape(len(before), rows), right.reshape(len(before), rows), target, confidence)


def same(call: CallExec, one: Told, other: Told) -> bool:
    """Whether two answers to a call agree."""
    return agree(call.op, one.value, other.value, (call.low, call.high))
