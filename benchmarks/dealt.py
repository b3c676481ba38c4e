"""Tables whose truth is known, under dql's own planner: what a precision answers, and how surely, is dealt to texts.

dql's `estimate` plans a query that runs next: it counts, prices, draws rows, tests the lower precisions as a whole,
calibrates thresholds of two precisions, splits the risk over all of these, and takes the cheapest plan that is proven.
Only the model is not real. What the chosen plan answers is compared with the truth on every row that is asked about.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from dql.certificates import Certificates, Value
from dql.estimate import Estimate, estimate
from dql.executor.evidence import Drawn, EngineEvidence
from dql.grammar.ast import QueryStatement
from dql.grammar.parser import parse
from dql.models import Model
from dql.planner.evidence import Sample, Told
from dql.planner.physical import CallExec, Placement
from dql.planner.placing import as_chosen
from dql.planner.plan import Planned
from dql.planner.statistics import infer_nodes
from dql.session import Session
from dql.statements import Call, plan
from tests.fake_session import FakeEngine, FakeRuntime, FakeSession, quick_below
from tests.models.tiny import tiny_model

REFERENCE = "fp32"


@dataclass(frozen=True, slots=True)
class Truth:
    """What a lower precision says of each text: whether it is what the reference says, and how sure it is of it."""

    same: NDArray[np.bool_]
    sure: NDArray[np.float64]


Truths = Mapping[tuple[str, str], Truth]  # by kind of call, filter or classify, and precision


@dataclass(frozen=True, slots=True)
class Trial:
    """What a trial came to. way: which plan was taken. agreement: of the worst call, over the rows that it is asked
    about. asked: answers of the reference for each that it would give alone, those of tests included."""

    way: str
    agreement: float
    asked: float


@dataclass(slots=True)
class Dealt(EngineEvidence):
    """Draws rows as every query does, and looks the answers up.

    asked: texts that the reference was asked about, by kind of call. again: how often for its noise floor. spared:
    texts that are answered as the reference did, by the column of a call and the precision that it is asked in.
    """

    truths: Truths = field(default_factory=dict)
    asked: dict[str, set[int]] = field(default_factory=dict)
    again: int = 0
    spared: dict[tuple[str, str], set[int]] = field(default_factory=dict)

    def answers(self, call: CallExec, sample: Sample, start: int, end: int, *, fresh: bool = False) -> list[Told]:
        texts = _texts(sample)[start:end]
        if call.placement.weights == REFERENCE:
            self.again += len(texts) if fresh else 0
            self.asked.setdefault(call.op, set()).update(texts)
            return [Told(value=True, confidence=1.0)] * len(texts)
        truth = self.truths[call.op, call.placement.weights]
        return [Told(bool(truth.same[text]), float(truth.sure[text])) for text in texts]

    def keep(self, call: CallExec, instead: CallExec, sample: Sample) -> None:
        spared = self.spared.setdefault((instead.out, instead.placement.weights), set())
        spared |= self.asked.get(call.op, set()).intersection(_texts(sample))

    def divergence(self, reference: CallExec, candidate: CallExec, sample: Sample, rows: int) -> float | None:
        return None  # it is said, and decides nothing


def _texts(sample: Sample) -> list[int]:
    assert isinstance(sample, Drawn)
    return [int(text) for text in sample.rows.column(0).to_pylist()]


class DealtEngine(FakeEngine):
    """Answers what was dealt, where a query runs to its end."""

    def __init__(self, model: Model, weights: str, truths: Truths) -> None:
        super().__init__(model, "", exact=weights == REFERENCE)
        self._weights = weights
        self._truths = truths

    def chosen(self, text: str, labels: list[str]) -> tuple[int, float]:
        found = re.match(r"\d+", text)
        assert found is not None and len(labels) == 2, text
        if self._weights == REFERENCE:
            return 0, 1 - 1e-6
        truth = self._truths["filter" if labels == ["Yes", "No"] else "classify", self._weights]
        number = int(found[0])
        return int(not truth.same[number]), float(truth.sure[number])


class DealtRuntime(FakeRuntime):
    """Answers from the truths that are in force. looked_up: samples are not asked about, which takes long, but dealt
    with by `Dealt`."""

    def __init__(self, session: Session) -> None:
        super().__init__(session)
        self.truths: Truths = {}
        self.looked_up = True

    def evidence(self, *surroundings: Any) -> EngineEvidence:
        found = super().evidence(*surroundings)
        return Dealt(found.context, truths=self.truths) if self.looked_up else found

    def made(self, model: Model, speaker: str, placement: Placement, *, exact: bool) -> FakeEngine:
        return DealtEngine(model, placement.weights, self.truths)


class Forgotten(Certificates):
    """Nothing is remembered from one trial to the next."""

    def keep(self, subject: object, fingerprint: str | None, value: Value) -> None:
        pass


class Table(FakeSession):
    """A session with one table `t`, on a machine that is quicker in the lower precisions.

    texts: the number of each row's text, its `body`; below 0 that is NULL.
    """

    def __init__(self, folder: Path, texts: NDArray[np.int64], lower: Sequence[str] = ("bf16",)) -> None:
        super().__init__(folder / "home", tiny_model(folder))
        quick_below(self, *lower)
        self.dealt = DealtRuntime(self)
        self._fake = self.dealt
        self.certificates = Forgotten(self.config.certificates_dir)
        self.catalog.register("t", pa.table({"body": [None if text < 0 else str(text) for text in texts]}))
        self.lower = tuple(lower)
        self.rows = np.bincount(texts[texts >= 0])  # of each text

    def planned(self, query: str) -> Planned:
        """The query, bound and rewritten."""
        (statement,) = parse(query)
        assert isinstance(statement, QueryStatement)
        return plan(statement.query, Call(self, query, {}, None))

    def tried(self, planned: Planned, truths: Truths) -> Trial:
        """Plan the query as one that runs next, and see what its plan would answer."""
        self.dealt.truths = truths
        found = estimate(planned, self, {}, running=True)
        query = as_chosen(found.planned.query, planned.contract, found.choice, found.kind)
        calls = [call for node in infer_nodes(query.root) for call in node.calls]
        firsts = [call for call in calls if call.stage is None or not call.stage.number]
        seen = found.evidence
        assert isinstance(seen, Dealt | None)
        agreement, asked, way = 1.0, 0 if seen is None else seen.again, REFERENCE
        for call in firsts:
            reference = self.by_reference(call, found)
            known = np.zeros(len(self.rows), bool)
            known[[] if seen is None else list(seen.asked.get(call.op, ()))] = True
            asked += int((known | reference).sum())
            weights = call.placement.weights
            if weights != REFERENCE:
                same = truths[call.op, weights].same | reference
                agreement = min(agreement, float(self.rows @ same) / int(self.rows.sum()))
                way = f"{weights}{'' if call.stage is None else ' first'}"
        return Trial(way, agreement, asked / (len(firsts) * len(self.rows)))

    def answered(self, query: str, truths: Truths) -> list[dict[str, object]]:
        """The rows that a query really has, its samples asked of engines as well."""
        self.dealt.truths, self.dealt.looked_up = truths, False
        self.dealt.engines.clear()
        try:
            found: list[dict[str, object]] = self.query(query).arrow().to_pylist()
            return found
        finally:
            self.dealt.looked_up = True

    def by_reference(self, call: CallExec, found: Estimate) -> NDArray[np.bool_]:
        """The texts that have the reference's answer to a call of the chosen plan."""
        if (weights := call.placement.weights) == REFERENCE:
            return np.ones(len(self.rows), bool)
        threshold = -1.0 if call.stage is None else found.settled.thresholds[call.stage.sure]
        asked: NDArray[np.bool_] = self.dealt.truths[call.op, weights].sure < threshold
        if isinstance(found.evidence, Dealt):
            asked[list(found.evidence.spared.get((call.out, weights), ()))] = True
        return asked
