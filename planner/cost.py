"""What a plan is expected to take, each figure with its interval, and how a contract's bounds read it."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dql.planner.contract import Bound
from dql.planner.hardware import Hardware
from dql.planner.simulate import PERCENTILES, Played
from dql.planner.workload import Workload

_UNSURE = 0.35  # half-width of seconds that free text of unknown length adds, as a share
_ROOM = 0.35  # by what share late rows are taken to lie above their prediction until earlier runs tell
_SAMPLED, _GUESSED = 0.1, 1.0  # that a sample's counts add, and guesses of what earlier inference lets through
Percentiles = Sequence[float]


@dataclass(frozen=True, slots=True)
class Cost:
    """Seconds with half-width `give`; latencies by percentile (p50, p90, p95, p99); bytes per device; USD or None.

    rows: answered, equal ones included. prefilled, reused, decoded, forced: tokens of the prompts that run, computed or
    shared, tokens drawn, and those of labels that are fed. sway: by what share
    high percentiles of latency may lie above theirs beside that.
    """

    seconds: float
    give: float
    latency: Percentiles
    ttft: Percentiles
    tpot: Percentiles
    memory: float
    usd: float | None
    rows: int
    prefilled: float
    reused: float
    decoded: float
    forced: float = 0.0
    sway: float = 0.0

    @property
    def rows_per_second(self) -> float:
        return self.rows / self.seconds if self.seconds else 0.0

    @property
    def tokens_per_second(self) -> float:
        """Prompt and answer tokens, shared ones included; those of equal prompts once."""
        return (self.prefilled + self.reused + self.decoded) / self.seconds if self.seconds else 0.0

    @property
    def slack(self) -> float:
        """The half-width as a share."""
        return self.give / self.seconds if self.seconds else 0.0

    def slack_of(self, bound: Bound) -> float:
        """The half-width of the figure that a bound limits, as a share."""
        late = bound.name in ("latency", "ttft", "tpot") and bound.qualifier != "p50"
        return (1 + self.slack) * (1 + self.sway * late) - 1

    def of(self, bound: Bound, quality: float = 1.0) -> float:
        """The figure that `bound` limits, at the end of its interval that is the worse one for the bound."""
        if bound.name in ("latency", "ttft", "tpot"):
            values: Percentiles = getattr(self, bound.name)
            return values[PERCENTILES.index(bound.qualifier or "p95")] * (1 + self.slack_of(bound))
        match bound.name:
            case "throughput":
                rate = self.rows_per_second if bound.unit.lower() == "rows/s" else self.tokens_per_second
                return rate / (1 + self.slack)
            case "deadline":
                return bound.spent + self.seconds + self.give
            case "cost":
                return (self.usd or 0.0) * (1 + self.slack)
            case "memory":
                return self.memory
            case "quality":
                return quality
        return self.prefilled + self.decoded

    def excess(self, bound: Bound, quality: float = 1.0) -> float:
        """How far the bound is missed, as a factor; at most 1 where it is met. A budget stops the run, not the plan."""
        if bound.name == "budget":
            return 0.0
        value = self.of(bound, quality)
        if bound.name in ("throughput", "quality"):
            met = value > bound.value if bound.op == ">" else value >= bound.value
            return 0.0 if met else max(bound.value / max(value, 1e-12), 1.0 + 1e-9)
        met = value < bound.value if bound.op == "<" else value <= bound.value
        return 0.0 if met else max(value / max(bound.value, 1e-12), 1.0 + 1e-9)


def cost(
    played: Played,
    work: Workload,
    hardware: Hardware,
    devices: int,
    memory: float,
    factor: float = 1.0,
    late: float | None = None,
) -> Cost:
    """The cost of a simulated call; `factor` is what earlier runs took over what was predicted for them, `late` by what
    share their late rows lay above their prediction, None where too few ran.
    """
    slack = spread(work, hardware)
    seconds = played.seconds * factor + work.prefilled / hardware.tokenize
    latency, ttft, tpot = (tuple(x * factor for x in p) for p in (played.latency, played.ttft, played.tpot))
    usd = None if hardware.price is None else seconds / 3600 * hardware.price * devices
    return Cost(
        seconds=seconds,
        give=seconds * slack,
        latency=latency,
        ttft=ttft,
        tpot=tpot,
        memory=memory,
        usd=usd,
        rows=work.rows,
        prefilled=work.prefilled,
        reused=max(0.0, work.distinct * (work.shared + work.mean_own) - work.prefilled),
        decoded=work.distinct * work.mean_output,
        forced=float(work.distinct * work.tail),
        sway=max(hardware.sway, _ROOM if late is None else late) if hardware.source == "measured" else 0.0,
    )


def spread(work: Workload, hardware: Hardware) -> float:
    """The half-width of a call's figures as a share: of the hardware's, of unknown lengths, of rows not all counted."""
    lengths = 0.0 if work.sure else _UNSURE
    counted = _GUESSED if work.guessed else max(work.unsure, 0.0 if work.exact else _SAMPLED)
    return float((hardware.spread**2 + lengths**2 + counted**2) ** 0.5)


def together(costs: Sequence[Cost], memory: float) -> Cost:
    """Calls of one query, one after the other: a row's latency is the sum over its calls."""
    if not costs:
        return Cost(0.0, 0.0, (0.0,) * 4, (0.0,) * 4, (0.0,) * 4, memory, None, 0, 0.0, 0.0, 0.0)
    known = [c.usd for c in costs if c.usd is not None]
    return replace(
        costs[0],
        seconds=sum(c.seconds for c in costs),
        give=sum(c.give for c in costs),
        latency=tuple(map(sum, zip(*(c.latency for c in costs), strict=True))),
        ttft=tuple(map(max, zip(*(c.ttft for c in costs), strict=True))),
        tpot=tuple(map(max, zip(*(c.tpot for c in costs), strict=True))),
        memory=memory,
        usd=sum(known) if known else None,
        rows=max(c.rows for c in costs),
        prefilled=sum(c.prefilled for c in costs),
        reused=sum(c.reused for c in costs),
        decoded=sum(c.decoded for c in costs),
        forced=sum(c.forced for c in costs),
        sway=max(c.sway for c in costs),
    )
