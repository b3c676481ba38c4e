"""Distributions of token lengths, kept as equally spaced quantiles from shortest to longest."""

import numpy as np
from numpy.typing import NDArray

QUANTILES = 65  # points that a distribution is kept in, or one where all lengths are equal
# Answers of instruction-tuned models in free text are log-normal in length, about so long; history replaces this.
_MEDIAN_ANSWER, _ANSWER_SPREAD = 60.0, 0.9

Lengths = tuple[float, ...]


def expected_outputs(max_tokens: int) -> Lengths:
    """Answer lengths of free text before any was seen."""
    normal = _normal_quantiles()
    drawn = np.clip(np.exp(np.log(_MEDIAN_ANSWER) + _ANSWER_SPREAD * normal), 1, max_tokens)
    return tuple(float(x) for x in drawn)


def quantiles(values: NDArray[np.integer] | NDArray[np.floating]) -> Lengths:
    """A distribution as its quantiles; () for none."""
    if not len(values):
        return ()
    if values.min() == values.max():
        return (float(values[0]),)
    return tuple(float(x) for x in np.quantile(values, np.linspace(0, 1, QUANTILES)))


def mean(lengths: Lengths) -> float:
    """The mean of a distribution given by equally spaced quantiles."""
    values = np.array(lengths)
    return float(values[0] if len(values) == 1 else (values[1:] + values[:-1]).mean() / 2)


def draws(lengths: Lengths, count: int) -> NDArray[np.float64]:
    """`count` lengths of the distribution, each stretch of it as often as any other, in an order that mixes them."""
    golden = (np.arange(count) * 0.6180339887498949 + 0.5) % 1.0
    places = np.argsort(np.argsort(golden))  # a permutation whose every stretch covers the whole distribution
    at = (places + 0.5) / max(count, 1) * (len(lengths) - 1)
    found: NDArray[np.float64] = np.interp(at, np.arange(len(lengths)), lengths)
    return found


def _normal_quantiles() -> NDArray[np.float64]:
    """Standard normal quantiles at `QUANTILES` interior points, from the logistic approximation (within 0.02)."""
    p = (np.arange(QUANTILES) + 0.5) / QUANTILES
    logit = np.log(p / (1 - p))
    found: NDArray[np.float64] = logit / 1.702
    return found
