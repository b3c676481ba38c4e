"""What the planner's choices are worth: regret against the plans it left, and bounds on latency kept by the rows.

Regret: of some workloads the chosen plan and the best others, as predicted, all run, in turn and over the same texts,
the chosen one twice. Regret is the median of the chosen plan over that of the best; the chosen plan over itself is what
the machine's noise makes of a regret of one.
Bounds: the least latency that the planner promises, and multiples of it; the run watches its bound as every run does.
"""

import statistics
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace

from benchmarks.workloads import LABELS, Workload, forget, planned
from dql.errors import PlanError
from dql.estimate import estimate
from dql.planner.contract import Bound
from dql.planner.measured import Measured
from dql.planner.physical import ErrorPolicy, Placement
from dql.planner.placing import placed
from dql.planner.search import Choice
from dql.session import Session
from dql.statements import begin

REPEATS = 5
OTHERS = 3  # plans that run beside the chosen one

REGRET = (
    Workload("classify, short texts", f"SELECT AI_CLASSIFY(body, {LABELS}) AS a FROM t", 64, 12),
    Workload("classify, mixed lengths", f"SELECT AI_CLASSIFY(body, {LABELS}) AS a FROM t", 32, -60),
    Workload("filter, long instruction", "SELECT AI_FILTER('{g} {body} asks for money') AS a FROM t", 48, 16, 12),
    Workload("generate 8", "GENERATE 'Name the mood: {body}' AS a FROM t WITH max_tokens = 8", 48, 20),
    Workload("generate 24", "GENERATE 'Say it in other words: {body}' AS a FROM t WITH max_tokens = 24", 32, 20),
    Workload("generate 48, few rows", "GENERATE 'Answer this: {body}' AS a FROM t WITH max_tokens = 48", 6, 20),
)
BOUNDED = (
    Workload("classify", f"SELECT AI_CLASSIFY(body, {LABELS}) AS a FROM t WITH ", 96, 20),
    Workload("generate 16", "GENERATE 'Name the mood: {body}' AS a FROM t WITH max_tokens = 16, ", 64, 20),
)
FACTORS = (1.1, 2.0, 4.0)  # of the least latency


@dataclass(frozen=True, slots=True)
class Regret:
    """Medians of one workload's plans: the chosen one, itself again, and the others by their sizes."""

    name: str
    chosen: float
    again: float
    others: dict[str, float]
    plan: str

    @property
    def factor(self) -> float:
        return self.chosen / min(self.chosen, self.again, *self.others.values())

    @property
    def noise(self) -> float:
        return max(self.chosen, self.again) / min(self.chosen, self.again)


def regret_report(session: Session, workloads: Sequence[Workload] = REGRET) -> list[str]:
    """The table of regrets and its summary."""
    found = []
    for workload in workloads:
        found.append(regret(session, workload))
        print(f"{workload.name}: regret {found[-1].factor:.2f}", file=sys.stderr)
    factors, noise = [r.factor for r in found], statistics.median(r.noise for r in found)
    return [
        f"## Regret, medians of {REPEATS} interleaved runs",
        "",
        "| workload | chosen: batch × chunk | seconds | itself again | others | regret |",
        "|---|---|---|---|---|---|",
        *(
            f"| {r.name} | {r.plan} | {r.chosen:.2f} | {r.again:.2f} "
            f"| {', '.join(f'{plan}: {seconds:.2f}' for plan, seconds in r.others.items())} | {r.factor:.2f} |"
            for r in found
        ),
        "",
        f"Regret: median {statistics.median(factors):.2f}, worst {max(factors):.2f}; the same plan against itself: "
        f"median {noise:.2f}.",
        "",
    ]


def regret(session: Session, workload: Workload) -> Regret:
    """Run the chosen plan and the best others in turn."""
    query, _ = planned(session, workload, seed=0)
    choice = estimate(query, session, {}).choice
    assert choice is not None
    places = [choice.best.placement, choice.best.placement, *rivals(choice)]
    taken: list[list[float]] = [[] for _ in places]
    for repeat in range(REPEATS):
        query, _ = planned(session, workload, seed=repeat + 1)
        order = [(place + repeat) % len(places) for place in range(len(places))]
        for number in order:
            forget(session)
            run = session.runtime.start(placed(query.query, places[number]), ErrorPolicy(), {}, None)
            for _ in run.batches():
                pass
            taken[number].append(sum(m.seconds for m in run.context.measured.values()))
    medians = [statistics.median(times) for times in taken]
    others = {sizes(place): seconds for place, seconds in zip(places[2:], medians[2:], strict=True)}
    return Regret(workload.name, medians[0], medians[1], others, sizes(places[0]))


def rivals(choice: Choice) -> list[Placement]:
    """The best other plans that really differ: where nothing decodes, in the step alone."""
    known: set[Placement] = {choice.best.placement}
    found: list[Placement] = []
    for option in sorted(choice.options, key=lambda o: o.cost.seconds):
        place = option.placement
        if place not in known and len(found) < OTHERS:
            known.add(place)
            found.append(place)
    return found


def sizes(place: Placement) -> str:
    """'64 × 1024'."""
    return f"{place.max_rows} × {place.step_tokens}"


def bounds_report(session: Session, workloads: Sequence[Workload] = BOUNDED) -> list[str]:
    """For each bound the share of rows that kept it, and how far the measured p95 lay from the predicted one."""
    lines = [
        "## Bounds on latency",
        "",
        "| workload | bound | batch × chunk | predicted p95 | measured p95 | ratio | rows within | changes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for workload in workloads:
        least = least_latency(session, workload)
        for number, factor in enumerate(FACTORS):
            lines.append(bounded(session, workload, factor * least, seed=number))
            print(lines[-1], file=sys.stderr)
    return [*lines, ""]


def least_latency(session: Session, workload: Workload) -> float:
    """The smallest p95 that the planner promises, its interval and the room for late rows counted in."""
    query, _ = planned(session, replace(workload, query=workload.query + "MINIMIZE latency"), seed=0)
    choice = estimate(query, session, {}).choice
    assert choice is not None
    return choice.best.cost.of(Bound("latency", 0.0, "s", "<", "p95"))


def bounded(session: Session, workload: Workload, seconds: float, seed: int) -> str:
    """Run a workload under a bound on its p95 latency; a line of the table."""
    bound = f"latency < {seconds * 1e3:.0f}ms"
    query, around = planned(session, replace(workload, query=workload.query + bound), seed=seed)
    try:
        run, found = begin(query, around)
    except PlanError:
        return f"| {workload.name} | {bound} | refused | | | | | |"
    for _ in run.batches():
        pass
    session.config.runs_file.unlink(missing_ok=True)
    assert found.choice is not None
    predicted, place = found.choice.best.cost.latency[2], found.choice.best.placement
    measured = list(run.context.measured.values())
    came = measured[0].latency()
    return (
        f"| {workload.name} | {bound} | {sizes(place)} | {predicted:.2f} s | {came:.2f} s | {came / predicted:.2f} "
        f"| {within(measured, seconds):.1%} | {'; '.join(run.stats().changes) or '–'} |"
    )


def within(measured: Sequence[Measured], seconds: float) -> float:
    """The share of rows that took no longer."""
    latencies = [latency for found in measured for latency in found.latencies]
    return sum(latency < seconds for latency in latencies) / len(latencies)
