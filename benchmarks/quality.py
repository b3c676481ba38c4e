"""Quality bounds and cascades against simulated tables whose truth is known: how often is a promise broken?

    python -m benchmarks.quality [--trials 1000]
    python -m benchmarks.quality --whole [--trials 1000] [--only CASE]
    python -m benchmarks.quality --real reviews.csv [--rows 1000] [--only filter] [--bounds 0.95] [--first int8]

Every trial makes a table, draws the sample that dql would draw, and lets dql's own tests decide. A promise is broken
where a choice was certified and less than the target of the table's answers is the reference's. It may happen in delta
of the trials, beyond which two standard errors are allowed for the simulation itself.
"""

import argparse
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks import quality_real, quality_twofold
from dql.planner.cascade import calibrate, first_sure, sample_size
from dql.planner.certify import Draw, certify, most_rows
from dql.planner.quality import clopper_pearson

ROWS = 5_000
TARGET, DELTA = 0.95, 0.05
Random = np.random.Generator


@dataclass(frozen=True, slots=True)
class Verdict:
    """One trial: whether something was certified, whether that was wrong, rows asked of the reference for it."""

    certified: bool
    broken: bool
    asked: float = 0.0


@dataclass(frozen=True, slots=True)
class Outcome:
    """All trials of one case."""

    case: str
    trials: int
    certified: float
    broken: float
    asked: float

    @property
    def allowed(self) -> float:
        """Share of trials that may break the promise: delta and two standard errors."""
        return DELTA + 2 * float(np.sqrt(DELTA * (1 - DELTA) / self.trials))


def agreeing(random: Random, share: float, rows: int = ROWS) -> NDArray[np.float64]:
    """A table of which exactly this share agrees, in random order."""
    values = np.zeros(rows)
    values[: round(share * rows)] = 1.0
    return random.permutation(values)


def fixed(random: Random, share: float) -> Verdict:
    """256 rows, Clopper-Pearson."""
    table = agreeing(random, share)
    bound = clopper_pearson(int(table[:256].sum()), 256, DELTA)
    return Verdict(bound >= TARGET, bound >= TARGET > table.mean(), 256)


def sequential(random: Random, share: float) -> Verdict:
    """As many rows as it takes, up to what dql would spend."""
    return tested([agreeing(random, share)])


def three(random: Random, share: float) -> Verdict:
    """Three candidates, the risk split over them; any that is certified is taken."""
    return tested([agreeing(random, share) for _ in range(3)])


def tokens(random: Random, share: float) -> Verdict:
    """Shares of tokens in place of verdicts on rows: many rows near 1, a few far below."""
    spread = random.beta(1.2, 1.2 * (1 - share) / share, ROWS)
    return tested([spread + (share - spread.mean()) * 0.999])


def tested(tables: list[NDArray[np.float64]]) -> Verdict:
    """The first candidate that is certified, as dql takes it."""
    asked = 0
    for table in tables:
        delta = DELTA / len(tables)
        seen = certify(part(table), TARGET, delta, most_rows(ROWS, TARGET, delta), ROWS)
        asked = max(asked, seen.rows)
        if seen.proves(TARGET, delta):
            return Verdict(True, bool(table.mean() < TARGET), asked)
    return Verdict(False, False, asked)


def part(table: NDArray[np.float64]) -> Draw:
    """Reads a table's values from one place to another."""
    return lambda start, end: table[start:end].tolist()


def cascade(random: Random, confidences: NDArray[np.float64], right: NDArray[np.float64]) -> Verdict:
    """A cascade: `confidences` of the small models and `right`, the chances that they agree, both [models, rows]."""
    agreements = random.random(right.shape) < right
    rows = sample_size(ROWS, TARGET, DELTA)
    sample = random.permutation(ROWS)[:rows]
    found = calibrate(confidences[:, sample], agreements[:, sample], TARGET, 1 - DELTA)
    answering = first_sure(confidences, found.threshold)
    models, kept = len(confidences), answering < len(confidences)
    same = ~kept | agreements[np.minimum(answering, models - 1), np.arange(ROWS)]
    kept[sample], same[sample] = False, True  # the sample keeps the last model's answers
    return Verdict(not found.alone, bool(same.mean() < TARGET), float((~kept).sum()))


def honest(random: Random) -> Verdict:
    """A small model that knows how sure it is."""
    sure = random.beta(4, 1, (1, ROWS)) / 2 + 0.5
    return cascade(random, sure, sure)


def boastful(random: Random) -> Verdict:
    """A small model that is surer than it should be."""
    sure = random.beta(6, 1, (1, ROWS)) / 2 + 0.5
    return cascade(random, sure, 1 - 1.8 * (1 - sure) - 0.03)


def adversarial(random: Random) -> Verdict:
    """As many wrong answers as may be and a few more, all of them where the small model is surest."""
    sure = np.sort(random.random((1, ROWS)))[:, ::-1] / 2 + 0.5
    return cascade(random, sure, np.where(np.arange(ROWS) < 0.055 * ROWS, 0.0, 1.0)[None])


def useless(random: Random) -> Verdict:
    """A small model whose confidence says nothing, right in 94 % of the rows."""
    return cascade(random, random.random((1, ROWS)) / 2 + 0.5, np.full((1, ROWS), 0.94))


def timid(random: Random) -> Verdict:
    """A small model that is hardly ever sure: half of its answers lie within 0.02 of even, most wrong ones too."""
    margin = random.beta(1, 16, (1, ROWS)) / 2
    return cascade(random, 0.5 + margin, 1 - np.exp(-margin * 200) / 2)


def chain(random: Random) -> Verdict:
    """Two small models before the large one."""
    sure = np.stack([random.beta(3, 1, ROWS), random.beta(6, 1, ROWS)]) / 2 + 0.5
    return cascade(random, sure, sure)


def cases() -> Iterator[tuple[str, Callable[[Random], Verdict]]]:
    """Every case by name: agreement below, just below and above the target; cascades of six kinds."""
    for share in (0.90, 0.94, 0.948, 0.97, 0.99, 1.0):
        for kind in (fixed, sequential, three, tokens):
            if share < 1 or kind is not tokens:
                yield f"{kind.__name__} {share}", partial(kind, share=share)
    for model in (honest, boastful, adversarial, useless, timid, chain):
        yield f"cascade {model.__name__}", model


def simulate(trials: int, seed: int = 0, only: str = "") -> Iterator[Outcome]:
    """Every case whose name begins with `only` over `trials` tables."""
    for name, trial in ((name, trial) for name, trial in cases() if name.startswith(only)):
        random = np.random.default_rng(seed)
        found = [trial(random) for _ in range(trials)]
        yield Outcome(
            name,
            trials,
            float(np.mean([v.certified for v in found])),
            float(np.mean([v.broken for v in found])),
            float(np.mean([v.asked for v in found])),
        )


def report(trials: int, only: str) -> Iterator[str]:
    """The table line by line, of cases whose name begins with `only`; the last says whether every promise was kept."""
    yield f"{ROWS:,} rows a table, target {TARGET} at {1 - DELTA:.0%}, {trials:,} tables a case"
    yield f"{'case':<24}{'certified':>10}{'broken':>9}{'allowed':>9}{'reference calls':>17}{'saved':>8}"
    worst = 0.0
    for outcome in simulate(trials, only=only):
        worst = max(worst, outcome.broken / outcome.allowed)
        yield (
            f"{outcome.case:<24}{outcome.certified:>10.1%}{outcome.broken:>9.1%}{outcome.allowed:>9.1%}"
            f"{outcome.asked:>17,.0f}{1 - outcome.asked / ROWS:>8.1%}"
        )
    yield "every promise kept" if worst <= 1 else f"a promise broken {worst:.2f} times as often as allowed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--whole", action="store_true", help="the whole procedure as a query goes through it")
    parser.add_argument("--only", default="", help="cases whose name begins so")
    parser.add_argument("--real", type=Path, help="a CSV of reviews, whose answers are compared with those of fp32")
    parser.add_argument("--rows", type=int, default=1000, help="of the CSV")
    parser.add_argument("--bounds", type=float, nargs="+", default=[0.95, 0.98, 0.99], help="on its quality")
    parser.add_argument("--first", default="", help="a precision that is asked first there, whether it pays or not")
    options = parser.parse_args()
    if options.real is not None:
        lines = quality_real.report(options.real, options.rows, options.only, options.bounds, options.first)
    else:
        lines = (quality_twofold.report if options.whole else report)(options.trials, options.only)
    for line in lines:
        print(line, flush=True)


if __name__ == "__main__":
    main()
