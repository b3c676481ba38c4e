"""MAXIMIZE quality: the reference while it keeps the other bounds, else what agrees with it most on the user's rows."""

import json
from dataclasses import replace

import pyarrow as pa
import pytest

from dql.errors import PlanError
from dql.planner.hardware import from_json
from tests.fake_session import FakeSession
from tests.session.test_precisions import ROWS, plan, quick, table

__all__ = ["quick"]
ASKED = "SELECT AI_FILTER('{body} mentions bug') AS f FROM t WITH MAXIMIZE quality"


def tight(session: FakeSession) -> str:
    """The query with a deadline that the reference misses and bf16 keeps."""
    (found,) = session.query(f"EXPLAIN (FORMAT json) {ASKED}").arrow().column(0).to_pylist()
    return f"{ASKED}, deadline < {json.loads(found)['predicted']['seconds'] * 0.8:.3f}s"


def test_the_reference_answers_while_it_keeps_the_other_bounds(quick: FakeSession) -> None:
    text = plan(quick, f"EXPLAIN ANALYZE {ASKED}, quality >= 0.9, deadline < 1h")
    assert "fp32 weights" in text and "agrees" not in text
    assert len(quick.asked) == ROWS


@pytest.mark.parametrize("different", [0, ROWS // 2])
def test_where_a_bound_forbids_it_what_agrees_most_answers_and_says_how_often(
    quick: FakeSession, different: int
) -> None:
    table(quick, different)
    asked = tight(quick)
    before = plan(quick, f"EXPLAIN {asked}")
    assert "bf16 weights" in before and "the run tests bf16 against fp32 on 200 random rows\n" in before
    assert "of the precisions that keep the contract the one that agrees most answers" in before and quick.asked == []
    after = plan(quick, f"EXPLAIN ANALYZE {asked}")
    assert "bf16 weights" in after and "fp32 misses deadline" in after
    assert ("bf16 agrees with fp32 on 200 of 200 random rows" in after) == (not different)
    assert "keep the contract bf16 agrees most and answers" in plan(quick, f"EXPLAIN {asked}")


def test_all_that_may_answer_is_tested_on_as_many_rows(quick: FakeSession) -> None:
    path = quick.machine.path
    figures = from_json(path.read_text())
    operators = {**figures.operators, **{f"int8{k[4:]}": v for k, v in figures.operators.items() if k[:4] == "bf16"}}
    path.write_text(replace(figures, peak={**figures.peak, "int8": 5e7}, operators=operators).to_json())
    text = plan(quick, f"EXPLAIN ANALYZE {tight(quick)}")
    assert "bf16 agrees with fp32 on 200 of 200" in text and "int8 agrees with fp32 on 200 of 200" in text
    assert "bf16 weights" in text  # of two that agree as often the quicker one


def test_a_bound_on_quality_is_kept_too(quick: FakeSession) -> None:
    asked = f"{tight(quick)}, quality >= 0.95"
    assert "bf16 weights" in plan(quick, f"EXPLAIN ANALYZE {asked}")
    table(quick, ROWS // 4)
    with pytest.raises(PlanError, match=r"no plan meets deadline[\s\S]*bf16 agrees with fp32 on"):
        quick.query(asked).arrow()


def test_without_rows_that_tell_nothing_is_traded(quick: FakeSession) -> None:
    quick.catalog.register("t", pa.table({"body": [f"a bug {i}" for i in range(300)]}))
    with pytest.raises(PlanError, match="300 rows are too few to measure how often others agree on"):
        quick.query(tight(quick))
    assert quick.asked == []


def test_what_misses_the_bound_as_well_is_not_tested(quick: FakeSession) -> None:
    with pytest.raises(PlanError, match="nearest: fp32") as raised:
        quick.query(f"{ASKED}, deadline < 1ms")
    assert "tests" not in str(raised.value) and quick.asked == []


def test_what_is_pinned_stays(quick: FakeSession) -> None:
    text = plan(quick, f"EXPLAIN ANALYZE {ASKED}, quantization = 'bf16'")
    assert "bf16 (pinned) weights" in text and "agrees" not in text
