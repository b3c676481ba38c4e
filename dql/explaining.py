"""EXPLAIN in its forms, and what is kept of a run when it is over."""

import json
import logging
import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

import numpy as np

from dql.errors import BindError, DqlError, UnsupportedError, name_hint
from dql.estimate import Estimate, Surroundings, estimate, hardware_key
from dql.grammar import ast
from dql.history import LEAST_ROWS, CallRecord, RunRecord
from dql.planner.candidate_table import COLUMNS, table
from dql.planner.candidates import PricedCall
from dql.planner.explain import Explanation, promises
from dql.planner.explain import explain as explain_plan
from dql.planner.explain_cost import Promise
from dql.planner.explain_json import as_json
from dql.planner.hardware import hardware_named
from dql.planner.measured import Measured
from dql.planner.placing import placement
from dql.planner.plan import Planned
from dql.planner.search import Choice
from dql.planner.simulate import PERCENTILES, Played, simulate
from dql.planner.statistics import infer_nodes
from dql.planner.step_model import StepModel
from dql.result import Result, rows
from dql.tally import model_key, template_key

if TYPE_CHECKING:
    from dql.executor.runtime import Run

FORMATS = ("text", "json")
_LOG = logging.getLogger("dql")
_QUERY_TEXT = 2_000  # characters of a query that the history keeps

Start = Callable[[], tuple["Run", Estimate]]


def explain(
    statement: ast.Explain,
    planned: Planned,
    session: Surroundings,
    params: Mapping[str, object],
    start: Start,
) -> Result:
    """The result of an EXPLAIN. `start` begins the query's run, for ANALYZE."""
    wanted = _format(statement)
    on = None if statement.on is None else statement.on.value
    if statement.on is not None:
        _check_hardware(statement.on)
    rows_asked = _rows(statement)
    if statement.analyze and (on is not None or rows_asked is not None):
        what = "other hardware" if on is not None else "other rows"
        raise BindError(f"EXPLAIN ANALYZE runs here, not on {what}", span=statement.span, hint="leave out ON and ROWS")
    if statement.candidates:
        found = estimate(planned, session, params, on=on, rows=rows_asked, strict=False)
        return rows(COLUMNS, [] if found.choice is None else table(found.choice), "query")
    if statement.analyze:
        run, found = start()
        run.unfinished = None  # its rows go nowhere, so that what is answered of them stays as it is
        for _ in run.batches():
            pass
        if run.interrupted:
            raise KeyboardInterrupt
        explanation = explanation_of(found, run.context.measured, run.seconds)
    else:
        explanation = explanation_of(estimate(planned, session, params, on=on, rows=rows_asked))
    if wanted == "json":
        return rows([("plan", "VARCHAR")], [(json.dumps(as_json(explanation), indent=2),)], "explain")
    text = explain_plan(explanation, statement.rewrites)
    return rows([("plan", "VARCHAR")], [(line,) for line in text.splitlines()], "explain")


def _check_hardware(on: ast.String) -> None:
    try:
        hardware_named(on.value)
    except DqlError as error:
        error.span = on.span
        raise


def _rows(statement: ast.Explain) -> int | None:
    """The rows that the counted ones are to stand for."""
    if statement.rows is None:
        return None
    asked = float(statement.rows.number.replace("_", ""))
    if asked < 1 or asked != int(asked):
        raise BindError(
            "ROWS is a whole number of rows, at least 1", span=statement.rows.span, hint="write ROWS 1000000"
        )
    return int(asked)


def _format(statement: ast.Explain) -> str:
    if statement.format is None:
        return "text"
    wanted = statement.format.text.lower()
    if wanted == "html":
        hint = "the formats are text, as without FORMAT, and json: write EXPLAIN (FORMAT json) …"
        raise UnsupportedError("EXPLAIN (FORMAT html) does not run yet", span=statement.format.span, hint=hint)
    if wanted not in FORMATS:
        hint = name_hint(wanted, FORMATS)
        raise BindError(f"EXPLAIN has no format {statement.format.text}", span=statement.format.span, hint=hint)
    return wanted


def explanation_of(
    found: Estimate, measured: Mapping[str, Measured] | None = None, seconds: float | None = None
) -> Explanation:
    """All that EXPLAIN prints of a query; `measured` and `seconds` of its run."""
    planned = found.planned
    return Explanation(
        planned.logical,
        planned.applied,
        planned.contract if found.choice is None else found.choice.contract,
        found.statistics,
        found.notes,
        found.frames,
        planned.tables,
        found.choice,
        measured or {},
        seconds,
        found.quality,
        found.kind,
        found.answered,
    )


def judged(run: "Run", found: Estimate) -> list[Promise]:
    """What was promised for each bound, and what became of it."""
    return promises(explanation_of(found, run.context.measured, run.seconds))


def remember(run: "Run", found: Estimate, session: Surroundings, text: str) -> None:
    """Keep what a finished run took beside what was predicted; a run without calls, or cut short, teaches nothing."""
    measured = run.context.measured
    calls = [call for node in infer_nodes(found.planned.query.root) for call in node.calls if call.out in measured]
    if run.interrupted or not any(m.distinct for m in measured.values()):
        return
    choice = found.choice
    hardware = session.machine.hardware() if choice is None else choice.hardware
    kept, place = judged(run, found), placement(found.planned.contract, choice, found.kind)
    record = RunRecord(
        query=text[:_QUERY_TEXT],
        model=", ".join(dict.fromkeys(call.model for call in calls)),
        hardware=str(hardware),
        plan="" if choice is None else json.dumps(asdict(choice.best.placement)),
        rows=run.rows,
        failed=run.context.counts["failed"],
        predicted=None if choice is None else choice.best.cost.seconds,
        give=None if choice is None else choice.best.cost.give,
        seconds=run.seconds,
        bounds=[(str(p.bound), p.predicted, p.measured, p.kept) for p in kept],
        calls=[
            CallRecord(
                template=template_key(call, key := model_key(session, call.model)),
                model=key,
                hardware=hardware_key(
                    hardware,
                    (call.stage and call.stage.weights) or place.weights,
                    deterministic=place.deterministic,
                ),
                decodes=call.op == "generate",
                modelled=modelled(choice, call.out, measured[call.out]),
                seconds=measured[call.out].seconds,
                rows=measured[call.out].distinct,
                outputs=measured[call.out].outputs if call.op == "generate" else (),
                gains=measured[call.out].gains,
                guesses=measured[call.out].guesses,
                passed=measured[call.out].passed,
                late=lateness(choice, call.out, measured[call.out]),
            )
            for call in calls
        ],
    )
    try:
        session.history.record(record)
    except (sqlite3.Error, OSError) as error:  # the rows are there; that nobody learns from them is no reason to fail
        _LOG.warning("the run is not in the history: %s", error)


def modelled(choice: Choice | None, out: str, measured: Measured) -> float | None:
    """Seconds that the cost model gives for the rows and lengths that came: the rest is the model's own error."""
    call = next((c for c in choice.calls if c.out == out), None) if choice is not None else None
    return None if choice is None or call is None else _played(choice, call, measured).seconds


def lateness(choice: Choice | None, out: str, measured: Measured) -> float | None:
    """Measured over predicted seconds of the row at p95, of rows that ran as planned, for the lengths that came.

    None where it tells nothing: of calls that shared their run, of few rows, and where the run changed its sizes while
    rows were in time, since those that come first are the quick ones.
    """
    call = next((c for c in choice.calls if c.out == out), None) if choice is not None else None
    as_planned = measured.latencies[: measured.planned]
    if (
        choice is None
        or call is None
        or len(as_planned) < LEAST_ROWS
        or sum(c.run == call.run for c in choice.calls) > 1
    ):
        return None
    predicted = _played(choice, call, measured).latency[PERCENTILES.index("p95")]
    late = float(np.percentile(as_planned, 95)) / max(predicted * call.factor(choice.place(out).weights), 1e-9)
    return None if measured.changes and late < 1 else late


def _played(choice: Choice, call: PricedCall, measured: Measured) -> Played:
    """The simulated run of the rows and lengths that came."""
    work = call.work.as_run(measured.distinct, measured.outputs, measured.turns, measured.guesses)
    return simulate(StepModel(choice.hardware, call.shape, choice.place(call.out)), work)
