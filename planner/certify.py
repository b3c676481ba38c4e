"""Testing a candidate against the reference row by row, as few rows as it takes to prove or to give up."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import ceil, log

from dql.planner.quality import BOLDEST, Betting

LOOK = 32  # rows between two looks: a batch that an engine likes
MEASURED = 256  # rows that candidates are compared on where the best of them is wanted
_MOST_SHARE, _MOST_ROWS, _PATIENCE = 0.1, 2000, 12
Draw = Callable[[int, int], Sequence[float]]


@dataclass(frozen=True, slots=True)
class Proof:
    """What testing a candidate came to: on `rows` random rows the mean agreement was `estimate`, in truth at least
    `bound`, which is wrong with probability at most `delta`."""

    rows: int
    estimate: float
    bound: float
    delta: float

    def proves(self, target: float, delta: float) -> bool:
        """Whether the target is kept, at a risk no larger than `delta`."""
        return self.rows > 0 and self.bound >= target and self.delta <= delta * (1 + 1e-9)


def first_look(target: float, delta: float) -> float:
    """Rows that a flawless candidate takes; infinite where no sample proves the target."""
    if target >= 1:
        return float("inf")
    gain = log(1 + BOLDEST[0] * (1 / max(target, 1e-9) - 1))
    return ceil((-log(delta) - log(BOLDEST[1])) / gain)


def most_rows(rows: int, target: float, delta: float, least: int = 0) -> int:
    """Rows that may be spent on one candidate of a query over `rows`; 0 where these cannot prove the target.

    least: so many are spent, if there are as many; 0 where there are not even enough for one look.
    """
    first = first_look(target, delta)
    most = min(int(rows * _MOST_SHARE), _MOST_ROWS)
    return 0 if first > most or min(least, LOOK) > most else min(most, max(int(_PATIENCE * first), least))


def certify(draw: Draw, target: float, delta: float, most: int, population: int = 0, least: int = 0) -> Proof:
    """Test until the target is proven, hopeless or `most` rows are spent, and `least` rows where it is not hopeless.

    draw: agreements of the rows from one place to another of a random order. population: rows there are, 0 if unknown.
    """
    betting = Betting(population)
    end = int(min(max(first_look(target, delta), least), most))
    while len(betting.values) < most:
        betting.add(draw(len(betting.values), end))
        if betting.hopeless(target) or (len(betting.values) >= least and betting.proves(target, delta)):
            break
        end = min(most, end + LOOK)
    rows = len(betting.values)
    bound = betting.bound(delta)
    return Proof(rows, sum(betting.values) / max(rows, 1), bound, delta)
