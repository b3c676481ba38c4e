"""What the operators of one query share: where data and engines come from, what went wrong, when to stop."""

import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Protocol

from dql.catalog import Catalog
from dql.errors import ExecutionError
from dql.executor.engine import Engine
from dql.executor.options import Counters
from dql.executor.progress import Tracker
from dql.models import Model
from dql.planner.physical import ErrorPolicy

_FIRST_CALLS = 100  # a job whose first calls all fail stops
_SHOWN = 5  # distinct messages kept per class


@dataclass(frozen=True, slots=True)
class Rejected:
    """A row without an answer: which column, why, and whether a retry can help. `row` counts the stage's input."""

    row: int
    column: str
    kind: str
    message: str
    retryable: bool


class Models(Protocol):
    """Models by name: their files and tokenizers, and engines that hold their weights."""

    def model(self, name: str) -> Model: ...
    def engine(self, name: str) -> Engine: ...


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
    counts: Counter[str] = field(default_factory=Counter)
    rows: int = 0
    batch_size: int | None = None

    def reject(self, row: Rejected) -> None:
        """Count a failed row; raises ExecutionError when the policy says that the job must stop."""
        self.counts["failed"] += 1
        self.rejected.append(row)
        policy, failed, calls = self.policy, self.counts["failed"], self.counts["calls"]
        if policy.on_error == "fail":
            raise ExecutionError(f"row {row.row} has no {row.column}: {row.message}", hint=_policy_hint("on_error"))
        over_count = isinstance(policy.limit, int) and failed > policy.limit
        over_share = isinstance(policy.limit, float) and calls >= _FIRST_CALLS and failed > policy.limit * calls
        if over_count or over_share:
            raise ExecutionError(f"{failed} rows failed; the first: {row.message}", hint=_policy_hint("reject_limit"))
        if failed == calls == _FIRST_CALLS:
            raise ExecutionError(f"the first {calls} calls all failed: {row.message}")

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
        self.counts["prefilled"] += now.prefilled - before.prefilled
        self.counts["shared"] += now.reused - before.reused
        self.counts["decoded"] += now.decoded - before.decoded

    def messages(self) -> list[str]:
        """One line per class of failure with its count and first message."""
        by_kind: dict[str, list[Rejected]] = {}
        for row in self.rejected:
            by_kind.setdefault(row.kind, []).append(row)
        return [f"{len(rows)} × {kind}: {rows[0].message}" for kind, rows in by_kind.items()][:_SHOWN]

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
