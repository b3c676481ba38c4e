"""A query's numbers before it runs: counted inputs, this machine or another, and the plan that keeps the contract."""

import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Protocol

from dql.cascades import Settled
from dql.catalog import Catalog
from dql.certificates import Certificates
from dql.config import Config
from dql.errors import ConfigError
from dql.history import History
from dql.judging import Judge
from dql.machine import Machine
from dql.models.registry import Registry
from dql.planner.candidates import PricedCall
from dql.planner.cascading import with_thresholds
from dql.planner.contract import Contract
from dql.planner.hardware import Hardware, hardware_named
from dql.planner.infeasible import infeasible
from dql.planner.physical import CallExec, InferExec
from dql.planner.plan import Planned
from dql.planner.prompts import prompts
from dql.planner.search import Choice, search, space_of
from dql.planner.statistics import BUDGET, Asked, CallStatistics, count_calls, countable, infer_nodes
from dql.planner.workload import workload
from dql.prompts import CompiledPrompt

if TYPE_CHECKING:
    from dql.executor.evidence import EngineEvidence
    from dql.executor.progress import Progress
    from dql.executor.runtime import Runtime

_RUN_BUDGET = 0.25  # seconds of counting before a run whose contract asks for nothing
_WORTH_MEASURING = 10.0  # predicted seconds from which a profile of the machine pays
_SPEED = ("latency", "ttft", "tpot", "throughput", "deadline", "cost")
_CLEAR = 5.0  # a bound this far from typical figures is judged without a profile
_SIDE_EFFECTS = ("nextval(", "setseed(")  # SQL that must not run twice


class Surroundings(Protocol):
    """What a session has that an estimate needs. cancelled: set where the user stops what is running."""

    config: Config
    catalog: Catalog
    registry: Registry
    machine: Machine
    history: History
    certificates: Certificates
    cancelled: threading.Event

    @property
    def runtime(self) -> "Runtime": ...


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is known of a query before it runs. Mappings are by the column of a call's answer.

    choice: None where nothing could be counted, or no model runs. notes: why a call has no figures, or how it takes
    part in a cascade. thresholds: of cascades, by their parameter. quality: what is certain of the answers. evidence:
    what engines were asked already.
    """

    statistics: Mapping[str, CallStatistics] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    frames: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    choice: Choice | None = None
    thresholds: Mapping[str, float] = field(default_factory=dict)
    quality: tuple[str, ...] = ()
    evidence: "EngineEvidence | None" = None


@dataclass(slots=True)
class _Counted:
    statistics: dict[str, CallStatistics] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    frames: dict[str, tuple[str, ...]] = field(default_factory=dict)
    calls: list[PricedCall] = field(default_factory=list)


def estimate(
    planned: Planned,
    session: Surroundings,
    params: Mapping[str, object],
    *,
    on: str | None = None,
    running: bool = False,
    strict: bool = True,
    progress: "Callable[[Progress], None] | None" = None,
) -> Estimate:
    """Count, price and choose. `on` names hardware that need not be here; `running`: the query runs next; not
    `strict`: a plan that misses the contract will do.

    Raises PlanError where no plan meets the contract (unless it says best_effort), UnsupportedError for pinned settings
    that cannot run, ConfigError for unknown hardware.
    """
    contract = planned.contract
    counted = _Counted()
    asks = bool(contract.bounds) or contract.objective != Contract().objective
    truncate = contract.setting("on_overflow") == "truncate_middle"
    judge = Judge(session, contract, params, running and on is None, progress)
    query = judge.reference(planned.query) if on is None else with_thresholds(planned.query, {}, 1.0)
    count = partial(_count, session=session, params=params, truncate=truncate)
    for node in infer_nodes(query.root):
        count(node, counted=counted, budget=_RUN_BUDGET if running and not asks else BUDGET)

    def price(node: InferExec, call: CallExec) -> PricedCall | None:
        alone = _Counted()
        count(replace(node, calls=(call,)), counted=alone, budget=_RUN_BUDGET)
        return alone.calls[0] if alone.calls else None

    settled, choice = Settled(), None
    for ask in (False, True) if judge.may_ask else (False,):  # a contract that nothing keeps fails before any call
        settled = judge.cascades(query, counted.statistics, price, ask=ask) if settled.open or not ask else settled
        calls = settled.of(counted.calls)
        choice = _choose(calls, contract, session, on) if calls else None
        if strict and choice is not None and not choice.best.feasible and not contract.setting("best_effort"):
            raise infeasible(choice)
    if choice is None:
        _check_pinned(contract, on, session)
    notes = {**counted.notes, **settled.notes}
    promises = tuple(settled.promises)
    thresholds = settled.thresholds
    return Estimate(counted.statistics, notes, counted.frames, choice, thresholds, promises, judge.evidence)


def template_key(call: CallExec, model: str) -> str:
    """Names what decides how long a call's answers are: model, template and decoding."""
    text = repr((model, call.op, call.template, call.system, call.instruction, call.examples, call.type, call.decoding))
    return blake2b(text.encode(), digest_size=12).hexdigest()


def model_key(session: Surroundings, name: str) -> str:
    """Names a model's files without reading them."""
    model = session.registry.resolve(name)
    return f"{model.name} {model.weight_bytes}"


def hardware_key(hardware: Hardware) -> str:
    """Names what a residual holds for."""
    return f"{hardware} {hardware.source}"


def _count(
    node: InferExec,
    session: Surroundings,
    params: Mapping[str, object],
    counted: _Counted,
    budget: float,
    truncate: bool,
) -> None:
    asked = [c for c in node.calls if c.op != "count_tokens"]
    missing = [c for c in asked if not session.registry.installed(c.model)]
    for c in missing:
        counted.notes[c.out] = f"prompt tokens unknown: {c.model} is not here yet (dql models pull {c.model})"
    if missing:
        return
    compiled = {c.out: prompts(c, session.registry.resolve(c.model)) for c in node.calls}
    counted.frames |= {out: tuple(p.frame for p in found) for out, found in compiled.items() if found}
    sql = countable(node)
    if sql is None or any(word in sql.lower() for word in _SIDE_EFFECTS):
        why = "depend on the inference below" if sql is None else "are not counted: reading them twice changes state"
        counted.notes |= {c.out: f"rows and tokens {why}" for c in asked}
        return
    what = [Asked(compiled[c.out], _most_tokens(c, compiled[c.out], session), truncate) for c in node.calls]
    found = count_calls(node, what, partial(session.catalog.stream, params=params), budget)
    for call, statistics in zip(node.calls, found, strict=True):
        if call in asked:
            counted.statistics[call.out] = statistics
            label_ids = compiled[call.out][0].label_ids if compiled[call.out] else ()
            counted.calls.append(_priced(call, statistics, label_ids, session))


def _most_tokens(call: CallExec, compiled: Sequence[CompiledPrompt], session: Surroundings) -> int:
    """Tokens that a prompt may have so that its answer fits into the context as well."""
    longest = max((len(label) for prompt in compiled for label in prompt.label_ids), default=1)
    new = call.decoding.max_tokens if call.op == "generate" else longest - 1
    return session.registry.resolve(call.model).shape.context_length - new


def _priced(
    call: CallExec, statistics: CallStatistics, label_ids: tuple[tuple[int, ...], ...], session: Surroundings
) -> PricedCall:
    key = model_key(session, call.model)
    known = session.history.outputs(template_key(call, key)) if call.op == "generate" else None
    work = workload(call, statistics, label_ids, known)
    return PricedCall(call.out, call.model, session.registry.resolve(call.model).shape, work)


def _choose(calls: list[PricedCall], contract: Contract, session: Surroundings, on: str | None) -> Choice:
    if on is not None:
        return search(calls, hardware_named(on, session.config.price_per_hour or None), contract, what_if=True)
    machine = session.machine
    choice = search(_refined(calls, machine.hardware(), session), machine.hardware(), contract)
    if machine.lacks(call.shape for call in calls) and _worth_measuring(choice):
        hardware = machine.measure(session.runtime, dict.fromkeys(call.shape for call in calls))
        choice = search(_refined(calls, hardware, session), hardware, contract)
    return choice


def _refined(calls: list[PricedCall], hardware: Hardware, session: Surroundings) -> list[PricedCall]:
    """The calls with the residuals of earlier runs on this hardware."""
    refined = []
    for call in calls:
        key, machine = model_key(session, call.model), hardware_key(hardware)
        factor = session.history.factor(key, machine, decodes=call.work.decodes)
        refined.append(PricedCall(call.out, call.model, call.shape, call.work, factor))
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


def _check_pinned(contract: Contract, on: str | None, session: Surroundings) -> None:
    """Complain about settings that cannot run even where nothing could be counted."""
    hardware = hardware_named(on) if on is not None else session.machine.hardware()
    if contract.bound("cost") is not None and hardware.price is None:
        raise ConfigError("a bound on cost needs a price", hint="set DQL_PRICE_PER_HOUR to this machine's USD per hour")
    space_of(hardware, contract, what_if=on is not None)
