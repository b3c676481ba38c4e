"""Cascades: small models answer where they are sure, the last one where they are not. How sure is sure enough is
learnt on rows whose last answer is known, so that the whole agrees with the last model as often as was promised.

Thresholds are tried from the strictest down, and the first that cannot be proven ends the search. Which thresholds
there are and in what order is fixed beforehand, so that each may be tested with all of delta: the first one that is
wrong in truth is accepted with probability at most delta, and none after it is looked at (fixed-sequence testing;
Angelopoulos et al. 2022, "Learn then Test"). So their number costs nothing, and they lie closer together than a model's
confidences do. SUPG (Kang et al. 2020) and BARGAIN (Zeighami et al. 2025) make promises of the same kind.
"""

from dataclasses import dataclass
from functools import cache
from math import ceil, exp

import numpy as np
from numpy.typing import NDArray

from dql.planner.quality import at_most, least_rows

TARGET, CONFIDENCE = 0.95, 0.95  # what a cascade promises where the contract names no quality
# Thresholds are probabilities of the best label, in even steps of the log odds between these, and 0: any row at all.
# Small models are hardly ever sure of more than 0.6; a step there is a four-thousandth. What rounding does to an answer
# in another batch stays within one.
_STEP, _STEEPEST = 0.001, 20.0
ASKED = 1.5  # a threshold with which every model is asked, and none before the last is believed
ALONE = 2.0  # a threshold that nothing reaches: the last model answers every row
_MOST_SHARE, _MOST_ROWS, _ENOUGH = 0.2, 1000, 4

Confidences = NDArray[np.float64]  # [models before the last, rows]
Agreements = NDArray[np.bool_]  # [models before the last, rows]: same answer as the last model


@dataclass(frozen=True, slots=True)
class Calibration:
    """A threshold and what it rests on: of `rows` random ones, `lost` got another answer than the last model's.

    asked: the share of rows that the last model answers. target, confidence: what is promised.
    """

    threshold: float
    rows: int
    lost: int
    asked: float
    target: float
    confidence: float

    @property
    def alone(self) -> bool:
        """Whether nothing could be proven, so that the last model answers every row."""
        return self.threshold >= ALONE


def sample_size(rows: int, target: float, delta: float) -> int:
    """Rows to calibrate on, out of `rows`; 0 where so few are left to gain from that the last model answers all."""
    least = least_rows(target, delta)
    most = min(int(rows * _MOST_SHARE), _MOST_ROWS)
    return 0 if least > most else ceil(min(_ENOUGH * least, most))


def calibrate(confidences: Confidences, agreements: Agreements, target: float, confidence: float) -> Calibration:
    """The lowest threshold with which at least `target` of all rows get the last model's answer, at `confidence`.

    The columns are rows drawn at random from all.
    """
    rows, delta = confidences.shape[1], 1 - confidence
    found = Calibration(ALONE, rows, 0, 1.0, target, confidence)
    chance = cache(lambda lost: at_most(lost, rows, 1 - target))  # of losing so few where the target is missed
    for threshold in _telling(confidences) if rows else ():
        answering = first_sure(confidences, threshold)
        kept = answering < len(confidences)
        lost = int((~agreements[np.minimum(answering, len(confidences) - 1), np.arange(rows)] & kept).sum())
        if chance(lost) > delta:
            break
        found = Calibration(threshold, rows, lost, 1 - float(kept.mean()), target, confidence)
    return found


def _telling(confidences: Confidences) -> list[float]:
    """The thresholds on either side of each confidence, from the strictest down. All others between two of them part
    these rows alike, so that the test of each is the same."""
    known = np.clip(confidences[confidences >= 0], 1e-12, 1 - 1e-12)
    steps = np.floor(np.clip(np.log(known / (1 - known)), -_STEEPEST, _STEEPEST) / _STEP)
    odds = np.unique(np.concatenate([steps, steps + 1])) * _STEP
    # as many digits as a comparison in SQL keeps
    return [*sorted({round(1 / (1 + exp(-each)), 9) for each in odds.tolist()}, reverse=True), 0.0]


def first_sure(confidences: Confidences, threshold: float) -> NDArray[np.int64]:
    """Number of the first model that reaches the threshold on each row; the number of models where none does."""
    sure = np.concatenate([confidences >= threshold, np.ones((1, confidences.shape[1]), bool)])
    found: NDArray[np.int64] = np.argmax(sure, axis=0)
    return found
