"""Cascades of a query before it runs: how sure is sure enough, and what the models will be asked."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from typing import TYPE_CHECKING

from dql.certificates import RowNames, Unread, Value, numbers
from dql.planner.candidates import PricedCall
from dql.planner.cascade import ALONE, ASKED, CONFIDENCE, TARGET, Calibration, sample_size
from dql.planner.contract import Contract
from dql.planner.evidence import Evidence, calibrated
from dql.planner.physical import CallExec, InferExec, QueryPlan
from dql.planner.sampling import source
from dql.planner.statistics import CallStatistics, countable, infer_nodes
from dql.planner.units import share_text
from dql.planner.workload import Workload

if TYPE_CHECKING:
    from dql.estimate import Surroundings

_MANY = 10**9  # rows of an input that nobody has numbered
ASSUMED = 0.3  # share of rows that the last model is asked about, before anybody knows

Price = Callable[[CallExec], PricedCall | None]  # what a call would cost if all rows reached it


@dataclass(frozen=True, slots=True)
class Cascade:
    """The calls of one cascade in the order in which they are asked, as they would run over the first one's input.

    outs: the columns of their answers in the plan.
    """

    sure: str
    node: InferExec
    stages: tuple[CallExec, ...]
    outs: tuple[str, ...]

    @property
    def first(self) -> CallExec:
        return self.stages[0]

    @property
    def last(self) -> CallExec:
        return self.stages[-1]

    def called(self, stage: CallExec) -> str:
        """A stage's model in words, with its precision where that tells the stages apart."""
        return f"{stage.model} in {stage.placement.weights}" if self.in_two else stage.model

    @property
    def in_two(self) -> bool:
        """Whether it is one model at two precisions."""
        return any(stage.stage is not None and stage.stage.weights for stage in self.stages)


@dataclass(slots=True)
class Settled:
    """What became of a query's cascades: thresholds by parameter, and for each column of an answer what to say of it.

    promises: what is certain of the answers, one line a cascade. later: priced calls of the models that are asked after
    the first; idle: columns of calls that no row reaches. open: a threshold is not known yet, and engines could tell.
    calibrated: how many cascades were, or will be.
    """

    thresholds: dict[str, float] = field(default_factory=dict)
    notes: dict[str, str] = field(default_factory=dict)
    promises: list[str] = field(default_factory=list)
    later: list[PricedCall] = field(default_factory=list)
    idle: set[str] = field(default_factory=set)
    open: bool = False
    calibrated: int = 0

    def of(self, calls: Sequence[PricedCall]) -> list[PricedCall]:
        """All calls of the query that are priced, `calls` those that were counted before."""
        return [call for call in (*calls, *self.later) if call.out not in self.idle]


def cascades_of(query: QueryPlan) -> list[Cascade]:
    """The cascades of a plan."""
    nodes = [(node, call) for node in infer_nodes(query.root) for call in node.calls if call.stage is not None]
    found = []
    for node, first in nodes:
        if first.stage is None or first.stage.number:
            continue
        later = {c.stage.number: c for _, c in nodes if c.stage is not None and c.stage.sure == first.stage.sure}
        calls = [first, *(later[number] for number in sorted(later) if number)]
        stages = tuple(
            replace(first, model=c.model, out=c.out, details=c.details, stage=c.stage, placement=c.placement)
            for c in calls
        )
        found.append(Cascade(first.stage.sure, node, stages, tuple(c.out for c in calls)))
    return found


@dataclass(frozen=True, slots=True)
class Settler:
    """Settles cascades. evidence: asks engines; None where the query does not run next. share: of the risk that the
    contract leaves, how much they may take; they split it, so that all promises hold at once. unpaid: to ask other
    models before the last costs more than it spares.
    """

    session: "Surroundings"
    contract: Contract
    params: Mapping[str, object]
    statistics: Mapping[str, CallStatistics]
    evidence: Callable[[], Evidence] | None
    rows: RowNames
    price: Price
    share: float = 1.0
    unpaid: bool = False

    def settle(self, query: QueryPlan) -> Settled:
        """All cascades of a query."""
        settled, cascades = Settled(), cascades_of(query)
        each = replace(self, share=self.share / max(len(cascades), 1))
        for cascade in cascades:
            reason = each._hopeless(cascade)
            known = None if reason else each._calibration(cascade)
            found = None if isinstance(known, Unread) else known
            if found is not None and found.alone:
                reason = f"nothing could be proven on {found.rows:,} random rows"
            elif found is not None and self.unpaid:
                reason = f"to ask others first costs more than it spares, {share_text(found.asked)} of the sample go on"
            settled.open = settled.open or not (reason or found)
            settled.calibrated += not reason or found is not None
            settled.thresholds[cascade.sure] = ALONE if reason else ASKED if found is None else found.threshold
            each._say(cascade, known, reason, settled)
            each._price(cascade, 1.0 if reason else ASSUMED if found is None else found.asked, settled)
        return settled

    def _hopeless(self, cascade: Cascade) -> str:
        """Why the last model has to answer all rows, where that is clear."""
        counted = self.statistics.get(cascade.first.out) if countable(cascade.node) else None  # a guess refuses nothing
        if not self._here(cascade) and self.evidence is None:
            return ""  # the run will pull them
        if source(cascade.node) is None:
            return "its rows cannot be sampled before the run"
        if cascade.node.stops_early:
            return "LIMIT may end the query before a sample would pay"
        target, confidence = self._promise()
        rows = counted.known_rows if counted else None
        if not cascade.first.holes or (rows is not None and not self._size(rows)):
            short = "1 row is" if rows is None else f"{rows:,} rows are"
            return f"{short} too few to calibrate {target:g} at {share_text(confidence)} on"
        return ""

    def _here(self, cascade: Cascade) -> bool:
        return all(self.session.registry.installed(stage.model) for stage in cascade.stages)

    def _promise(self) -> tuple[float, float]:
        bounds = self.contract.bounds_on("quality")
        return max(b.value for b in bounds) if bounds else TARGET, max(
            (b.confidence for b in bounds), default=CONFIDENCE
        )

    def _tested(self) -> tuple[float, float]:
        """The target, and the confidence at which one cascade must reach it."""
        target, confidence = self._promise()
        return target, 1 - (1 - confidence) * self.share

    def _size(self, rows: int) -> int:
        target, confidence = self._tested()
        return sample_size(rows, target, 1 - confidence)

    def _calibration(self, cascade: Cascade) -> Calibration | Unread | None:
        """Known from earlier, else made now; None where no engine may be asked."""
        target, confidence = self._tested()

        def subject() -> object:
            return "cascade", [self.rows.identify(stage) for stage in cascade.stages], target, confidence

        rows = partial(self.rows.of, cascade.node, cascade.first)
        # of a model that is not here yet nothing says whether it is the one that was tested
        known = self.session.certificates.find(subject, rows, _read) if self._here(cascade) else None
        if known is not None:
            return known
        if self.evidence is None:
            return None
        evidence = self.evidence()
        sample = evidence.pilot(cascade.node, cascade.first, self._size(_MANY))
        found = calibrated(evidence, sample, cascade.stages, target, confidence)
        self.session.certificates.keep(subject(), rows(), asdict(found))
        return found

    def _say(self, cascade: Cascade, known: Calibration | Unread | None, reason: str, settled: Settled) -> None:
        target, confidence = self._promise()
        found = None if isinstance(known, Unread) else known
        *before, last = map(cascade.called, cascade.stages)
        names = " and ".join(dict.fromkeys(before))
        for out in cascade.outs[:-1]:
            believed = "once it is calibrated" if found is None else f"from a confidence of {found.threshold:.3g} on"
            settled.notes[out] = f"not asked: {reason}" if reason else f"cascade: believed {believed}"
        if reason:
            settled.notes[cascade.outs[-1]] = "asked for all rows"
            settled.promises.append(f"{last} answers all rows: {reason}")
            return
        promise = f"≥ {share_text(target)} of the answers are those of {last}, at {share_text(confidence)} confidence"
        counted = self.statistics.get(cascade.first.out)
        if found is None:
            rows = counted.known_rows if counted and not counted.guessed else None
            size = self._size(_MANY if rows is None else rows)
            run = f"the run calibrates on about {size:,} random rows"
            settled.promises.append(
                f"{promise}: {f'calibrated before; {known.value}' if isinstance(known, Unread) else run}"
            )
            settled.notes[cascade.outs[-1]] = (
                f"asked where {names} is unsure, taken as {share_text(ASSUMED)} of the rows"
            )
            return
        settled.promises.append(
            f"{promise}: calibrated on {found.rows:,} random rows, of which {found.lost:,} differed"
        )
        settled.notes[cascade.outs[-1]] = f"asked where {names} is unsure, {share_text(found.asked)} of the sample"

    def _price(self, cascade: Cascade, share: float, settled: Settled) -> None:
        """The calls after the first with the rows that reach them, and the first only where it is asked."""
        if share >= 1:
            settled.idle |= set(cascade.outs[:-1])
        for stage in cascade.stages[1:]:
            if (priced := self.price(stage)) is not None:
                settled.later.append(replace(priced, work=reached(priced.work, share)))


def _read(kept: Value) -> Calibration:
    """What a certificate says. Raises ValueError where that is something else."""
    return numbers(Calibration, kept)


def reached(work: Workload, share: float) -> Workload:
    """What is asked where only a share of the rows goes on to a model."""
    return replace(work, rows=round(work.rows * share), distinct=round(work.distinct * share))
