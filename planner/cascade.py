"""Cascades: small models answer where they are sure, the last one where they are not. How sure is sure enough is
learnt on rows whose last answer is known, so that the whole agrees with the last model as often as was promised.

Thresholds are tried from the strictest down, and the first that cannot be proven ends the search. Which thresholds
there are and in what order is fixed beforehand, so that each may be tested with all of delta: the first one that is
wrong in truth is accepted with probability at most delta, and none after it is looked at (fixed-sequence testing;
Angelopoulos et al. 2022, "Learn then Test"). SUPG (Kang et al. 2020) and BARGAIN (Zeighami et al. 2025) make promises
of the same kind.
"""

from dataclasses import dataclass
from math import ceil

import numpy as np
from numpy.typing import NDArray

from dql.planner.quality import at_most, least_rows

TARGET, CONFIDENCE = 0.95, 0.95  # what a cascade promises where the contract names no quality
# probability of its best label from which a model is believed: even steps of the log odds, then down to any at all
THRESHOLDS: tuple[float, ...] = (
    *(round(float(1 / (1 + np.exp(-odds))), 6) for odds in np.linspace(9, 0, 73)),
    0.4,
    0.3,
    0.2,
    0.1,
    0.0,
)
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
    for threshold in THRESHOLDS if rows else ():
        answering = first_sure(confidences, threshold)
        kept = answering < len(confidences)
        lost = int((~agreements[np.minimum(answering, len(confidences) - 1), np.arange(rows)] & kept).sum())
        if at_most(lost, rows, 1 - target) > delta:
            break
        found = Calibration(threshold, rows, lost, 1 - float(kept.mean()), target, confidence)
    return found


def first_sure(confidences: Confidences, threshold: float) -> NDArray[np.int64]:
    """Number of the first model that reaches the threshold on each row; the number of models where none does."""
    sure = np.concatenate([confidences >= threshold, np.ones((1, confidences.shape[1]), bool)])
    found: NDArray[np.int64] = np.argmax(sure, axis=0)
    return found
