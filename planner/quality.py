"""Quality as statistics: when two answers are the same, and what a sample of rows proves about the share that is.

Rows are the unit, since the tokens of a row depend on each other. Every bound here is a lower one for the mean of
values in [0, 1]: 1 for a row whose answer is the reference's, 0 for one with another answer; or a share of its tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from math import ceil, exp, inf, log, log1p

import numpy as np
from numpy.typing import NDArray

Values = NDArray[np.float64]

SCORE_SHARE = 0.05  # scores this near, as a share of the scale, are the same
COSINE = 0.99  # and so are embeddings with this cosine
_GIVE_UP = 0.02  # chance of throwing out a candidate that would have passed; it costs seconds, never quality
_STEPS = 60  # halvings of [0, 1] that find a bound to the last bit that matters
# Shares of the largest possible bet, and how the first unit of money is spread over them. The largest wins fastest
# where every answer agrees and loses nearly all at the first that does not; the small ones are for a mean just above
# the bound.
BOLDEST = (0.98, 0.4)
_BETS = (BOLDEST, (0.8, 0.15), (0.6, 0.15), (0.4, 0.1), (0.25, 0.1), (0.12, 0.1))


def agree(op: str, one: object, other: object, scale: tuple[int, int] = (0, 1)) -> bool:
    """Whether two answers to a call of kind `op` are the same. `scale` is that of a score; None is an answer too."""
    if one is None or other is None:
        return one is other
    if op == "score":
        low, high = scale
        return abs(float(str(one)) - float(str(other))) <= SCORE_SHARE * (high - low) + 1e-9
    if op == "embed":
        return _cosine(np.asarray(one, np.float64), np.asarray(other, np.float64)) >= COSINE
    return one == other


def _cosine(one: Values, other: Values) -> float:
    norms = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / norms if norms else float(np.array_equal(one, other))


def log_binomial(n: int, p: float) -> Values:
    """Log-probability of 0 … n successes in n draws with 0 < p < 1."""
    factorials = np.concatenate([np.zeros(1), np.cumsum(np.log(np.arange(1, n + 1)))])
    k = np.arange(n + 1)
    found: Values = factorials[n] - factorials - factorials[::-1] + k * log(p) + (n - k) * log1p(-p)
    return found


def at_most(k: int, n: int, p: float) -> float:
    """Probability of at most k successes in n draws."""
    if k >= n or p <= 0:
        return 1.0
    return 0.0 if k < 0 or p >= 1 else min(1.0, float(np.exp(log_binomial(n, p)[: k + 1]).sum()))


def clopper_pearson(agreed: int, n: int, delta: float) -> float:
    """The share that the population has at least, wrong with probability at most `delta`: `agreed` of n rows drawn."""
    if not agreed:
        return 0.0
    return _largest(lambda p: 1 - at_most(agreed - 1, n, p) <= delta)


def least_rows(target: float, delta: float) -> float:
    """Rows that prove `target` where all of them agree; infinite for a target of 1, which no sample proves."""
    if target >= 1:
        return inf
    return 1 if target <= 0 else ceil(log(delta) / log(target) - 1e-9)


@dataclass(slots=True)
class Betting:
    """A lower bound that may be looked at after every row, and testing stopped whenever it pleases.

    Someone who does not believe that the mean is above m bets against one who does; money that grows to 1/delta has
    probability at most delta if the mean is m or less, at whatever moment it is counted (Ville). This is the capital
    process of Waudby-Smith and Ramdas 2024, "Estimating means of bounded random variables by betting", one-sided, its
    money spread over a few constant bets. population: how many rows there are, where they are drawn without
    replacement; 0 where nobody knows.
    """

    population: int = 0
    values: list[float] = field(default_factory=list)
    _best: float = 0.0

    def add(self, values: Sequence[float]) -> None:
        """More rows, in the random order in which they were drawn."""
        self.values += values

    def log_capital(self, mean: float) -> float:
        """Log of the money that the rows so far made out of one unit, betting that the mean is above `mean`."""
        if not self.values:
            return 0.0
        x = np.array(self.values)
        expected = np.full(len(x), mean)
        if self.population:
            drawn = np.arange(len(x))
            left = np.maximum(self.population - drawn, 1)
            expected = (self.population * mean - (np.cumsum(x) - x)) / left
        if (expected <= 0).any():
            return inf  # the rows drawn already make more than that mean
        expected = np.minimum(expected, 1.0)
        grown = [log(weight) + float(np.log1p(bet * (x / expected - 1)).sum()) for bet, weight in _BETS]
        top = max(grown)
        return top + log(sum(exp(each - top) for each in grown))

    def proves(self, target: float, delta: float) -> bool:
        """Whether the rows so far prove that the mean is at least `target`."""
        return self.log_capital(target) >= -log(delta)

    def bound(self, delta: float) -> float:
        """The largest mean that is proven; it never falls from one look to the next with the same `delta`."""
        self._best = max(self._best, _largest(lambda mean: self.log_capital(mean) >= -log(delta)))
        return self._best

    def hopeless(self, target: float) -> bool:
        """Whether the mean is very likely below `target`, so that more rows are money thrown away."""
        n, agreed = len(self.values), float(sum(self.values))
        return n > 0 and agreed < n * target and at_most(ceil(agreed), n, target) <= _GIVE_UP


def _largest(holds: Callable[[float], bool]) -> float:
    """The largest p in [0, 1) for which `holds`, which is true up to some p and false above."""
    low, high = 0.0, 1.0
    for _ in range(_STEPS):
        middle = (low + high) / 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low
