"""One model at two precisions: where a lower one alone misses the bound, it answers the rows of which it is sure."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from benchmarks.dealt import Table
from benchmarks.quality_twofold import CASES, ONE, dealt, honest
from dql.errors import PlanError
from tests.fake_session import FakeSession, quick_below
from tests.session.test_precisions import plan, quick

__all__ = ["quick"]
ROWS = 1500
TOPIC = "AI_CLASSIFY(body, ['bug', 'praise'])"
QUERY = f"SELECT {TOPIC} AS topic FROM t WITH quality >= 0.95"


@pytest.fixture
def twofold(quick: FakeSession) -> FakeSession:
    """In bf16 the model is in doubt about a sixth of the rows of `t`, and wrong there; it is so quick that few rows
    pay for finding out."""
    quick_below(quick, "bf16", times=100)
    doubts(quick, 6)
    return quick


def doubts(session: FakeSession, every: int) -> None:
    texts = [f"a bug {'' if i % every else 'roughly '}{i}" for i in range(ROWS)]
    session.catalog.register("t", pa.table({"body": texts}))


def test_a_precision_that_misses_the_bound_answers_where_it_is_sure(twofold: FakeSession) -> None:
    text = plan(twofold, f"EXPLAIN ANALYZE {QUERY}")
    assert text.count("bf16 weights") == text.count("fp32 weights") == 1
    assert "bf16 agrees with fp32 on " in text and "fp32 answers" not in text
    assert "bf16 first, fp32 where it is unsure: ≥ 95 % of the answers are those of " in text
    assert "in fp32, at 95 % confidence: calibrated on 288 random rows, of which 0 differed" in text
    assert "cascade: believed from a confidence of 0.6" in text
    result = twofold.query(QUERY)
    assert set(result.arrow()["topic"].to_pylist()) == {"bug"}
    assert result.stats().calls_saved == ROWS * 5 // 6


@pytest.mark.slow
def test_a_proof_is_remembered_and_explained(twofold: FakeSession) -> None:
    before = plan(twofold, f"EXPLAIN {QUERY}")
    assert "bf16 first, fp32 where it is unsure: " in before and "calibrates on about 288 random rows" in before
    assert before.count("weights") == 1 and twofold.asked == []
    twofold.query(QUERY).arrow()
    asked = len(twofold.asked)
    after = plan(twofold, f"EXPLAIN {QUERY}")
    assert "calibrated on 288 random rows" in after and after.count("bf16 weights") == 1
    (found,) = twofold.query(f"EXPLAIN (FORMAT json) {QUERY}").arrow().column(0).to_pylist()
    placed = [call["placement"]["weights"] for call in json.loads(found)["calls"].values() if call["placement"]]
    assert sorted(placed) == ["bf16", "fp32"]
    twofold.query(QUERY).arrow()
    assert len(twofold.asked) - asked == ROWS + ROWS // 6


def test_what_is_proven_as_a_whole_is_not_asked_twice(twofold: FakeSession) -> None:
    doubts(twofold, ROWS)
    text = plan(twofold, f"EXPLAIN ANALYZE {QUERY}")
    assert "bf16 weights" in text and "fp32 weights" not in text


def test_one_that_is_sure_of_wrong_answers_is_not_taken(twofold: FakeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.fake_session.DOUBTFUL", 0.9)
    text = plan(twofold, f"EXPLAIN ANALYZE {QUERY}")
    assert "bf16 weights" not in text and "fp32 answers" in text
    assert "of which 0 differed, but too few rows are spared to pay" in text
    assert set(twofold.query(QUERY).arrow()["topic"].to_pylist()) == {"bug"}


@pytest.mark.slow
def test_rows_that_reach_it_through_a_filter(twofold: FakeSession) -> None:
    """The filter and what is asked above it are two cascades; rows come through the first as the reference has it."""
    query = f"SELECT {TOPIC} AS topic FROM t WHERE AI_FILTER('{{body}} mentions bug') WITH quality >= 0.95"
    text = plan(twofold, f"EXPLAIN ANALYZE {query}")
    assert text.count("bf16 weights") == text.count("fp32 weights") == 2
    assert twofold.query(query).arrow()["topic"].to_pylist() == ["bug"] * ROWS


def test_calls_that_do_not_know_how_sure_they_are_keep_the_reference(twofold: FakeSession) -> None:
    text = plan(
        twofold, f"EXPLAIN ANALYZE SELECT {TOPIC} AS topic, AI_SCORE(body, 1, 5) AS s FROM t WITH quality >= 0.95"
    )
    assert text.count("bf16 weights") == 1 and text.count("fp32 weights") == 2


def test_pinned_precisions_are_obeyed(twofold: FakeSession) -> None:
    text = plan(twofold, f"EXPLAIN ANALYZE {QUERY}, quantization = 'fp32'")
    assert "bf16 weights" not in text
    with pytest.raises(PlanError, match=r"no plan meets quality >= 0\.95"):
        twofold.query(f"{QUERY}, quantization = 'bf16'").arrow()


def test_a_deadline_that_only_two_precisions_can_keep(twofold: FakeSession) -> None:
    (found,) = twofold.query(f"EXPLAIN (FORMAT json) {QUERY}").arrow().column(0).to_pylist()
    predicted = json.loads(found)["predicted"]
    tight = f"{QUERY}, deadline < {(predicted['seconds'] + predicted['give']) * 0.97:.3f}s"
    assert "bf16 weights" in plan(twofold, f"EXPLAIN {tight}")
    assert plan(twofold, f"EXPLAIN ANALYZE {tight}").count(" weights") == 2


@pytest.mark.slow
def test_what_is_simulated_of_promises_is_what_queries_do(tmp_path: Path) -> None:
    """benchmarks.quality looks up what a run would answer; with NULLs and duplicates, the run answers just that."""
    random = np.random.default_rng(1)
    (case,) = (replace(case, wrong=honest) for case in CASES if case.name == "NULLs and duplicates, 0.948, silent")
    with Table(tmp_path, case.texts(random)) as table:
        truths = dealt(random, case, table.rows)
        trial = table.tried(table.planned(ONE), truths)
        answers = [row["f"] for row in table.answered(ONE, truths)]
    assert trial.way == "bf16 first" and 0.95 < trial.agreement < 1 and 0 < trial.asked < 1
    known = [answer for answer in answers if answer is not None]
    assert len(answers) > len(known) == table.rows.sum()
    assert sum(answer is True for answer in known) / len(known) == trial.agreement
