"""A query's numbers before it runs: counted inputs, this machine or another, and the plan that keeps the contract."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from hashlib import blake2b
from typing import TYPE_CHECKING, Protocol

from dql.cascades import Settled
from dql.catalog import Catalog
from dql.certificates import Certificates, RowNames
from dql.choosing import Choices
from dql.config import Config
from dql.counting import Counts
from dql.errors import ConfigError
from dql.history import History
from dql.judging import Judge, identify
from dql.machine import Machine
from dql.models.registry import Registry
from dql.planner.calls import CASCADED
from dql.planner.candidates import Draft, PricedCall
from dql.planner.contract import Contract
from dql.planner.early import Early, early
from dql.planner.guess import guessed
from dql.planner.hardware import Hardware, Kind, hardware_named
from dql.planner.infeasible import infeasible
from dql.planner.physical import CallExec, InferExec, Placement, QueryPlan
from dql.planner.plan import Planned
from dql.planner.prompts import prompts
from dql.planner.sampling import changes_state
from dql.planner.search import Choice, space_of
from dql.planner.statistics import BUDGET, Asked, CallStatistics, countable, infer_nodes
from dql.planner.workload import workload
from dql.prompts import CompiledPrompt
from dql.proofs import Proven

if TYPE_CHECKING:
    from dql.executor.evidence import EngineEvidence
    from dql.executor.progress import Progress
    from dql.executor.runtime import Runtime

_RUN_BUDGET = 0.25  # seconds of counting before a run whose contract asks for nothing
_WORTH_MEASURING = 10.0  # predicted seconds from which a profile of the machine pays
_SPEED = ("latency", "ttft", "tpot", "throughput", "deadline", "cost")
_WINDOWS = 0.5  # by how much rows asked about until a LIMIT may be off: a window is as large as all before it
_NAMING = BUDGET / 2  # seconds of reading, to see whether what was proven holds for these very rows
_CLEAR = 5.0  # a bound this far from typical figures is judged without a profile


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
    what engines were asked already. kind: of the device that the query is planned for.
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
    identified = partial(identify, session, planned.contract)
    names = RowNames(session.catalog, params, identified, None if running else _NAMING)
    judge = Judge(session, planned.contract, params, running and on is None, names, progress)
    predicted = partial(_estimate, session=session, params=params, on=on, rows=rows)
    first = partial(predicted, judge=replace(judge, may_ask=False), running=False, strict=False)
    planned, why = judge.pick(planned, first, ask=judge.may_ask)
    found = predicted(planned, judge=judge, running=running, strict=strict)
    known = {} if rows is not None else _questions(found)
    found = judge.cheapest(found, partial(predicted, judge=judge, running=running, strict=False, known=known))
    if strict:
        _check(found, contract=planned.contract)
    return replace(found, quality=(*why, *found.quality, *judge.said()), evidence=judge.evidence)


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
) -> Estimate:
    """`estimate` where models are settled. known: what was counted of the same questions in another plan."""
    contract = planned.contract
    asks = bool(contract.bounds) or contract.objective != Contract().objective
    here = _hardware(planned.query, contract, session, on)
    hardware = here()
    query = judge.reference(planned.query, hardware)
    counting = _Counting(session, params, contract, _RUN_BUDGET if running and not asks else BUDGET, known)
    counting.count(query, rows)

    def price(node: InferExec, call: CallExec) -> PricedCall | None:
        alone = _Counting(session, params, contract, _RUN_BUDGET, known)
        alone.early = counting.early
        alone.add(replace(node, calls=(call,)))
        found = next(iter(alone.priced()), None)
        return None if found is None else replace(found, run=_run_of(node, call))

    found = Estimate(planned, counting.statistics, counting.notes, counting.frames, kind=hardware.kind)
    settled, proven = Settled(), Proven()
    for ask in (False, True) if judge.may_ask else (False,):  # a contract that nothing keeps fails before any call
        if ask and not (settled.open or proven.open):
            break
        settled = judge.cascades(query, counting.statistics, price, ask=ask)
        notes = {**counting.notes, **settled.notes}
        found = replace(found, notes=notes, settled=settled, quality=tuple(settled.promises))
        if not (calls := settled.of(counting.priced())):
            _check_pinned(contract, hardware, what_if=on is not None)
            continue
        found = replace(found, choice=_choose(calls, contract=contract, session=session, here=here))
        if on is None:
            weigh = partial(_choose, contract=contract, session=session, here=here)
            proven, choice = judge.precisions(query, found, weigh, ask=ask)
            found = replace(found, choice=choice, quality=(*found.quality, *proven.lines))
        if strict and not judge.hopeful:
            _check(found, contract)
    return found


def _run_of(node: InferExec, call: CallExec) -> str:
    """Names the calls of a node that its engine answers together with this one, which may be a cascade's and alone."""

    def engine(each: CallExec) -> tuple[str, str | None, str]:
        return each.model, each.draft, each.placement.weights

    alike = (c.out for c in node.calls if engine(c) == engine(call) and c.op != "count_tokens")
    return next(alike, call.out)


def _questions(found: Estimate) -> dict[CallExec, CallStatistics]:
    """What was counted, by what is asked; not of what is asked twice, perhaps about other rows."""
    nodes = [node for node in infer_nodes(found.planned.query.root) if countable(node) is not None]
    calls = [call for node in nodes for call in node.calls if call.out in found.statistics]
    often = Counter(map(_question, calls))
    return {_question(c): found.statistics[c.out] for c in calls if often[_question(c)] == 1}


def _question(call: CallExec) -> CallExec:
    """A call without what tells its place in a plan, and what becomes of its answer."""
    kept = "" if call.op in CASCADED else call.type
    return replace(call, out="", label="", type=kept, details=False, guard=None, stage=None, placement=Placement())


def _check(found: Estimate, contract: Contract) -> None:
    """Raises PlanError where the plan misses the contract, unless that will do."""
    if found.choice and not found.choice.best.feasible and not contract.setting("best_effort"):
        raise infeasible(found.choice)


def template_key(call: CallExec, model: str) -> str:
    """Names what decides how long a call's answers are: model, template and decoding."""
    text = repr((model, call.op, call.template, call.system, call.instruction, call.examples, call.type, call.decoding))
    return blake2b(text.encode(), digest_size=12).hexdigest()


def model_key(session: Surroundings, name: str) -> str:
    """Names a model's files without reading them."""
    model = session.registry.resolve(name)
    return f"{model.name} {model.weight_bytes}"


def hardware_key(hardware: Hardware, weights: str) -> str:
    """Names what a residual holds for."""
    return f"{hardware} {hardware.source} {weights}"


class _Counting:
    """Collects what is known of a query's calls, node by node, those that run first first."""

    def __init__(
        self,
        session: Surroundings,
        params: Mapping[str, object],
        contract: Contract,
        budget: float,
        known: Mapping[CallExec, CallStatistics] | None = None,
    ) -> None:
        self.statistics: dict[str, CallStatistics] = {}
        self.notes: dict[str, str] = {}
        self.frames: dict[str, tuple[str, ...]] = {}
        self._session = session
        self._params = params
        self._contract = contract
        self._budget = budget
        self._known = known or {}
        self._truncate = contract.setting("on_overflow") == "truncate_middle"
        self._calls: dict[str, CallExec] = {}
        self._runs: dict[str, str] = {}
        self.early: Mapping[str, Early] = {}
        self._before: InferExec | None = None
        self._compiled: dict[str, Sequence[CompiledPrompt]] = {}

    def count(self, query: QueryPlan, rows: int | None) -> None:
        """Count all of a query's calls; `rows`: what is counted stands for so many."""
        nodes = list(infer_nodes(query.root))
        self.early = early(query.root, self._passes(call for node in nodes for call in node.calls))
        for node in reversed(nodes):
            self.add(node)
        if rows is not None:
            self.scale(rows)

    def add(self, node: InferExec) -> None:
        """Count a node's calls, or guess what they ask where that depends on calls below."""
        session = self._session
        asked = [c for c in node.calls if c.op != "count_tokens"]
        missing = [c for c in node.calls if not session.registry.installed(c.model)]
        for c in missing:
            self.notes[c.out] = f"prompt tokens unknown: {c.model} is not here yet (dql models pull {c.model})"
        if missing:
            return
        self._compiled |= {c.out: prompts(c, session.registry.resolve(c.model)) for c in node.calls}
        self.frames |= {
            c.out: tuple(p.frame for p in self._compiled[c.out]) for c in node.calls if self._compiled[c.out]
        }
        sql = countable(node)
        if sql is None:
            self._guess(node, asked, self._before)
        elif changes_state(sql):
            why = "rows and tokens are not counted: reading them twice changes state"
            self.notes |= {c.out: why for c in asked}
        elif asked and all(_question(c) in self._known for c in asked):
            self.statistics |= {c.out: self._known[_question(c)] for c in asked}
            self._calls |= {c.out: c for c in asked}
        else:
            asking = partial(self._asked, node)
            counted = session.counts.of(node, asking, self._params, self._budget, truncate=self._truncate)
            known = {c.out: s for c, s in zip(node.calls, counted.calls, strict=True) if c in asked}
            self.statistics |= self._until_limit(known)
            self._calls |= {c.out: c for c in asked}
        self._runs |= {c.out: _run_of(node, c) for c in asked}
        self._before = node

    def scale(self, rows: int) -> None:
        """Let the counted rows stand for so many: the largest call has `rows`, the others as many more."""
        most = max((s.without or s.rows for s in self.statistics.values()), default=0)
        for out, s in self.statistics.items() if most else ():
            if s.without:  # as many as the LIMIT takes, however many there are
                self.statistics[out] = replace(s, without=round(s.without * rows / most))
            else:
                self.statistics[out] = s.scaled(rows / most, s.sampled or s.rows)

    def priced(self) -> list[PricedCall]:
        """The calls whose statistics are known, as the search takes them."""
        return [self._priced(self._calls[out], statistics) for out, statistics in self.statistics.items()]

    def _asked(self, node: InferExec) -> list[Asked]:
        return [Asked(self._compiled[c.out], self._most_tokens(c), self._truncate) for c in node.calls]

    def _passes(self, calls: Iterable[CallExec]) -> dict[str, float]:
        """The share of rows that filters let through when they last ran, by their columns."""
        history, session = self._session.history, self._session
        filters = [c for c in calls if c.type == "BOOLEAN" and session.registry.installed(c.model)]
        shares = {c.out: history.passed(template_key(c, model_key(session, c.model))) for c in filters}
        return {out: share for out, share in shares.items() if share is not None}

    def _until_limit(self, known: Mapping[str, CallStatistics]) -> dict[str, CallStatistics]:
        """What of the calls of a node is asked before a LIMIT above it is met; all of it without one."""
        most = max((s.rows / max(len(self._compiled[out]), 1) for out, s in known.items()), default=0)
        found = dict(known)
        for out, counted in known.items():
            stop = self.early.get(out)
            if stop is not None and stop.rows < most:
                found[out] = counted.until(stop.rows / most, _WINDOWS if stop.known else 1.0)
        return found

    def _guess(self, node: InferExec, asked: Sequence[CallExec], before: InferExec | None) -> None:
        answers = {out: call.work.mean_output for out, call in ((c.out, c) for c in self.priced()) if call.work.decodes}
        found = guessed(node, self._compiled, self.statistics, answers, self._passes(self._calls.values()), before)
        for call in (c for c in asked if c.stage is None or not c.stage.number):  # a cascade prices its later stages
            if call.out in found:
                self.statistics[call.out], self._calls[call.out] = found[call.out], call
                self.notes[call.out] = "rows and tokens are guessed: they depend on the inference below"
            else:
                self.notes[call.out] = "rows and tokens depend on the inference below"

    def _most_tokens(self, call: CallExec) -> int:
        """Tokens that a prompt may have so that its answer fits into the context as well."""
        longest = max((len(label) for prompt in self._compiled[call.out] for label in prompt.label_ids), default=1)
        new = call.decoding.max_tokens if call.op == "generate" else longest - 1
        return self._session.registry.resolve(call.model).shape.context_length - new

    def _priced(self, call: CallExec, statistics: CallStatistics) -> PricedCall:
        session, compiled = self._session, self._compiled[call.out]
        key = template_key(call, model_key(session, call.model))
        known = session.history.outputs(key)
        work = workload(
            call,
            statistics,
            compiled[0].label_ids if compiled else (),
            known if call.op == "generate" else None,
            prefix=bool(self._contract.setting("prefix_cache")),
            reuse=bool(self._contract.setting("result_cache")),
        )
        if work.decodes:
            gains, guesses = session.history.gains(key)
            work = replace(work, gains=gains, guesses=guesses)
        shape, own = session.registry.resolve(call.model).shape, call.stage.weights if call.stage is not None else ""
        draft = None
        if call.draft is not None and session.registry.installed(call.draft):
            draft = Draft(call.draft, session.registry.resolve(call.draft).shape)
        return PricedCall(call.out, call.model, shape, work, self._runs[call.out], weights=own, draft=draft)


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
    choice = session.choices.of(_refined(calls, hardware, session), hardware, contract, agreement)
    measurable = machine.lacks((call.shape for call in calls), hardware.kind)
    if measurable and _worth_measuring(choice):
        machine.measure(session.runtime, dict.fromkeys(call.shape for call in calls), kind=hardware.kind)
        hardware = here()
        choice = session.choices.of(_refined(calls, hardware, session), hardware, contract, agreement)
    return choice


def _hardware(query: QueryPlan, contract: Contract, session: Surroundings, on: str | None) -> Callable[[], Hardware]:
    """The named machine, or the part of this one that the query's models run on, as far as it is measured by then."""
    if on is not None:
        return partial(hardware_named, on, session.config.price_per_hour or None)
    calls = (call for node in infer_nodes(query.root) for call in node.calls if call.op != "count_tokens")
    names = {name for call in calls for name in (call.model, call.draft) if name is not None}
    known = [session.registry.resolve(name).shape for name in sorted(names) if session.registry.installed(name)]
    return partial(session.machine.hardware_for, known, contract)


def _refined(calls: Sequence[PricedCall], hardware: Hardware, session: Surroundings) -> list[PricedCall]:
    """The calls with the residuals of earlier runs on this hardware."""
    refined = []
    for call in calls:
        key = model_key(session, call.model)
        factors = {
            weights: session.history.factor(key, hardware_key(hardware, weights), decodes=call.work.decodes)
            for weights in hardware.peak
        }
        refined.append(replace(call, factors=factors))
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
    if contract.bound("cost") is not None and hardware.price is None:
        raise ConfigError("a bound on cost needs a price", hint="set DQL_PRICE_PER_HOUR to this machine's USD per hour")
    space_of(hardware, contract, what_if=what_if)
