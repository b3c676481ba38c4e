"""What engines are asked before a query runs, so that its plan may change answers and still keep its promise."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from dql.cascades import Price, Settled, Settler
from dql.planner.cascading import with_thresholds
from dql.planner.contract import Contract
from dql.planner.physical import CallExec, ErrorPolicy, Placement, QueryPlan
from dql.planner.placing import placed
from dql.planner.search import space_of
from dql.planner.statistics import CallStatistics

if TYPE_CHECKING:
    from dql.estimate import Surroundings
    from dql.executor.evidence import EngineEvidence
    from dql.executor.progress import Progress

_ASKED = 1.0  # a threshold with which every model of a cascade may be asked


@dataclass(slots=True)
class Judge:
    """Collects evidence for one query. may_ask: the query runs here and next, so that engines may be loaded."""

    session: "Surroundings"
    contract: Contract
    params: Mapping[str, object]
    may_ask: bool
    progress: "Callable[[Progress], None] | None" = None
    evidence: "EngineEvidence | None" = field(default=None, init=False)

    def reference(self, query: QueryPlan) -> QueryPlan:
        """The plan at reference precision, or at what is pinned, and with all models of its cascades asked."""
        space = space_of(self.session.machine.hardware(), self.contract, what_if=False)
        place = Placement(weights=space.weights[0], kv_cache=space.kv_cache[0])
        return placed(with_thresholds(query, {}, _ASKED), place)

    def cascades(
        self,
        query: QueryPlan,
        statistics: Mapping[str, CallStatistics],
        price: Price,
        *,
        ask: bool,
    ) -> Settled:
        """What becomes of the cascades of a reference plan. Asks engines where `ask`."""
        evidence = self.asked if ask else None
        settler = Settler(self.session, self.contract, self.params, statistics, evidence, self.identify, price)
        return settler.settle(query)

    def asked(self) -> "EngineEvidence":
        """The evidence, and through it the engines."""
        if self.evidence is None:
            policy = ErrorPolicy(on_overflow=str(self.contract.setting("on_overflow")))
            runtime, cancelled = self.session.runtime, self.session.cancelled
            self.evidence = runtime.evidence(policy, self.params, self.progress, cancelled)
        return self.evidence

    def identify(self, call: CallExec) -> object:
        """All that decides what a call answers to a row."""
        place, model = call.placement, self.session.registry.resolve(call.model)
        asks = call.op, call.template, call.bare, call.labels, call.multi, call.low, call.high, call.type
        said = call.system, call.instruction, call.examples, call.calibrate, call.decoding
        return model.digest, place.weights, place.kv_cache, asks, said
