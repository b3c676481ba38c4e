"""What a call of a run did, beside what was predicted for it."""

from dataclasses import dataclass, field

import numpy as np

from dql.planner.lengths import Lengths, quantiles
from dql.planner.simulate import PERCENTILES

_KEPT = 100_000  # rows whose latency and length are kept


@dataclass(slots=True)
class Measured:
    """One call: rows asked and rows run, seconds in the engine, tokens; and each row's seconds and tokens drawn.

    Calls that share an engine's run share its seconds by the tokens computed for each.
    """

    rows: int = 0
    distinct: int = 0
    seconds: float = 0.0
    prefilled: int = 0
    reused: int = 0
    decoded: int = 0
    latencies: list[float] = field(default_factory=list)
    drawn: list[int] = field(default_factory=list)

    def note(self, seconds: float, drawn: int) -> None:
        """One answered row."""
        self.distinct += 1
        if len(self.latencies) < _KEPT:
            self.latencies.append(seconds)
            self.drawn.append(drawn)

    def latency(self, percentile: str = "p95") -> float:
        """Seconds from a row's admission to its last token; 0 where none ran."""
        return float(np.percentile(self.latencies, float(percentile[1:]))) if self.latencies else 0.0

    def count(self, prefilled: int, reused: int, decoded: int) -> None:
        """Tokens of one answered row."""
        self.prefilled += prefilled
        self.reused += reused
        self.decoded += decoded

    @property
    def outputs(self) -> Lengths:
        """Tokens drawn per row, as quantiles."""
        return quantiles(np.array(self.drawn))


def latency_of(calls: list[Measured], percentile: str) -> float:
    """Seconds of a row over all its calls, taken as the sum of each call's percentile."""
    assert percentile in PERCENTILES
    return sum(call.latency(percentile) for call in calls)
