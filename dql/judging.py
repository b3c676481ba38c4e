"""What engines are asked before a query runs, so that its plan may change answers and still keep its promise."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from dql.cascades import Price, Settled, Settler
from dql.certificates import RowNames
from dql.planner.calls import CASCADED
from dql.planner.cascade import ASKED
from dql.planner.cascading import with_thresholds
from dql.planner.contract import Bound, Contract
from dql.planner.hardware import Hardware, cpu_versions, gpu_versions
from dql.planner.models import Chosen, choices, on_models, said
from dql.planner.option import REFERENCE, lossy_cache, preference, reference_of, settled
from dql.planner.physical import CallExec, ErrorPolicy, Placement, QueryPlan
from dql.planner.placing import placed
from dql.planner.plan import Planned
from dql.planner.search import Choice, lossy, space_of
from dql.planner.statistics import CallStatistics, infer_nodes
from dql.planner.units import seconds_text
from dql.proofs import Candidate, Proven, Prover, aim
from dql.saving import gain, loading
from dql.twofold import Ways, Weigh, cheapest, ways

if TYPE_CHECKING:
    from dql.estimate import Estimate, Surroundings
    from dql.executor.evidence import EngineEvidence
    from dql.executor.progress import Progress

_SOME = Bound("quality", 0.0, "", ">=")  # any share of the answers: the most of it that can be had is wanted

Choose = Callable[[Mapping[str, float]], Choice]


def asks_ahead(planned: Planned) -> bool:
    """Whether a run of this may ask models about some rows before it begins, to see what its plan can promise."""
    calls = (call for node in infer_nodes(planned.query.root) for call in node.calls)
    return planned.contract.may_lose or any(call.stage is not None for call in calls)


@dataclass(slots=True)
class Judge:
    """Collects evidence for one query. may_ask: the query runs here and next, so that engines may be loaded.

    names: those of the rows that things were proven on.
    """

    session: "Surroundings"
    contract: Contract
    params: Mapping[str, object]
    may_ask: bool
    names: RowNames
    progress: "Callable[[Progress], None] | None" = None
    evidence: "EngineEvidence | None" = field(default=None, init=False)
    _share: float = field(default=1.0, init=False)  # of the risk that cascades or precisions may take
    ways: Ways = field(default_factory=dict, init=False)  # to ask two precisions that may pay
    _tested: int = field(default=1, init=False)  # things that may be certified: they split the risk
    _settled: bool = field(default=False, init=False)  # another model than the reference answers

    def reference(self, query: QueryPlan, hardware: Hardware) -> QueryPlan:
        """The plan whose answers are right, with all models of its cascades asked."""
        space = space_of(hardware, self.contract, what_if=hardware.shipped)
        precision, cache = reference_of(hardware, self.contract), REFERENCE[hardware.kind]
        if self.contract.bound("quality") is None:
            precision, cache = space.weights[0], space.kv_cache[0]  # perhaps pinned
        place = settled(Placement(weights=precision, kv_cache=cache, device=hardware.kind), self.contract)
        return placed(with_thresholds(query, {}, ASKED), place)

    def cascades(
        self,
        query: QueryPlan,
        statistics: Mapping[str, CallStatistics],
        price: Price,
        *,
        ask: bool,
        unpaid: bool = False,
    ) -> Settled:
        """What becomes of the cascades of a reference plan. Asks engines where `ask`; unpaid: as `Settler` takes it."""
        evidence = self.asked if ask else None
        asks = evidence, self.names, price, self._share / self._tested, unpaid
        return Settler(self.session, self.contract, self.params, statistics, *asks).settle(query)

    def precisions(self, query: QueryPlan, found: "Estimate", weigh: Weigh, *, ask: bool) -> tuple[Proven, Choice]:
        """Precisions that are proven to keep the quality bound, and the plan with these among its choices.

        query: the reference plan. Where nobody may ask yet, the plan is the best that the run may turn out to have.
        Notes `ways` to ask two precisions, which share the risk with those that are tested as a whole.
        """
        reference = found.choice
        assert reference is not None
        cascades = any(call.stage is not None for node in infer_nodes(query.root) for call in node.calls)
        if not self._bounds or self._settled or cascades:  # what may be lost is lost already
            return Proven(), reference
        if self.contract.wants_quality and reference.best.feasible:
            return Proven(), reference
        choose = partial(weigh, reference.calls)
        candidates, self.ways = self._cheaper(reference, choose), self._ways(query, reference, weigh)
        self._tested = max(len(candidates) + len(self.ways), 1)
        share = self._share * len(candidates) / self._tested
        prover = self._prover(found, reference_of(reference.hardware, self.contract), share, ask=ask)
        proven = prover.prove(query, list(candidates.values()))
        bounds = {name: proven.bounds[c.name] for name, c in candidates.items() if c.name in proven.bounds}
        hoped = proven.open and not reference.best.feasible
        if not (hoped or bounds):
            return proven, reference
        best = choose(dict.fromkeys(candidates, 1.0) if hoped else bounds)
        if self.contract.wants_quality and not self._pinned:
            most = "the one that agrees most" if hoped else f"{best.best.placement.weights} agrees most and"
            missed = f"{prover.reference} misses {' and '.join(reference.best.misses)}"
            proven.lines.append(f"{missed}: of the precisions that keep the contract {most} answers")
        return proven, best

    @property
    def _bounds(self) -> tuple[Bound, ...]:
        """What answers must keep to be others than the reference's; () where they must not be."""
        bounds = self.contract.bounds_on("quality")
        if not bounds and self.contract.wants_quality and not self._pinned:
            return (_SOME,)
        return bounds

    @property
    def _pinned(self) -> bool:
        """Whether the user says in which precision to answer."""
        return any(self.contract.setting(name) is not None for name in ("quantization", "kv_cache"))

    @property
    def hopeful(self) -> bool:
        """Whether two precisions may turn out to keep a contract that no other plan keeps."""
        return any(choice.best.feasible for choice in self.ways.values())

    def cheapest(self, found: "Estimate", predict: "Callable[[Planned], Estimate]") -> "Estimate":
        """The estimate, or a better one in which the model answers in two precisions."""
        if found.choice is None or not self.ways:
            return found
        return cheapest(found, self.ways, reference_of(found.choice.hardware, self.contract), predict)

    def pick(
        self, planned: Planned, predict: "Callable[[Planned], Estimate]", *, ask: bool
    ) -> tuple[Planned, list[str]]:
        """The plan on the models that meet the contract at the least cost, and why these."""
        ways = list(choices(planned))
        if len(ways) == 1:
            return on_models(planned, ways[0]), []
        compared = self.contract.may_lose
        here = [way for way in ways if all(self.session.registry.installed(name) for name in way.values())]
        weighed = here if ways[0] in here or not compared else []  # the first is what others are compared with
        found = [(way, predict(on_models(planned, way))) for way in weighed]
        priced = [(way, e, e.choice) for way, e in found if e.choice is not None]
        kept = any(way == ways[0] and choice.best.feasible for way, _, choice in priced)
        if not priced or (self.contract.wants_quality and kept):
            return on_models(planned, ways[0]), [f"USING ANY: {said(ways[0])}, named first"]
        priced.sort(key=lambda each: preference(each[2].best, self.contract))
        lines = self._compared([(way, choice) for way, _, choice in priced], ways, here)
        if not compared:
            return on_models(planned, priced[0][0]), lines
        pick = self._pick_best if self.contract.wants_quality else self._pick_proven
        return pick(planned, priced, ways[0], ask=ask)

    def asked(self) -> "EngineEvidence":
        """The evidence, and through it the engines."""
        if self.evidence is None:
            policy = ErrorPolicy(on_overflow=str(self.contract.setting("on_overflow")))
            runtime, cancelled = self.session.runtime, self.session.cancelled
            self.evidence = runtime.evidence(policy, self.params, self.progress, cancelled)
        return self.evidence

    def said(self) -> list[str]:
        """What asking took."""
        return [] if self.evidence is None else [f"to find out took {seconds_text(self.evidence.seconds)}"]

    def _prover(self, found: "Estimate", reference: str, share: float, *, ask: bool) -> Prover:
        evidence = self.asked if ask else None
        surroundings = self.session, self.params, found.statistics, evidence, self.names
        return Prover(*surroundings, reference, self._bounds, share, self.contract.wants_quality)

    def _ways(self, query: QueryPlan, reference: Choice, weigh: Weigh) -> Ways:
        """Precisions to ask first, of those that an engine has, for which calibrating pays."""
        outs = {c.out for node in infer_nodes(query.root) for c in node.calls if c.op in CASCADED and c.holes}
        return ways(reference, outs, self._share, weigh)

    def _rows(self, candidates: int) -> float:
        """Rows that a flawless candidate takes to prove itself."""
        return max(aim(bound, self._share, candidates).first for bound in self._bounds)

    def _cheaper(self, reference: Choice, choose: Choose) -> dict[str, Candidate]:
        """Precisions of weights for which a test pays, the cheapest first; what is pinned must be tested, with the
        cache that is pinned."""
        lossy_kv = lossy_cache(reference.hardware, self.contract)
        pinned = lossy_kv or self.contract.setting("quantization") is not None
        names = lossy(reference.hardware, self.contract)
        plans = {name: choose({name: 1.0}) for name in names}
        found = {}
        for name, plan in sorted(plans.items(), key=lambda item: preference(item[1].best, self.contract)):
            if plan.best.placement.weights != name:
                continue
            cache = plan.best.placement.kv_cache
            called = f"{name} with {cache} KV" if lossy_kv else name
            candidate = Candidate(called, _in_precision(name, cache), *gain(reference, plan))
            rescued = plan.best.feasible and not reference.best.feasible
            spared = replace(candidate, saves=candidate.saves - loading(plan))
            pays = not self.contract.wants_quality and spared.pays(self._rows(len(names)), len(plan.calls))
            if pinned or rescued or pays:
                found[name] = candidate
        return found

    def _pick_proven(
        self,
        planned: Planned,
        priced: "list[tuple[Chosen, Estimate, Choice]]",
        first: Chosen,
        *,
        ask: bool,
    ) -> tuple[Planned, list[str]]:
        """Models that are cheaper than the first named one are tested against it."""
        self._share = 0.5
        basis, reference = next((e, c) for way, e, c in priced if way == first)
        ranks = [(way, choice) for way, _, choice in priced]
        cheaper = ranks[: next(i for i, (way, _) in enumerate(ranks) if way == first)]
        cheaper = [(way, choice) for way, choice in cheaper if len(_swaps(way, first)) == len(set(first.values()))]
        rows = self._rows(len(cheaper))
        tested = [Candidate(said(way), _on(way, first), *gain(reference, choice)) for way, choice in cheaper]
        rescued = [not reference.best.feasible and choice.best.feasible for _, choice in cheaper]
        paying = [
            candidate
            for candidate, (_, choice), needed in zip(tested, cheaper, rescued, strict=True)
            if needed or (self._may_run(choice) and candidate.pays(rows, len(reference.calls)))
        ]
        query = self.reference(on_models(planned, first).query, reference.hardware)
        proven = self._prover(basis, said(first), self._share, ask=ask).prove(query, paying)
        for way, _ in cheaper:
            if said(way) in proven.bounds:
                self._settled = True
                return on_models(planned, way), proven.lines
        if proven.open and any(rescued):  # the run may turn out to keep the contract
            return on_models(planned, cheaper[rescued.index(True)][0]), proven.lines
        lines = proven.lines or [f"{said(first)} answers: no other model is cheap enough to be worth a test"]
        return on_models(planned, first), lines

    def _pick_best(
        self,
        planned: Planned,
        priced: "list[tuple[Chosen, Estimate, Choice]]",
        first: Chosen,
        *,
        ask: bool,
    ) -> tuple[Planned, list[str]]:
        """The first named one misses a bound: of the models that keep all of them the one that agrees with it most."""
        basis, missed = next((e, c) for way, e, c in priced if way == first)
        others = [
            (way, choice)
            for way, _, choice in priced
            if choice.best.feasible and self._is_exact(choice) and len(_swaps(way, first)) == len(set(first.values()))
        ]
        if not others:
            return on_models(planned, first), [f"USING ANY: {said(first)}, named first"]
        tested = [Candidate(said(way), _on(way, first), *gain(missed, choice)) for way, choice in others]
        query = self.reference(on_models(planned, first).query, missed.hardware)
        proven = self._prover(basis, said(first), self._share, ask=ask).prove(query, tested)
        if not (proven.open or proven.bounds):
            return on_models(planned, first), proven.lines
        self._settled = True
        best = max(others, key=lambda other: proven.bounds.get(said(other[0]), 0.0))[0]  # of equals the quicker one
        most = "the one that agrees most" if proven.open else f"{said(best)} agrees most and"
        misses = f"{said(first)} misses {' and '.join(missed.best.misses)}"
        return on_models(planned, best), [
            *proven.lines,
            f"{misses}: of the models that keep the contract {most} answers",
        ]

    def _is_exact(self, choice: Choice) -> bool:
        """Whether a plan is in the reference precision, so that nothing else is left to prove of it."""
        return choice.best.placement.weights == reference_of(choice.hardware, self.contract)

    def _may_run(self, choice: Choice) -> bool:
        """Whether a plan would not be refused."""
        return choice.best.feasible or bool(self.contract.setting("best_effort"))

    def _compared(self, priced: list[tuple[Chosen, Choice]], ways: list[Chosen], here: list[Chosen]) -> list[str]:
        """What was weighed, and what could not be."""
        figures = ", ".join(f"{said(way)} {seconds_text(choice.best.cost.seconds)}" for way, choice in priced)
        lines = [f"USING ANY: {said(priced[0][0])} of {figures}"]
        names = {name for way in ways for name in way.values()} - {name for way in here for name in way.values()}
        if names:
            lines.append(f"not here and not weighed: {', '.join(sorted(names))} (dql models pull)")
        return lines


def identify(session: "Surroundings", contract: Contract, call: CallExec) -> object:
    """All that decides what a call answers to a row; a model that is not here yet has but its name."""
    place, registry, name = call.placement, session.registry, call.model
    model = registry.resolve(name).digest if registry.installed(name) else f"{name}, not here"
    overflow = contract.setting("on_overflow")
    asks = call.op, call.template, call.bare, call.labels, call.multi, call.low, call.high, call.type
    told = call.system, call.instruction, call.examples, call.calibrate, call.decoding
    on_cpu = place.device == "cpu"
    made = cpu_versions(session.config.num_threads) if on_cpu else gpu_versions(str(session.machine.hardware()))
    runs = place.device, place.weights, place.kv_cache, place.deterministic, sorted(made.items())
    return model, runs, asks, told, overflow


def _in_precision(weights: str, cache: str) -> Callable[[CallExec], CallExec]:
    return lambda call: replace(call, placement=replace(call.placement, weights=weights, kv_cache=cache))


def _swaps(way: Chosen, first: Chosen) -> set[tuple[str, str]]:
    """Which model of the first choice becomes which."""
    return {(first[named], model) for named, model in way.items()}


def _on(way: Chosen, first: Chosen) -> Callable[[CallExec], CallExec]:
    """A call of the plan on the first models, on those of another way to choose."""
    changed = dict(_swaps(way, first))
    return lambda call: replace(call, model=changed.get(call.model, call.model))
