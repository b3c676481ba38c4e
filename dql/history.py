"""What earlier runs took, kept per user: a SQLite file that many processes may write at once.

It answers two questions for the next plan: how long the answers of a template are, and by how much the cost model is
off for a model on this hardware.
"""

import json
import logging
import sqlite3
import statistics
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

_SCHEMA = """
CREATE TABLE IF NOT EXISTS runs (
    id INTEGER PRIMARY KEY, at REAL NOT NULL, query TEXT NOT NULL, model TEXT NOT NULL, hardware TEXT NOT NULL,
    plan TEXT NOT NULL, rows INTEGER NOT NULL, failed INTEGER NOT NULL, predicted REAL, give REAL,
    seconds REAL NOT NULL, bounds TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS calls (
    run INTEGER NOT NULL REFERENCES runs (id) ON DELETE CASCADE, template TEXT NOT NULL, model TEXT NOT NULL,
    hardware TEXT NOT NULL, decodes INTEGER NOT NULL, modelled REAL, seconds REAL NOT NULL, rows INTEGER NOT NULL,
    outputs TEXT NOT NULL, passed REAL, gains TEXT NOT NULL, guesses REAL NOT NULL, late REAL
);
CREATE INDEX IF NOT EXISTS calls_by_template ON calls (template);
CREATE INDEX IF NOT EXISTS calls_by_model ON calls (model, hardware, decodes);
"""
_VERSION = 4
_KEPT_RUNS = 10_000
_RECENT = 20  # calls that a refinement looks at
_LEAST_SECONDS = 1.0  # shorter calls say little of rates
LEAST_ROWS = 8  # fewer say little of lengths and of late ones
_LEAST_RUNS, _LATE = 5, 0.9  # calls that tell of late rows, and the quantile of them that counts
_FACTORS = (0.25, 4.0)
_WRITE_WAIT, _READ_WAIT = 10.0, 0.5  # seconds that another process may hold the file
_LOG = logging.getLogger("dql")


@dataclass(frozen=True, slots=True)
class CallRecord:
    """One call of a run. modelled: seconds that the cost model gives for what was really asked; outputs: quantiles;
    passed: the share of rows that a filter let through; gains: tokens that a pass drew, by row, as quantiles, () where
    none was guessed; guesses: tokens guessed in a pass; late: measured over predicted p95 latency of rows, None where
    that tells nothing.
    """

    template: str
    model: str
    hardware: str
    decodes: bool
    modelled: float | None
    seconds: float
    rows: int
    outputs: Sequence[float] = ()
    passed: float | None = None
    gains: Sequence[float] = ()
    guesses: float = 0.0
    late: float | None = None


@dataclass(frozen=True, slots=True)
class RunRecord:
    """One run. bounds: for each bound of its contract, as written: promised, measured, kept (None where unknown)."""

    query: str
    model: str
    hardware: str
    plan: str
    rows: int
    failed: int
    predicted: float | None
    give: float | None
    seconds: float
    bounds: Sequence[tuple[str, float | None, float | None, bool | None]] = ()
    calls: Sequence[CallRecord] = ()
    at: float = 0.0
    id: int = 0


class History:
    """The file is made on the first record; reading without one, or one that cannot be read, finds nothing."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._complained = False

    def record(self, run: RunRecord) -> None:
        """Keep a finished run; the oldest beyond ten thousand go, and those that another version of dql wrote."""
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with self._open(_WRITE_WAIT) as connection:
            if connection.execute("PRAGMA user_version").fetchone()[0] not in (0, _VERSION):
                connection.executescript("DROP TABLE IF EXISTS calls; DROP TABLE IF EXISTS runs;")
            connection.executescript(_SCHEMA)
            connection.execute(f"PRAGMA user_version = {_VERSION}")
            values = (run.query, run.model, run.hardware, run.plan, run.rows, run.failed, run.predicted, run.give)
            cursor = connection.execute(
                "INSERT INTO runs (at, query, model, hardware, plan, rows, failed, predicted, give, seconds, bounds)"
                " VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                (time.time(), *values, run.seconds, json.dumps(list(run.bounds))),
            )
            connection.executemany(
                "INSERT INTO calls VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
                [
                    (
                        cursor.lastrowid,
                        call.template,
                        call.model,
                        call.hardware,
                        call.decodes,
                        call.modelled,
                        call.seconds,
                        call.rows,
                        json.dumps(list(call.outputs)),
                        call.passed,
                        json.dumps(list(call.gains)),
                        call.guesses,
                        call.late,
                    )
                    for call in run.calls
                ],
            )
            connection.execute("DELETE FROM runs WHERE id <= ?", ((cursor.lastrowid or 0) - _KEPT_RUNS,))

    def outputs(self, template: str) -> tuple[float, ...] | None:
        """Answer lengths of the newest run of a template that answered enough rows, as quantiles."""
        found = self._select(
            "SELECT outputs FROM calls WHERE template = ? AND rows >= ? AND outputs <> '[]'"
            " ORDER BY rowid DESC LIMIT 1",
            (template, LEAST_ROWS),
        )
        return tuple(float(x) for x in json.loads(str(found[0][0]))) if found else None

    def gains(self, template: str) -> tuple[tuple[float, ...], float]:
        """Tokens that a pass drew by row, as quantiles, and tokens guessed in a pass, in the newest run of a template
        that guessed ahead; () and 0 where none did.
        """
        found = self._select(
            "SELECT gains, guesses FROM calls WHERE template = ? AND gains <> '[]' ORDER BY rowid DESC LIMIT 1",
            (template,),
        )
        return (tuple(json.loads(str(found[0][0]))), float(str(found[0][1]))) if found else ((), 0.0)

    def passed(self, template: str) -> float | None:
        """The share of rows that a filter let through in its newest run with enough rows."""
        found = self._select(
            "SELECT passed FROM calls WHERE template = ? AND rows >= ? AND passed IS NOT NULL"
            " ORDER BY rowid DESC LIMIT 1",
            (template, LEAST_ROWS),
        )
        return float(str(found[0][0])) if found else None

    def factor(self, model: str, hardware: str, *, decodes: bool) -> float:
        """Measured over modelled seconds: the median of recent calls, 1 where there were none.

        Short calls are told by what was modelled: of those that took long by mischance, most would else count.
        """
        found = self._select(
            "SELECT seconds / modelled FROM calls WHERE model = ? AND hardware = ? AND decodes = ?"
            " AND modelled >= ? ORDER BY rowid DESC LIMIT ?",
            (model, hardware, decodes, _LEAST_SECONDS, _RECENT),
        )
        if not found:
            return 1.0
        low, high = _FACTORS
        return min(max(statistics.median(float(str(row[0])) for row in found), low), high)

    def late(self, model: str, hardware: str, *, decodes: bool) -> float | None:
        """By what share the p95 latency of rows lay above its prediction in nine of ten recent calls; None where too
        few calls tell.
        """
        found = self._select(
            "SELECT late FROM calls WHERE model = ? AND hardware = ? AND decodes = ? AND late IS NOT NULL"
            " ORDER BY rowid DESC LIMIT ?",
            (model, hardware, decodes, _RECENT),
        )
        if len(found) < _LEAST_RUNS:
            return None
        usual = float(np.quantile([float(str(row[0])) for row in found], _LATE))
        return min(max(usual, 1.0), _FACTORS[1]) - 1

    def runs(self, limit: int = 100) -> list[RunRecord]:
        """The newest runs, newest first, without their calls."""
        found = self._select(
            "SELECT query, model, hardware, plan, rows, failed, predicted, give, seconds, bounds, at, id FROM runs"
            " ORDER BY id DESC LIMIT ?",
            (limit,),
        )
        return [_run(row) for row in found]

    def _select(self, sql: str, values: tuple[object, ...]) -> list[tuple[object, ...]]:
        try:
            if not self._path.exists():
                return []
            with self._open(_READ_WAIT) as connection:
                if connection.execute("PRAGMA user_version").fetchone()[0] != _VERSION:
                    return []
                return connection.execute(sql, values).fetchall()
        except (sqlite3.Error, OSError) as error:  # what earlier runs taught makes plans better, not possible
            if not self._complained:
                _LOG.warning("nothing is learned from earlier runs: %s: %s", self._path, error)
            self._complained = True
            return []

    @contextmanager
    def _open(self, wait: float) -> Iterator[sqlite3.Connection]:
        connection = sqlite3.connect(self._path, timeout=wait)
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            connection.execute("PRAGMA foreign_keys = ON")
            with connection:
                yield connection
        finally:
            connection.close()


def _run(row: tuple[object, ...]) -> RunRecord:
    query, model, hardware, plan, rows, failed, predicted, give, seconds, bounds, at, number = row
    return RunRecord(
        query=str(query),
        model=str(model),
        hardware=str(hardware),
        plan=str(plan),
        rows=int(str(rows)),
        failed=int(str(failed)),
        predicted=None if predicted is None else float(str(predicted)),
        give=None if give is None else float(str(give)),
        seconds=float(str(seconds)),
        bounds=[tuple(bound) for bound in json.loads(str(bounds))],
        at=float(str(at)),
        id=int(str(number)),
    )
