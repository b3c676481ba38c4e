"""What was proven is found again for the very rows it was proven on, and looking for it takes EXPLAIN no long time."""

import json
from collections.abc import Callable
from typing import Any

import pyarrow as pa
import pytest

from tests.fake_session import FakeSession
from tests.session.test_cascades import cascade
from tests.session.test_precisions import QUERY, plan, quick
from tests.session.test_twofold import QUERY as LABELS
from tests.session.test_twofold import twofold

__all__ = ["cascade", "quick", "twofold"]


def explained(session: FakeSession, text: str) -> Any:
    (found,) = session.query(text).arrow().column(0).to_pylist()
    return json.loads(found)


def spied(monkeypatch: pytest.MonkeyPatch, name: str, real: Callable[..., Any]) -> list[tuple[Any, ...]]:
    """The arguments of each call of a function, by its place."""
    calls: list[tuple[Any, ...]] = []

    def spy(*args: Any) -> Any:
        calls.append(args)
        return real(*args)

    monkeypatch.setattr(name, spy)
    return calls


def test_rows_are_read_once_and_counted_once_for_all_that_is_weighed(
    twofold: FakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dql.catalog import Catalog
    from dql.planner.statistics import count_calls

    counted = spied(monkeypatch, "dql.counting.count_calls", count_calls)
    plan(twofold, f"EXPLAIN {LABELS}")
    assert len(counted) == 1
    twofold.query(LABELS).arrow()
    read = spied(monkeypatch, "dql.catalog.Catalog.stream", Catalog.stream)
    assert "calibrated on 288 random rows" in plan(twofold, f"EXPLAIN {LABELS}")
    assert len(read) == len({sql for _, sql, *_ in read}) == 2  # as they are, and with the cascade's guard


def test_all_models_of_a_cascade_are_counted_in_one_pass_and_not_again(
    session: FakeSession, cascade: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from dql.planner.statistics import count_calls

    counted = spied(monkeypatch, "dql.counting.count_calls", count_calls)
    first = explained(session, f"EXPLAIN (FORMAT json) {cascade}")
    ((node, *_),) = counted
    assert len(node.calls) == len(first["calls"]) == 2
    assert explained(session, f"EXPLAIN (FORMAT json) {cascade}") == first and len(counted) == 1


def test_the_time_for_counting_is_shared_by_all_inputs(session: FakeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    from dql.planner.statistics import BUDGET, count_calls

    session.catalog.register("t", pa.table({"body": ["a bug", "a joy"]}))
    label = "SELECT AI_CLASSIFY(body, ['bug', 'praise']) AS label FROM t"
    counted = spied(monkeypatch, "dql.counting.count_calls", count_calls)
    plan(session, f"EXPLAIN {label} UNION ALL {label.replace('body', 'body || body')}")
    assert [budget for *_, budget in counted] == [BUDGET / 2] * 2


def test_explain_that_has_no_time_to_compare_rows_says_so_and_the_run_compares(
    twofold: FakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    twofold.query(LABELS).arrow()
    asked = len(twofold.asked)
    monkeypatch.setattr("dql.estimate._NAMING", 0.0)
    monkeypatch.setattr("dql.counting._CHEAP", 0.0)  # so that nobody has read them to see whether they are as counted
    twofold.counts.clear()
    text = plan(twofold, f"EXPLAIN {LABELS}")
    assert "bf16 was tested against fp32 before; whether on these rows, the run finds out" in text
    assert "confidence: calibrated before; whether on these rows, the run finds out" in text
    assert len(twofold.asked) == asked
    assert "calibrated on 288 random rows" in plan(twofold, f"EXPLAIN ANALYZE {LABELS}")


@pytest.mark.parametrize(
    "kept",
    [
        [],
        {},
        {"proof": {"rows": 100, "estimate": 1.0, "bound": 1.0}, "floor": [0, 64], "divergence": None},
        {"proof": {"rows": 100, "estimate": 1.0, "bound": "1", "delta": 0.0}, "floor": [0, 64], "divergence": None},
        {"proof": {"rows": 100, "estimate": 1.0, "bound": float("nan"), "delta": 0.0}, "floor": [0, 64]},
        {"proof": {"rows": 100, "estimate": 1.0, "bound": 1.0, "delta": 0.0}, "floor": 64, "divergence": None},
        {"proof": {"rows": 100, "estimate": 1.0, "bound": 1.0, "delta": 0.0}, "floor": [0, 64]},
    ],
)
def test_a_certificate_with_other_fields_proves_nothing(quick: FakeSession, kept: object) -> None:
    quick.query(QUERY).arrow()
    assert "bf16 agrees with fp32 on 92 of 92" in plan(quick, f"EXPLAIN {QUERY}")
    (file,) = (quick.config.home / "certificates").glob("*.json")
    file.write_text(json.dumps(kept))
    assert "the run tests bf16 against fp32" in plan(quick, f"EXPLAIN {QUERY}")
    assert "bf16 agrees with fp32 on 92 of 92" in plan(quick, f"EXPLAIN ANALYZE {QUERY}")


def test_a_result_asks_no_model_before_its_rows_are_asked_for(session: FakeSession, cascade: str) -> None:
    result = session.query(cascade)
    assert "120 random rows" in result.explain()
    assert not session.asked and not result.interrupted
    assert result.stats().rows == len(result)
    assert session.asked
