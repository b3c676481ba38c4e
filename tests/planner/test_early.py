"""Rows that are asked about before a LIMIT is met, against windows played one by one."""

from dataclasses import replace
from itertools import count
from pathlib import Path

import pyarrow as pa
import pytest

from dql.errors import PlanError
from dql.planner.early import FIRST_ROWS, Early, early
from dql.planner.physical import (
    CallExec,
    ConditionExec,
    ConditionsExec,
    FragmentExec,
    InferExec,
    LimitExec,
    MapExec,
    SiftExec,
    StepExec,
)
from dql.planner.windows import WINDOW_ROWS
from tests.fake_session import FakeSession
from tests.planner.fake_models import small_cpu

CALL = CallExec("filter", (0,), True, ("h",), None, "_1", "BOOLEAN", "m")
SCAN = FragmentExec("SELECT * FROM t")


def played(rows: float) -> int:
    """What the executor's windows come to."""
    asked = 0
    for number in count():
        if asked >= rows:
            return asked
        asked += min(FIRST_ROWS << number, WINDOW_ROWS)
    raise AssertionError


@pytest.mark.parametrize("share", [1.0, 0.5, 0.03])
@pytest.mark.parametrize("wanted", [1, 16, 17, 1000, 9000])
def test_windows_go_on_until_enough_rows_pass(wanted: int, share: float) -> None:
    below = MapExec(InferExec(SCAN, (CALL,), True), "SELECT * FROM r WHERE _1", "r")
    found = early(LimitExec(below, wanted, 0), {"_1": share})
    assert found == {"_1": Early(played(wanted / share), True)}
    assert early(LimitExec(below, wanted, 0), {}) == {"_1": Early(played(wanted * 2), False)}
    assert early(LimitExec(below, None), {}) == early(below, {}) == {}
    assert early(FragmentExec("SELECT * FROM x", (("x", below),)), {}) == {}


def test_conditions_of_a_filter_and_limits_in_limits() -> None:
    second = replace(CALL, out="_2")
    parts = tuple(ConditionExec((StepExec("", "r", (call,)),), "", "r") for call in (CALL, second))
    sift = SiftExec(SCAN, ConditionsExec(parts), (), True)
    found = early(LimitExec(sift, 10, 5), {"_1": 0.5, "_2": 0.1})
    assert found == dict.fromkeys(("_1", "_2"), Early(played(300), True))
    assert early(LimitExec(LimitExec(sift, 1000), 3), {"_1": 0.5})["_2"] == Early(played(12), False)


@pytest.fixture
def large(session: FakeSession) -> FakeSession:
    """A session on a slow machine at a known price; `t` has 3,000 rows."""
    session.catalog.register("t", pa.table({"body": [f"text number {i}" for i in range(3000)]}))
    session.machine.path.parent.mkdir(parents=True)
    shape = session.registry.resolve(session.model).shape
    slow = replace(small_cpu(), peak={"fp32": 2e6})
    key = f"fp32 {shape.hidden_size}x{shape.query_size}x{shape.kv_size}x{shape.intermediate_size}"
    session.machine.path.write_text(replace(slow, operators={**slow.operators, key: slow.operators["fp32"]}).to_json())
    return session


def test_a_filter_under_a_limit_is_priced_for_the_rows_that_it_takes(large: FakeSession, tmp_path: Path) -> None:
    def explained(text: str) -> str:
        return "\n".join(str(line) for line in large.query(f"EXPLAIN {text}").arrow().column(0).to_pylist())

    filtered = "SELECT body FROM t WHERE AI_FILTER('{body} is even')"
    assert "rows 3,000 →" in explained(filtered)
    text = explained(f"{filtered} LIMIT 20")
    assert "rows ≈ 48 →" in text and "LIMIT ends the run after about so many of 3,000 rows" in text
    met = explained(f"{filtered} LIMIT 20 WITH deadline < 1ms")  # what is only guessed refuses nothing
    assert "met if as many rows pass" in met
    large.query(f"{filtered} LIMIT 400").arrow()  # from now on it is known what passes
    with pytest.raises(PlanError, match="no plan meets deadline"):
        explained(f"{filtered} LIMIT 20 WITH deadline < 1ms")
