"""What a call of a run did, beside what was predicted for it."""

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from dql.planner.hardware import Floats
from dql.planner.lengths import Lengths, quantiles
from dql.planner.simulate import MOST_ROWS, PERCENTILES

_KEPT = 100_000  # rows whose latency and length are kept


@dataclass(slots=True)
class Measured:
    """One call: rows asked and rows run, seconds in the engine, tokens; of each row that ran, its seconds to the last
    and to the first token, its tokens drawn and the passes that drew them. read, yes: a filter's answers, and those
    that are yes. changes: what the run changed of its plan, in words. order: its place among the conditions of a
    filter. proposed: tokens guessed ahead. planned: rows, the first of those kept, that came before any change.

    Calls that share an engine's run share its seconds by the tokens computed for each.
    """

    rows: int = 0
    distinct: int = 0
    seconds: float = 0.0
    prefilled: int = 0
    reused: int = 0
    decoded: int = 0
    proposed: float = 0.0
    latencies: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)
    drawn: list[int] = field(default_factory=list)
    passes: list[int] = field(default_factory=list)
    read: int = 0
    yes: int = 0
    changes: list[str] = field(default_factory=list)
    order: str = ""
    planned: int = 0

    def note(self, seconds: float, first: float, drawn: int, passes: int = 0) -> None:
        """One answered row: seconds from its admission to its last and its first token, tokens drawn and the passes
        that it took, 0 for one each.
        """
        self.distinct += 1
        if len(self.latencies) < _KEPT:
            self.latencies.append(seconds)
            self.firsts.append(first)
            self.drawn.append(drawn)
            self.passes.append(passes or drawn)
            self.planned += not self.changes

    def latency(self, percentile: str = "p95") -> float:
        """Seconds from a row's admission to its last token; 0 where none ran."""
        return _percentile(self.latencies, percentile)

    def ttft(self, percentile: str = "p95") -> float:
        """Seconds from a row's admission to its first token."""
        return _percentile(self.firsts, percentile)

    def tpot(self, percentile: str = "p95") -> float:
        """Seconds between a row's tokens after its first; 0 where no row drew two."""
        last, first, drawn = (np.array(x, np.float64) for x in (self.latencies, self.firsts, self.drawn))
        several = drawn > 1
        return _percentile((last[several] - first[several]) / (drawn[several] - 1), percentile)

    def count(self, prefilled: int, reused: int, decoded: int) -> None:
        """Tokens of one answered row."""
        self.prefilled += prefilled
        self.reused += reused
        self.decoded += decoded

    @property
    def guesses(self) -> float:
        """Tokens guessed for each pass of a decoding row; the pass that ends its prompt guesses none."""
        return self.proposed / max(sum(self.passes) - len(self.passes), 1)

    @property
    def turns(self) -> Lengths:
        """Passes of each row, as many of them as a simulation plays one by one, else their quantiles."""
        return tuple(map(float, self.passes)) if len(self.passes) <= MOST_ROWS else quantiles(np.array(self.passes))

    @property
    def gains(self) -> Lengths:
        """Tokens that a pass after the first drew, by row, as quantiles; () where no token was guessed."""
        drawn, passes = np.array(self.drawn, np.float64), np.array(self.passes, np.float64)
        several = passes > 1
        return quantiles((drawn[several] - 1) / (passes[several] - 1)) if self.proposed else ()

    @property
    def passed(self) -> float | None:
        """The share of rows that a filter let through; None for other calls."""
        return self.yes / self.read if self.read else None

    @property
    def outputs(self) -> Lengths:
        """Tokens drawn per row, as quantiles."""
        return quantiles(np.array(self.drawn))


def row_seconds(calls: Sequence[Measured], bound: str, percentile: str) -> float:
    """What `bound` (latency, ttft, tpot) limits, over all calls of a row.

    A latency is the sum of the calls' percentiles, the others are the slowest call's.
    """
    assert percentile in PERCENTILES
    figures = [float(getattr(call, bound)(percentile)) for call in calls]
    return sum(figures) if bound == "latency" else max(figures, default=0.0)


def _percentile(values: Sequence[float] | Floats, percentile: str) -> float:
    return float(np.percentile(values, float(percentile[1:]))) if len(values) else 0.0
