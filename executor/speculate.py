"""Speculation: tokens guessed ahead of a row and checked in the pass that draws its next one.

A pass over a row's newest token and some guesses yields what the model itself draws after each of them. Guesses are
kept as far as they are what it drew, with the row's own noise where it samples: the tokens are those of a run without
guesses, at any temperature. Keys and values of a wrong guess are overwritten when their slots' turn comes, and no guess
goes beyond a row's last token, so that a row takes no more memory than it was admitted with.

A guess costs the arithmetic of one more token, and a small step is bound by reading the weights: a step of n tokens
takes about as long as n + FREE tokens' arithmetic. So with `rows` rows decoding a guess pays while its chance to be
kept exceeds rows / (rows + FREE) — plus, where a draft model makes it, what that costs. The chance of a row's j-th
guess is reckoned as the run's measured rate to the power of j.
"""

from math import log
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from dql.executor.slab import Lanes, Slab
from dql.executor.step import Guesses
from dql.planner.speculation import MOST, PRIOR_RATE, needed

LONGEST_WAIT = {"cpu": 0, "cuda": 16}  # steps; see Speculation
_PRIOR_WEIGHT = 10.0  # guesses that what is believed at first counts for
_MEMORY = 0.97  # share of what was measured that counts a step later: a run that changes is given another chance

Matrix = NDArray[np.int64]


class Proposer(Protocol):
    """Makes guesses. cost: of one guess for every row, in steps of the model that checks."""

    cost: float

    def propose(self, slab: Slab, lanes: Lanes, most: int) -> Matrix:
        """[lanes, most] tokens that may follow the newest token of these lanes; −1 from where there is no guess."""
        ...

    def close(self) -> None:
        """Free what is held."""
        ...


class Speculation:
    """Decides step by step how far to guess in one run."""

    def __init__(self, proposer: Proposer, free: int, longest_wait: int = 0) -> None:
        """longest_wait: most steps without a try after steps for which there was no guess, where a try costs time.

        A device that runs steps ahead cannot do so while guesses may be made.
        """
        self._proposer = proposer
        self._free = free
        self._longest_wait = longest_wait
        self._checked = self._kept = 0.0
        self._wait = self._barren = 0

    @property
    def rate(self) -> float:
        """The share of checked guesses that were kept, as far as it is remembered."""
        return (self._kept + PRIOR_RATE * _PRIOR_WEIGHT) / (self._checked + _PRIOR_WEIGHT)

    def depth(self, rows: int) -> int:
        """How many guesses a row are worth checking while so many rows decode."""
        if self._wait:
            return 0
        chance = needed(rows, self._free, self._proposer.cost)
        return 0 if chance >= 1 else min(MOST, int(log(chance) / log(min(self.rate, 0.999))))

    def guesses(self, slab: Slab, lanes: Lanes, depth: int) -> Guesses | None:
        """Up to `depth` guesses for each of these lanes, none beyond a row's last token; None where there are none."""
        tokens = self._proposer.propose(slab, lanes, depth)
        known = np.logical_and.accumulate(tokens >= 0, axis=1).sum(axis=1)
        counts = np.minimum(known, slab.limit[lanes] - slab.produced[lanes] - 1)
        return Guesses(lanes, tokens, counts) if counts.any() else None

    def note(self, checked: int, kept: int) -> None:
        """Remember how the guesses of a step fared: `checked` were compared with what was drawn."""
        self._checked, self._kept = _MEMORY * self._checked + checked, _MEMORY * self._kept + kept

    def settle(self, *, tried: bool, guessed: bool) -> None:
        """A step is planned. Without guesses, what was measured fades; in vain, the next tries wait longer."""
        if guessed:
            self._barren = 0
            return
        self.note(0, 0)
        self._barren += tried
        self._wait = min(1 << min(self._barren, 10), self._longest_wait) if tried else max(self._wait - 1, 0)

    def close(self) -> None:
        """Free what the proposer holds."""
        self._proposer.close()


def kept(guesses: Guesses, drawn: Matrix) -> NDArray[np.int64]:
    """How many guesses of each lane are right; drawn [lanes, 1 + most]: after the newest token and after each guess."""
    most = guesses.tokens.shape[1]
    right = (guesses.tokens == drawn[:, :most]) & (np.arange(most) < guesses.counts[:, None])
    count: NDArray[np.int64] = np.logical_and.accumulate(right, axis=1).sum(axis=1)
    return count
