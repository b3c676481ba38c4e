"""A plan that was simulated: where each call runs, what it costs, and which bounds the query misses with it."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from dql.errors import UnsupportedError, name_hint
from dql.planner.candidates import PricedCall
from dql.planner.contract import Contract
from dql.planner.cost import Cost, cost, together
from dql.planner.hardware import BYTES_PER_VALUE, Hardware
from dql.planner.memory import Engine, Memory, draft_slots, held, peak
from dql.planner.physical import Placement
from dql.planner.shortlist import rented, undecided
from dql.planner.simulate import simulate
from dql.planner.step_model import StepModel

MACHINE_MEMORY = "the machine's memory"  # a bound that is always there
REFERENCE = {"cpu": "fp32", "cuda": "bf16"}


@dataclass(frozen=True, slots=True)
class Option:
    """A simulated plan: what each call and the query cost, and which bounds it misses by what factor.

    places: each call's placement; calls that run together have one, and all have one sharding and, but for calls that
    have their own, one precision.
    """

    places: tuple[Placement, ...]
    calls: tuple[Cost, ...]
    cost: Cost
    quality: float
    misses: Mapping[str, float]

    @property
    def feasible(self) -> bool:
        return not self.misses

    @property
    def placement(self) -> Placement:
        """That of the call that takes longest."""
        return self.places[max(range(len(self.calls)), key=lambda i: self.calls[i].seconds)]


@dataclass(frozen=True, slots=True)
class Weighing:
    """What plans for `calls` are weighed by; agreement: see `search`."""

    calls: tuple[PricedCall, ...]
    hardware: Hardware
    contract: Contract
    agreement: Mapping[str, float]

    def simulated(self, placement: Placement) -> Option:
        """The plan that runs all calls in one placement."""
        return self.composed([placement] * len(self.calls), [self._cost(call, placement) for call in self.calls])

    def composed(self, places: Sequence[Placement], costs: Sequence[Cost]) -> Option:
        """The plan of calls in these placements, whose costs are known."""
        parts = [self._memory(call, place) for call, place in zip(self.calls, places, strict=True)]
        whole = together(costs, float(np.max(peak(parts))))
        quality = self._quality(places[0])
        misses = self._misses(costs, whole, quality)
        slots, drafts = self._slots(places, parts), self._draft_slots(places)
        found = (
            settled(
                replace(
                    place,
                    kv_slots=slots[call.run],
                    draft_slots=drafts[call.run],
                    device=self.hardware.kind,
                ),
                self.contract,
            )
            for call, place in zip(self.calls, places, strict=True)
        )
        return Option(tuple(found), tuple(costs), whole, quality, misses)

    def seconds(self, places: Sequence[Placement]) -> float:
        """What the calls take in these placements as they are, one after the other."""
        return sum(
            simulate(StepModel(self.hardware, call.shape, call.at(place)), call.work).seconds
            * call.factor(call.at(place).weights)
            + call.work.prefilled / self.hardware.tokenize
            for call, place in zip(self.calls, places, strict=True)
        )

    def _cost(self, call: PricedCall, placement: Placement) -> Cost:
        return cost(
            simulate(StepModel(self.hardware, call.shape, settled(call.at(placement), self.contract)), call.work),
            call.work,
            self.hardware,
            rented(self.hardware, self.contract),
            float(np.max(peak([self._memory(call, placement)]))),
            call.factor(call.at(placement).weights),
            call.late.get(call.at(placement).weights),
        )

    def _memory(self, call: PricedCall, place: Placement) -> dict[Engine, Memory]:
        return call.memory(place, place.max_rows, place.step_tokens, self.hardware)

    def _quality(self, placement: Placement) -> float:
        exact = placement.weights == reference_of(self.hardware, self.contract)
        return 1.0 if exact and not lossy_cache(self.hardware, self.contract) else self._agrees(placement)

    def _agrees(self, placement: Placement) -> float:
        return self.agreement.get(placement.weights, 0.0)

    def _misses(self, costs: Sequence[Cost], whole: Cost, quality: float) -> dict[str, float]:
        """Bounds that are missed, by what factor; what is only guessed is no ground to refuse a query."""
        counted = [c for c, call in zip(costs, self.calls, strict=True) if not call.work.guessed]
        known = together(counted, whole.memory)
        decided = [b for b in self.contract.bounds if known.rows and not undecided(b, self.calls)]
        misses = {str(b): x for b in decided if (x := known.excess(b, quality)) > 1}
        if whole.memory > self.hardware.memory:
            misses[MACHINE_MEMORY] = whole.memory / self.hardware.memory
        return misses

    def _slots(self, places: Sequence[Placement], parts: Sequence[Mapping[Engine, Memory]]) -> dict[str, int | None]:
        """KV slots that a bound on memory leaves each run beside weights, activations and what a draft takes, and at
        least as many as it is planned with; None without such a bound."""
        bound = self.contract.bound("memory")
        if bound is None:
            return dict.fromkeys(call.run for call in self.calls)
        weights = held(parts)
        room, needed = dict[str, int](), dict[str, int]()
        for call, place, part in zip(self.calls, places, parts, strict=True):
            slot = call.shape.kv_bytes_per_token(BYTES_PER_VALUE[place.kv_cache])
            cache = float(np.max(part[call.engine].kv_cache))
            beside = sum(float(np.max(m.working)) for m in part.values()) - cache
            left = int((bound.value - weights - beside) / slot)
            room[call.run] = min(left, room.get(call.run, left))
            needed[call.run] = max(math.ceil(cache / slot), needed.get(call.run, 1))
        return {run: max(room[run], needed[run]) for run in room}

    def _draft_slots(self, places: Sequence[Placement]) -> dict[str, int | None]:
        """KV slots of each run's draft under a bound on memory; None without a draft or such a bound."""
        found: dict[str, int | None] = dict.fromkeys(call.run for call in self.calls)
        if self.contract.bound("memory") is not None:
            for call, place in ((c, p) for c, p in zip(self.calls, places, strict=True) if c.draft is not None):
                found[call.run] = max(found[call.run] or 0, int(draft_slots(call.work, place.max_rows)))
        return found


def reference_of(hardware: Hardware, contract: Contract) -> str:
    """The precision whose answers are right: this hardware's own, or what the quality bound names after OF."""
    bound = contract.bound("quality")
    if bound is None or not bound.reference:
        return REFERENCE[hardware.kind]
    if (named := bound.reference.lower()) not in hardware.peak:
        what = f"quality OF '{bound.reference}' cannot be measured on {hardware}"
        raise UnsupportedError(what, span=bound.span, hint=name_hint(named, hardware.peak))
    return named


def lossy_cache(hardware: Hardware, contract: Contract) -> bool:
    """Whether the pinned precision of the KV cache, if any, is below what right answers are given with."""
    pinned = contract.setting("kv_cache")
    return pinned is not None and BYTES_PER_VALUE[str(pinned)] < BYTES_PER_VALUE[REFERENCE[hardware.kind]]


def settled(placement: Placement, contract: Contract) -> Placement:
    """The placement with what the contract settles without a choice."""
    return replace(
        placement,
        prefix="tree" if contract.setting("prefix_cache") else "none",
        reuse=bool(contract.setting("result_cache")),
        deterministic=bool(contract.setting("deterministic")),
    )


def preference(option: Option, contract: Contract) -> tuple[float, float, float, float]:
    """Smaller is better: by how much bounds are missed, then the objective, then seconds, then memory."""
    missed = max(option.misses.values(), default=0.0)
    return missed, objective(option, contract), option.cost.seconds, option.cost.memory


def objective(option: Option, contract: Contract) -> float:
    """What the contract wants little of."""
    match contract.objective[1]:
        case "latency":
            return option.cost.latency[2]
        case "quality":
            return -option.quality
    # cost and throughput: the whole machine is paid for, however many of its devices work, so both want few seconds
    return option.cost.seconds
