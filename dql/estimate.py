"""A query's numbers before it runs: counted inputs, this machine or another, and the plan that keeps the contract."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING, Protocol

from dql.cascades import Settled, cascades_of, reached
from dql.catalog import Catalog
from dql.certificates import Certificates, RowNames
from dql.choosing import Choices
from dql.config import Config
from dql.counting import Counts
from dql.history import History
from dql.judging import Judge, identify
from dql.machine import Machine
from dql.models.registry import Registry
from dql.planner.candidates import PricedCall
from dql.planner.contract import Contract
from dql.planner.hardware import Hardware, Kind, hardware_named
from dql.planner.infeasible import infeasible
from dql.planner.physical import CallExec, QueryPlan
from dql.planner.plan import Planned
from dql.planner.search import Choice, check_price, search, space_of
from dql.planner.statistics import BUDGET, CallStatistics, infer_nodes
from dql.proofs import Proven
from dql.resuming import answered
from dql.row_sums import RowSums
from dql.tally import Tally, model_key, questions

if TYPE_CHECKING:
    from dql.executor.evidence import EngineEvidence
    from dql.executor.progress import Progress
    from dql.executor.runtime import Runtime

_RUN_BUDGET = 0.25  # seconds of counting before a run whose contract asks for nothing
_WORTH_MEASURING = 10.0  # predicted seconds from which a profile of the machine pays
_SPEED = ("latency", "ttft", "tpot", "throughput", "deadline", "cost")
_NAMING = BUDGET / 2  # seconds of reading, to see whether what was proven holds for these very rows
_CLEAR = 5.0  # a bound this far from typical figures is judged without a profile
_CLEARLY = 1.5  # times as long: what a cascade is predicted to take from which its last model answers alone


class Surroundings(Protocol):
    """What a session has that an estimate needs. cancelled: set where the user stops what is running."""

    config: Config
    catalog: Catalog
    registry: Registry
    machine: Machine
    history: History
    certificates: Certificates
    counts: Counts
    choices: Choices
    cancelled: threading.Event

    @property
    def runtime(self) -> "Runtime": ...


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is known of a query before it runs. Mappings are by the column of a call's answer.

    planned: the query's plans on the models that will answer.

    choice: None where nothing could be counted, or no model runs. notes: why a call has no figures, or how it takes
    part in a cascade. settled: what became of cascades. quality: what is certain of the answers. evidence:
    what engines were asked already. kind: of the device that the query is planned for. answered: answers of a run that
    stopped; where there are some, figures are those of the rest.
    """

    planned: Planned
    statistics: Mapping[str, CallStatistics] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    frames: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    choice: Choice | None = None
    settled: Settled = field(default_factory=Settled)
    quality: tuple[str, ...] = ()
    evidence: "EngineEvidence | None" = None
    kind: Kind = "cpu"
    answered: int = 0


def estimate(
    planned: Planned,
    session: Surroundings,
    params: Mapping[str, object],
    *,
    on: str | None = None,
    rows: int | None = None,
    running: bool = False,
    strict: bool = True,
    progress: "Callable[[Progress], None] | None" = None,
) -> Estimate:
    """Count, price and choose. `on` names hardware that need not be here; `rows`: the counted rows stand for so many;
    `running`: the query runs next; not `strict`: a plan that misses the contract will do.

    Raises PlanError where no plan meets the contract (unless it says best_effort), UnsupportedError for pinned settings
    that cannot run, ConfigError for unknown hardware.
    """
    before = session.machine.seconds
    identified = partial(identify, session, planned.contract)
    names = RowNames(RowSums(session.catalog, params), identified, None if running else _NAMING)
    judge = Judge(session, planned.contract, params, running and on is None, names, progress)
    predicted = partial(_estimate, session=session, params=params, on=on, rows=rows)
    first = partial(predicted, judge=replace(judge, may_ask=False), running=False, strict=False)
    planned, why = judge.pick(planned, first, ask=judge.may_ask)
    predicted = partial(predicted, why=why)
    found = predicted(planned, judge=judge, running=running, strict=strict)
    known = {} if rows is not None or found.answered else questions(found.planned.query, found.statistics)
    found = judge.cheapest(found, partial(predicted, judge=judge, running=running, strict=False, known=known))
    if running:
        asking = 0.0 if judge.evidence is None else judge.evidence.seconds
        found = _later(found, session.machine.seconds - before + asking)
    if strict:
        _check(found, contract=planned.contract)
    return replace(found, quality=(*found.quality, *judge.said()), evidence=judge.evidence)


def _estimate(
    planned: Planned,
    session: Surroundings,
    params: Mapping[str, object],
    judge: Judge,
    *,
    on: str | None,
    rows: int | None,
    running: bool,
    strict: bool,
    known: Mapping[CallExec, CallStatistics] | None = None,
    why: Sequence[str] = (),
) -> Estimate:
    """`estimate` where models are settled, and `why` these. known: what was counted of the same questions in another
    plan."""
    contract = planned.contract
    asks = bool(contract.bounds) or contract.objective != Contract().objective
    here = _hardware(planned.query, contract, session, on)
    hardware = here()
    query = judge.reference(planned.query, hardware)
    tally = Tally(session, judge.names.sums, contract, _RUN_BUDGET if running and not asks else BUDGET, known)
    tally.count(query, rows)
    found = Estimate(planned, tally.statistics, tally.notes, tally.frames, kind=hardware.kind)
    settled, proven = Settled(), Proven()
    for ask in (False, True) if judge.may_ask else (False,):  # a contract that nothing keeps fails before any call
        if ask and not (settled.open or proven.open):
            break
        settled = judge.cascades(query, tally.statistics, tally.later, ask=ask)
        notes = {**tally.notes, **settled.notes}
        found = replace(found, notes=notes, settled=settled, quality=(*why, *settled.promises))
        if not (calls := settled.of(tally.priced())):
            _check_pinned(contract, hardware, what_if=on is not None)
            continue
        weigh = partial(_choose, contract=contract, session=session, here=here)
        found = replace(found, choice=weigh(calls))
        if settled.later and not settled.open:
            found = _paying(
                found, judge.cascades(query, tally.statistics, tally.later, ask=ask, unpaid=True), tally, weigh
            )
        if on is None:
            proven, choice = judge.precisions(query, found, weigh, ask=ask)
            found = replace(found, choice=choice, quality=(*found.quality, *proven.lines))
        if on is None and rows is None:
            found = _of_the_rest(found, query, session, params)
        if strict and not judge.hopeful:
            _check(found, contract)
    return found


def _paying(found: Estimate, alone: Settled, tally: Tally, weigh: Callable[..., Choice]) -> Estimate:
    """The estimate, or where a cascade takes clearly longer than its last model `alone`, whose answers it promises,
    that of the latter: on the border what the query names is obeyed."""
    if found.choice is None or any(cascade.in_two for cascade in cascades_of(found.planned.query)):
        return found  # two precisions are weighed against the reference by who made them
    choice = weigh(alone.of(tally.priced()))
    one, both = choice.best, found.choice.best
    if both.cost.seconds <= _CLEARLY * one.cost.seconds or (both.feasible and not one.feasible):
        return found
    why = found.quality[: len(found.quality) - len(found.settled.promises)]
    notes = {**tally.notes, **alone.notes}
    return replace(found, notes=notes, settled=alone, choice=choice, quality=(*why, *alone.promises))


def _of_the_rest(found: Estimate, query: QueryPlan, session: Surroundings, params: Mapping[str, object]) -> Estimate:
    """The figures of what is left to ask, where a run of the statement that stopped has answered some; the precisions
    are those of the whole. `query`: its calls as they were counted."""
    if found.choice is None or not (done := answered(found, session, params)):
        return found
    contract, hardware, place = found.planned.contract, found.choice.hardware, found.choice.best.placement
    tally = Tally(session, RowSums(session.catalog, params), contract, _RUN_BUDGET, answered=done)
    tally.count(query, None)
    first = [cascade.first.out for cascade in cascades_of(query) if cascade.first.out in tally.statistics]
    asked, left = (sum(s[out].distinct for out in first) for s in (found.statistics, tally.statistics))
    later = [replace(call, work=reached(call.work, left / max(asked, 1))) for call in found.settled.later]
    calls = _refined(replace(found.settled, later=later).of(tally.priced()), hardware, session, contract)
    choice = search(calls, hardware, contract, {place.weights: found.choice.best.quality}, sizes_of=place)
    return replace(found, statistics=tally.statistics, choice=choice, answered=sum(map(len, done.values())))


def _later(found: Estimate, seconds: float) -> Estimate:
    """The figures where measuring the machine and asking for evidence took so many seconds of a deadline."""
    choice = found.choice
    if choice is None or not seconds or choice.contract.bound("deadline") is None:
        return found
    place, contract = choice.best.placement, choice.contract.after(seconds)
    quality = {place.weights: choice.best.quality}
    return replace(found, choice=search(choice.calls, choice.hardware, contract, quality, sizes_of=place))


def _check(found: Estimate, contract: Contract) -> None:
    """Raises PlanError where the plan misses the contract, unless that will do."""
    if found.choice and not found.choice.best.feasible and not contract.setting("best_effort"):
        raise infeasible(found.choice, found.quality)


def hardware_key(hardware: Hardware, weights: str, *, deterministic: bool) -> str:
    """Names what a residual holds for."""
    return f"{hardware} {hardware.source} {weights}" + (" deterministic" if deterministic else "")


def _choose(
    calls: Sequence[PricedCall],
    agreement: Mapping[str, float] | None = None,
    *,
    contract: Contract,
    session: Surroundings,
    here: Callable[[], Hardware],
) -> Choice:
    hardware = here()
    if hardware.shipped:
        return session.choices.of(calls, hardware, contract, what_if=True)
    machine = session.machine
    choice = session.choices.of(_refined(calls, hardware, session, contract), hardware, contract, agreement)
    measurable = machine.lacks((call.shape for call in calls), hardware.kind)
    if measurable and _worth_measuring(choice):
        machine.measure(session.runtime, dict.fromkeys(call.shape for call in calls), kind=hardware.kind)
        hardware = here()
        choice = session.choices.of(_refined(calls, hardware, session, contract), hardware, contract, agreement)
    return choice


def _hardware(query: QueryPlan, contract: Contract, session: Surroundings, on: str | None) -> Callable[[], Hardware]:
    """The named machine, or the part of this one that the query's models run on, as far as it is measured by then."""
    if on is not None:
        return partial(hardware_named, on, session.config.device_prices)
    calls = (call for node in infer_nodes(query.root) for call in node.calls if call.op != "count_tokens")
    names = {name for call in calls for name in (call.model, call.draft) if name is not None}
    known = [session.registry.resolve(name).shape for name in sorted(names) if session.registry.installed(name)]
    return partial(session.machine.hardware_for, known, contract)


def _refined(
    calls: Sequence[PricedCall], hardware: Hardware, session: Surroundings, contract: Contract
) -> list[PricedCall]:
    """The calls with the residuals of earlier runs on this hardware."""
    named = partial(hardware_key, hardware, deterministic=bool(contract.setting("deterministic")))
    refined = []
    for call in calls:
        key, history, decodes = model_key(session, call.model), session.history, call.work.decodes
        factors = {weights: history.factor(key, named(weights), decodes=decodes) for weights in hardware.peak}
        told = {weights: history.late(key, named(weights), decodes=decodes) for weights in hardware.peak}
        late = {weights: share for weights, share in told.items() if share is not None}
        refined.append(replace(call, factors=factors, late=late))
    return refined


def _worth_measuring(choice: Choice) -> bool:
    """Whether typical figures are too coarse: the job is long, or a bound on speed lies near what they say."""
    if choice.best.cost.seconds > _WORTH_MEASURING:
        return True
    cost = choice.best.cost
    for bound in (b for b in choice.contract.bounds if b.name in _SPEED and b.value > 0):
        ratio = cost.of(bound) / bound.value
        if (ratio if bound.name != "throughput" else 1 / max(ratio, 1e-12)) > 1 / _CLEAR:
            return True
    return False


def _check_pinned(contract: Contract, hardware: Hardware, *, what_if: bool) -> None:
    """Complain about settings that cannot run even where nothing could be counted."""
    check_price(hardware, contract)
    space_of(hardware, contract, what_if=what_if)
