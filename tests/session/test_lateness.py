"""How late rows were in earlier runs, and the room that bounds on latency keep for it."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest

from dql.explaining import lateness
from dql.history import CallRecord, History, RunRecord
from dql.planner.candidates import PricedCall
from dql.planner.contract import Contract
from dql.planner.measured import Measured
from dql.planner.search import Choice, search
from dql.planner.workload import Workload
from tests.planner.fake_models import SHAPES, small_cpu


def test_the_room_for_late_rows_is_learnt_once_enough_runs_told(tmp_path: Path) -> None:
    history = History(tmp_path / "runs.db")
    for number, late in enumerate([1.0, 1.2, None, 0.8, 1.1, 1.3]):
        assert history.late("m", "h", decodes=True) is None, number
        call = CallRecord("t", "m", "h", True, 1.0, 1.0, 20, late=late)
        history.record(RunRecord("q", "m", "h", "", 20, 0, 1.0, 0.1, 1.0, [], [call]))
    assert history.late("m", "h", decodes=True) == pytest.approx(0.26)
    assert history.late("m", "h", decodes=False) is history.late("m", "h deterministic", decodes=True) is None


def test_how_late_rows_came_is_told_of_rows_that_ran_as_planned() -> None:
    work = Workload(40, 40, 0, (24.0,), outputs=(8.0,), longest_output=8)
    alone, other = PricedCall("a", "m", SHAPES["smollm2"], work), PricedCall("b", "m", SHAPES["smollm2"], work)
    choice = search([alone], small_cpu(), Contract())
    predicted = choice.best.calls[0].latency[2]

    def late(choice: Choice, share: float, rows: int = 40, changes: Sequence[str] = ()) -> float | None:
        found = Measured()
        for _ in range(rows):
            found.note(share * predicted, 0.1, 8)
        found.changes += changes
        return lateness(choice, "a", found)

    assert late(choice, 1.25) == pytest.approx(1.25, rel=0.02)
    assert late(choice, 0.8) == pytest.approx(0.8, rel=0.02)
    assert late(choice, 1.25, changes=["batch 8 → 4"]) == pytest.approx(1.25, rel=0.02)
    assert late(choice, 0.8, changes=["batch 8 → 10"]) is late(choice, 1.25, rows=7) is None
    assert late(search([alone, replace(other, run=alone.run)], small_cpu(), Contract()), 1.25) is None
    learnt = replace(alone, factors={"fp32": 1.25})  # what seconds are corrected by is no lateness
    assert late(search([learnt], small_cpu(), Contract()), 1.25) == pytest.approx(1.0, rel=0.02)
