"""Candidates that change answers, tested against the reference on the user's rows before a query runs."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import TYPE_CHECKING

from dql.certificates import RowNames, Unread, Value, numbers
from dql.planner.certify import MEASURED, Proof
from dql.planner.contract import Bound
from dql.planner.evidence import Aim, Evidence, Sample, agreement, follows_tokens, noise_floor
from dql.planner.physical import CallExec, InferExec, QueryPlan
from dql.planner.sampling import source
from dql.planner.statistics import CallStatistics, countable, infer_nodes
from dql.planner.units import share_text

if TYPE_CHECKING:
    from dql.estimate import Surroundings

_MANY = 10**9  # rows of an input that nobody has numbered
_DEEP = 3  # of the rows that a flawless candidate takes, as many are drawn above other inference

Change = Callable[[CallExec], CallExec]


@dataclass(frozen=True, slots=True)
class Candidate:
    """Something that may stand in for the reference: what it is called, and the calls that it makes of the plan's.

    saves: seconds that the query takes less. row: seconds that a row takes with the reference and with it together.
    """

    name: str
    change: Change
    saves: float
    row: float

    def pays(self, rows: float, calls: int) -> bool:
        """Whether testing on so many rows costs less than it may save."""
        return self.saves > self.row * rows * calls


@dataclass(frozen=True, slots=True)
class Tested:
    """What testing one call came to: the proof, on how many rows of how many the reference differs from itself, and the
    divergence from it."""

    proof: Proof
    floor: tuple[int, int]
    divergence: float | None


@dataclass(slots=True)
class Proven:
    """What testing came to: proven lower bounds by candidate, a line about each; open: engines could tell more."""

    bounds: dict[str, float] = field(default_factory=dict)
    lines: list[str] = field(default_factory=list)
    open: bool = False


@dataclass(frozen=True, slots=True)
class Prover:
    """Tests candidates for one query. evidence: asks engines; None where the query does not run next.

    reference: what answers are compared with, in words. bounds: on quality, all of which must be kept. share: of the
    risk that these leave, how much may be taken here. best: the candidate that agrees most is wanted, so that all are
    tested, on as many rows.
    """

    session: "Surroundings"
    params: Mapping[str, object]
    statistics: Mapping[str, CallStatistics]
    evidence: Callable[[], Evidence] | None
    rows: RowNames
    reference: str
    bounds: tuple[Bound, ...]
    share: float
    best: bool = False
    samples: dict[str, Sample] = field(default_factory=dict)

    def prove(self, query: QueryPlan, candidates: Sequence[Candidate]) -> Proven:
        """Test the candidates in order until one keeps the target on every call, or all of them where the `best` is
        wanted; the risk is split over them all."""
        found = Proven()
        calls = [(n, c) for n in infer_nodes(query.root) for c in n.calls if c.op != "count_tokens"]
        if not candidates or not calls:
            return found
        aims = [aim(bound, self.share, len(candidates), best=self.best) for bound in self.bounds]
        if reason := self._hopeless(calls, aims):
            found.lines.append(f"{'nothing else is tested' if self.best else alone(self.reference)}: {reason}")
            return found
        for candidate in candidates:
            proven = [self._test(candidate, calls, each, found) for each in aims]
            if None not in proven:
                self._keep(candidate, calls)
                found.bounds[candidate.name] = max(bound for bound in proven if bound is not None)
                if not self.best:
                    return found
        if not (found.open or found.bounds):
            found.lines.append(alone(self.reference))
        return found

    def _hopeless(self, calls: Sequence[tuple[InferExec, CallExec]], aims: Sequence[Aim]) -> str:
        """Why nothing can be proven, where that is clear before anything is asked."""
        for node, call in calls:
            counted = self.statistics.get(call.out) if countable(node) else None  # a guess refuses nothing
            if source(node) is None:
                return "its rows cannot be sampled before the run"
            if node.stops_early:
                return "LIMIT may end the query before a sample would pay"
            if not call.decoding.is_function:
                return "sampled answers are never the same twice"
            strictest = max(aims, key=lambda each: each.first)
            if strictest.target >= 1:
                return "no sample proves that all answers stay"
            rows = counted.known_rows if counted else None
            few = rows is not None and not strictest.most(rows)
            if not call.holes or few:
                what = f"prove {share_text(strictest.target)}" if strictest.target else "measure how often others agree"
                return f"{1 if rows is None else rows:,} rows are too few to {what} on"
        return ""

    def _test(
        self, candidate: Candidate, calls: Sequence[tuple[InferExec, CallExec]], aim: Aim, found: Proven
    ) -> float | None:
        """The lower bound over all calls; None where one call's is below the target or nobody may ask."""
        worst = 1.0
        for node, call in calls:
            tested = self._tested(candidate, node, call, aim)
            name = f"{candidate.name} on {call.label}" if len(calls) > 1 else candidate.name
            if isinstance(tested, Unread):
                found.open = True
                found.lines.append(f"{name} was tested against {self.reference} before; {tested.value}")
                return None
            if tested is None:
                found.open = True
                rows = min(aim.first, aim.most(self._rows_of(call)))
                more = "" if aim.least else " or more"
                found.lines.append(f"the run tests {name} against {self.reference} on {rows:,.0f} random rows{more}")
                return None
            by_token = aim.by_token and follows_tokens(call, candidate.change(call))
            proof, said = tested.proof, self._said(tested.proof, tested.floor, by_token=by_token)
            found.lines.append(f"{name} {said}{_apart(call, tested.divergence)}")
            if not proof.proves(aim.target, aim.delta):
                return None
            worst = min(worst, proof.bound)
        return worst

    def _rows_of(self, call: CallExec) -> int:
        """Rows of a call's input, as far as they were counted: what is guessed of them refuses nothing."""
        counted = self.statistics.get(call.out)
        rows = counted.known_rows if counted and not counted.guessed else None
        return _MANY if rows is None else rows

    def _keep(self, candidate: Candidate, calls: Sequence[tuple[InferExec, CallExec]]) -> None:
        """Let sampled rows have the reference's answers."""
        for _, call in calls if self.evidence is not None else ():
            if call.out in self.samples:
                assert self.evidence is not None
                self.evidence().keep(call, candidate.change(call), self.samples[call.out])

    def _said(self, proof: Proof, floor: tuple[int, int], *, by_token: bool) -> str:
        if by_token:
            agreed = f"ranks {proof.estimate:.4g} of {self.reference}'s tokens first on {proof.rows:,} random rows"
        else:
            count = f"{proof.estimate * proof.rows:.4g} of {proof.rows:,} random rows"
            agreed = f"agrees with {self.reference} on {count}"
        sure = f"at least {proof.bound:.3g} at {share_text(1 - proof.delta)}"
        noise = f"{self.reference} differs from itself in another batch on {floor[0]} of {floor[1]}"
        return f"{agreed}, {sure}; {noise}"

    def _tested(self, candidate: Candidate, node: InferExec, call: CallExec, aim: Aim) -> Tested | Unread | None:
        """What is known of one call, from earlier or by asking now; None where nobody may ask."""
        changed = candidate.change(call)

        def subject() -> object:
            return "agreement", self.rows.identify(call), self.rows.identify(changed), aim

        here = all(self.session.registry.installed(each.model) for each in (call, changed))
        known = self.session.certificates.find(subject, partial(self.rows.of, node, call), _read) if here else None
        if known is not None:
            return known
        if self.evidence is None:
            return None
        evidence = self.evidence()
        most = aim.most(self._rows_of(call))
        if countable(node) is None:  # what is asked below to get there is not worth more
            most = min(most, int(_DEEP * aim.first))
        if call.out not in self.samples or len(self.samples[call.out]) < most:
            self.samples[call.out] = evidence.pilot(node, call, most)
        sample = self.samples[call.out]
        proof = agreement(evidence, sample, call, changed, aim, most)
        floor = noise_floor(evidence, sample, call)
        tested = Tested(proof, floor, evidence.divergence(call, changed, sample, proof.rows))
        self.session.certificates.keep(subject(), self.rows.of(node, call), asdict(tested))
        return tested


def _read(kept: Value) -> Tested:
    """What a certificate says. Raises ValueError where that is something else."""
    floor, apart = kept.get("floor"), kept.get("divergence", "")
    if not isinstance(floor, list) or [type(each) for each in floor] != [int, int]:
        raise ValueError("no certificate of agreement")
    if not (apart is None or isinstance(apart, int | float)):
        raise ValueError("no divergence")
    return Tested(numbers(Proof, kept.get("proof")), (floor[0], floor[1]), apart)


def _apart(call: CallExec, nats: float | None) -> str:
    """How far the candidate's probabilities are from the reference's, in words."""
    if nats is None:
        return ""
    return f"; KL divergence {nats:.2g} nats per {'token' if call.op == 'generate' else 'answer'}"


def alone(reference: str) -> str:
    """That nothing else was proven, in words."""
    return f"{reference} answers"


def aim(bound: Bound, share: float, candidates: int, *, best: bool = False) -> Aim:
    """What one of so many candidates must prove for a bound, with that share of the risk to be split over them; `best`:
    on as many rows as the others."""
    delta = (1 - bound.confidence) * share / max(candidates, 1)
    return Aim(bound.value, delta, bound.qualifier == "token", MEASURED if best else 0)
