"""What is known of a query's calls before it runs: counted where their input can be read twice, else guessed."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence, Set
from dataclasses import replace
from functools import partial
from hashlib import blake2b
from types import MappingProxyType
from typing import TYPE_CHECKING

from dql.cascades import cascades_of
from dql.errors import PlanError
from dql.planner.calls import CASCADED
from dql.planner.candidates import Draft, PricedCall
from dql.planner.contract import Contract
from dql.planner.early import Early, early
from dql.planner.guess import guessed
from dql.planner.physical import CallExec, InferExec, Placement, QueryPlan
from dql.planner.prompts import prompts
from dql.planner.sampling import changes_state
from dql.planner.statistics import Asked, CallStatistics, countable, infer_nodes
from dql.planner.workload import workload
from dql.prompts import CompiledPrompt
from dql.row_sums import RowSums

if TYPE_CHECKING:
    from dql.estimate import Surroundings

_WINDOWS = 0.5  # by how much rows asked about until a LIMIT may be off: a window is as large as all before it


def template_key(call: CallExec, model: str) -> str:
    """Names what decides how long a call's answers are: model, template and decoding."""
    text = repr((model, call.op, call.template, call.system, call.instruction, call.examples, call.type, call.decoding))
    return blake2b(text.encode(), digest_size=12).hexdigest()


def model_key(session: "Surroundings", name: str) -> str:
    """Names a model's files without reading them."""
    model = session.registry.resolve(name)
    return f"{model.name} {model.weight_bytes}"


def _run_of(node: InferExec, call: CallExec) -> str:
    """Names the calls of a node that its engine answers together with this one, which may be a cascade's and alone."""

    def engine(each: CallExec) -> tuple[str, str | None, str]:
        return each.model, each.draft, each.placement.weights

    alike = (c.out for c in node.calls if engine(c) == engine(call) and c.op != "count_tokens")
    return next(alike, call.out)


def questions(query: QueryPlan, statistics: Mapping[str, CallStatistics]) -> dict[CallExec, CallStatistics]:
    """What was counted, by what is asked; not of what is asked twice, perhaps about other rows."""
    nodes = [node for node in infer_nodes(query.root) if countable(node) is not None]
    calls = [call for node in nodes for call in node.calls if call.out in statistics]
    often = Counter(map(_question, calls))
    return {_question(c): statistics[c.out] for c in calls if often[_question(c)] == 1}


def _question(call: CallExec) -> CallExec:
    """A call without what tells its place in a plan, and what becomes of its answer."""
    kept = "" if call.op in CASCADED else call.type
    return replace(call, out="", label="", type=kept, details=False, guard=None, stage=None, placement=Placement())


def _is_later(call: CallExec) -> bool:
    """Whether it is asked where another model is unsure."""
    return call.stage is not None and call.stage.number > 0


class Tally:
    """Collects what is known of a query's calls, node by node, those that run first first.

    sums: of the query's rows. budget: seconds of counting, which the inputs share. known: what was counted of the same
    questions in another plan. answered: keys of prompts that have answers already, by column: what is left is told of
    these calls.
    statistics, notes, frames: as in `Estimate`.
    """

    def __init__(
        self,
        session: "Surroundings",
        sums: RowSums,
        contract: Contract,
        budget: float,
        known: Mapping[CallExec, CallStatistics] | None = None,
        answered: Mapping[str, Set[bytes]] = MappingProxyType({}),
    ) -> None:
        self.statistics: dict[str, CallStatistics] = {}
        self.notes: dict[str, str] = {}
        self.frames: dict[str, tuple[str, ...]] = {}
        self._session = session
        self._sums = sums
        self._contract = contract
        self._budget = budget
        self._known = known or {}
        self._answered = answered
        self._left: dict[str, CallStatistics] = {}  # counted without what is answered
        self._truncate = contract.setting("on_overflow") == "truncate_middle"
        self._calls: dict[str, CallExec] = {}
        self._runs: dict[str, str] = {}
        self._later: dict[str, tuple[CallExec, ...]] = {}  # cascades' other models by the first one's column
        self._all: dict[str, CallStatistics] = {}  # what these would be asked about all rows
        self._early: Mapping[str, Early] = {}
        self._before: InferExec | None = None
        self._compiled: dict[str, Sequence[CompiledPrompt]] = {}

    def count(self, query: QueryPlan, rows: int | None) -> None:
        """Count all of a query's calls; `rows`: what is counted stands for so many."""
        nodes = list(infer_nodes(query.root))
        self._early = early(query.root, self._passes(call for node in nodes for call in node.calls))
        self._later = {cascade.first.out: cascade.stages[1:] for cascade in cascades_of(query)}
        self._budget /= max(sum(countable(node) is not None for node in nodes), 1)
        for node in reversed(nodes):
            self._add(node)
        if rows is not None:
            self._scale(rows)
        for out, keys in self._answered.items():
            if out in self.statistics:
                self.statistics[out] = self._left.get(out) or self.statistics[out].rest(len(keys))

    def _add(self, node: InferExec) -> None:
        """Count a node's calls, or guess what they ask where that depends on calls below.

        What the first model of a cascade is asked the others are asked as well, in the same pass over the rows.
        """
        session = self._session
        missing = [c for c in node.calls if not session.registry.installed(c.model)]
        for c in missing:
            self.notes[c.out] = f"prompt tokens unknown: {c.model} is not here yet (dql models pull {c.model})"
        if missing:
            return
        own = [c for c in node.calls if not _is_later(c)]
        later = [stage for call in own for stage in self._later.get(call.out, ())]
        node = replace(node, calls=(*own, *(c for c in later if session.registry.installed(c.model))))
        asked = [c for c in node.calls if c.op != "count_tokens"]
        self._check_room(asked)
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
            self._learn({c.out: self._known[_question(c)] for c in asked}, asked)
        else:
            asking = partial(self._asked, node)
            cut, done = self._truncate, {c.out: self._answered[c.out] for c in asked if c.out in self._answered}
            counted = session.counts.of(node, asking, self._sums, self._budget, truncate=cut, answered=done)
            known = {c.out: s for c, s in zip(node.calls, counted.calls, strict=True) if c in asked}
            until = self._until_limit(known)
            self._learn(until, asked)
            left = zip(node.calls, counted.left, strict=True) if counted.left else ()
            self._left |= {c.out: s for c, s in left if c in asked and until[c.out] is known[c.out]}
        self._runs |= {c.out: _run_of(node, c) for c in asked}
        self._before = node

    def _learn(self, known: Mapping[str, CallStatistics], calls: Iterable[CallExec]) -> None:
        """Keep what is known of calls, by their columns."""
        for call in (c for c in calls if c.out in known):
            (self._all if _is_later(call) else self.statistics)[call.out] = known[call.out]
            self._calls[call.out] = call

    def _scale(self, rows: int) -> None:
        """Let the counted rows stand for so many: the largest call has `rows`, the others as many more."""
        most = max((s.without or s.rows for s in self.statistics.values()), default=0)
        for found in (self.statistics, self._all) if most else ():
            for out, s in found.items():
                if s.without:  # as many as the LIMIT takes, however many there are
                    found[out] = replace(s, without=round(s.without * rows / most))
                else:
                    found[out] = s.scaled(rows / most, s.sampled or s.rows)

    def priced(self) -> list[PricedCall]:
        """The calls whose statistics are known, as the search takes them."""
        return [self._priced(self._calls[out], statistics) for out, statistics in self.statistics.items()]

    def later(self, call: CallExec) -> PricedCall | None:
        """A later call of a cascade as if all rows reached it; None where nothing is known of these."""
        return self._priced(call, self._all[call.out]) if call.out in self._all else None

    def _asked(self, node: InferExec) -> list[Asked]:
        none: Set[bytes] = frozenset()
        return [
            Asked(self._compiled[c.out], self._most_tokens(c), self._truncate, self._answered.get(c.out, none))
            for c in node.calls
        ]

    def _passes(self, calls: Iterable[CallExec]) -> dict[str, float]:
        """The share of rows that filters let through when they last ran, by their columns."""
        history, session = self._session.history, self._session
        filters = [c for c in calls if c.type == "BOOLEAN" and session.registry.installed(c.model)]
        shares = {c.out: history.passed(template_key(c, model_key(session, c.model))) for c in filters}
        return {out: share for out, share in shares.items() if share is not None}

    def _until_limit(self, known: Mapping[str, CallStatistics]) -> dict[str, CallStatistics]:
        """What of the calls of a node is asked before a LIMIT above it is met; all of it without one."""
        most = max((s.rows for s in known.values()), default=0)
        found = dict(known)
        for out, counted in known.items():
            stop = self._early.get(out)
            if stop is not None and stop.rows < most:
                found[out] = counted.until(stop.rows / most, _WINDOWS if stop.known else 1.0)
        return found

    def _guess(self, node: InferExec, asked: Sequence[CallExec], before: InferExec | None) -> None:
        answers = {out: call.work.mean_output for out, call in ((c.out, c) for c in self.priced()) if call.work.decodes}
        found = guessed(node, self._compiled, self.statistics, answers, self._passes(self._calls.values()), before)
        self._learn(found, asked)
        guess, unknown = "are guessed: they depend on the inference below", "depend on the inference below"
        self.notes |= {call.out: f"rows and tokens {guess if call.out in found else unknown}" for call in asked}

    def _check_room(self, calls: Iterable[CallExec]) -> None:
        """Raise PlanError where answers alone may fill a model's context, so that no row could be asked about."""
        for call in calls:
            room = self._session.registry.resolve(call.model).shape.context_length
            if call.op == "generate" and call.decoding.max_tokens >= room:
                raise PlanError(
                    f"max_tokens = {call.decoding.max_tokens:,} leaves no room for a prompt: "
                    f"the model holds {room:,} tokens, prompt and answer together",
                    hint=f"WITH max_tokens = {room // 2}, or a model with a longer context",
                )

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
