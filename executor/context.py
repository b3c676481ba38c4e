"""What the operators of one query share: where data and engines come from, what went wrong, when to stop."""

import threading
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from dql.catalog import Catalog
from dql.errors import ExecutionError
from dql.executor.engine import Engine
from dql.executor.options import Counters
from dql.executor.progress import Tracker
from dql.executor.rejected import Rejected
from dql.executor.requests import Answer, Task
from dql.models import Model
from dql.planner.adapt import Adviser
from dql.planner.measured import Measured
from dql.planner.physical import ErrorPolicy, Placement

FIRST_CALLS = 100  # a job whose first calls all fail stops
_SHOWN = 5  # distinct messages kept per class


Asked = tuple[str, str, str, Task]  # model, precision of its weights and of its KV cache, and what is asked: all that
# decides the answer to a prompt
Kept = tuple[str, Asked]  # the column of a call's answers, and how it asks


def asked_as(model: str, placement: Placement, task: Task) -> Asked:
    """What a call's answers are remembered under."""
    return model, placement.weights, placement.kv_cache, task


class Models(Protocol):
    """Models by name: their files and tokenizers, and engines that hold their weights."""

    def model(self, name: str) -> Model: ...
    def engine(self, name: str, placement: Placement) -> Engine: ...
    def draft(self, name: str, placement: Placement, engine: Engine) -> Engine | None: ...


@dataclass
class Context:
    """One run of one query."""

    catalog: Catalog
    models: Models
    params: Mapping[str, object] = field(default_factory=dict)
    policy: ErrorPolicy = field(default_factory=ErrorPolicy)
    tracker: Tracker = field(default_factory=Tracker)
    cancelled: threading.Event = field(default_factory=threading.Event)
    tables: dict[str, str] = field(default_factory=dict)
    rejected: list[Rejected] = field(default_factory=list)
    memos: dict[Asked, dict[bytes, Answer]] = field(default_factory=dict)
    kept: dict[Kept, dict[bytes, Answer]] = field(default_factory=dict)
    ahead: dict[Kept, set[bytes]] = field(default_factory=dict)  # asked before the run, and not come up in it yet
    counts: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    measured: dict[str, Measured] = field(default_factory=dict)
    adviser: Adviser | None = None
    recall: Callable[[Asked], Mapping[bytes, Answer]] = lambda asked: {}  # what an earlier run that stopped answered
    token_budget: float | None = None
    spent: bool = False  # the budget is: rows that did not finish stay out

    def memo(self, model: str, placement: Placement, task: Task) -> dict[bytes, Answer]:
        """Answers of this query by prompt, for all calls that ask the same in the same way."""
        asked = asked_as(model, placement, task)
        if asked not in self.memos:
            self.memos[asked] = dict(self.recall(asked))
        return self.memos[asked]

    def instead(self, out: str, model: str, placement: Placement, task: Task) -> Mapping[bytes, Answer]:
        """Answers by prompt that the call with the column `out`, and no other, takes from a better one."""
        return self.kept.get((out, asked_as(model, placement, task)), {})

    def came(self, out: str, model: str, placement: Placement, task: Task, key: bytes) -> None:
        """Note that the call with the column `out` has come to a prompt."""
        self.ahead.get((out, asked_as(model, placement, task)), set()).discard(key)

    def asked_ahead(self, out: str) -> int:
        """Rows that the call with the column `out` was asked about before the run, and did not come to in it."""
        return max((len(keys) for (column, _), keys in self.ahead.items() if column == out), default=0)

    def reject(self, row: Rejected) -> None:
        """Note a failed row; raises ExecutionError when the policy says that the job must stop at it."""
        self.counts["failed"] += 1
        self.rejected.append(row)
        if self.policy.on_error == "fail":
            raise ExecutionError(f"row {row.row} has no {row.column}: {row.message}", hint=_policy_hint("on_error"))
        if isinstance(self.policy.limit, int) and self.counts["failed"] > self.policy.limit:
            self._stop()

    def check_share(self, done: bool) -> None:
        """Raise ExecutionError where a larger share of the calls failed than `reject_limit` allows.

        Called when all answers to a window are there, since failures come first; `done`: there are no more windows.
        """
        limit, calls = self.policy.limit, self.counts["calls"]
        if isinstance(limit, float) and (done or calls >= FIRST_CALLS) and self.counts["failed"] > limit * calls:
            self._stop()

    def _stop(self) -> None:
        message = f"{self.counts['failed']} rows failed; the first: {self.rejected[0].message}"
        raise ExecutionError(message, hint=_policy_hint("reject_limit"))

    def show(self, done: int, now: Counters, before: Counters) -> None:
        """Show progress: `done` rows of the running window, and the engine's counts since `before`."""
        counts = self.counts
        self.tracker.update(
            rows_done=self.rows + done,
            rows_failed=counts["failed"],
            calls_reused=counts["reused"],
            tokens_prefilled=counts["prefilled"] + now.prefilled - before.prefilled,
            tokens_reused=counts["shared"] + now.reused - before.reused,
            tokens_decoded=counts["decoded"] + now.decoded - before.decoded,
        )

    def add(self, now: Counters, before: Counters) -> None:
        """Add the engine's counts since `before` to the query's."""
        self.counts["shared"] += now.reused - before.reused
        for name in ("prefilled", "decoded", "forced", "proposed", "accepted"):
            self.counts[name] += getattr(now, name) - getattr(before, name)

    def messages(self) -> list[str]:
        """One line per class of failure with its count and first message."""
        by_kind: dict[str, list[Rejected]] = {}
        for row in self.rejected:
            by_kind.setdefault(row.kind, []).append(row)
        return [f"{len(rows)} × {kind}: {rows[0].message}" for kind, rows in by_kind.items()][:_SHOWN]

    def tokens_left(self) -> float | None:
        """Tokens that the run may still compute or draw; None where nobody set a budget."""
        if self.token_budget is None:
            return None
        return self.token_budget - self.counts["prefilled"] - self.counts["decoded"]

    def stop_spent(self) -> None:
        """End the run because its budget is spent; what is finished is kept."""
        self.spent = True
        self.cancelled.set()

    def close(self) -> None:
        """Forget the scratch tables."""
        for table in self.tables.values():
            self.catalog.drop(table)
        self.tables.clear()


def _policy_hint(setting: str) -> str:
    return {
        "on_error": "WITH on_error = 'null' keeps such rows as NULL and counts them",
        "reject_limit": "raise reject_limit, or look at the rows with .errors()",
    }[setting]
