"""USING ANY: which model answers, and what must be proven before one that was not named first may."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from dql.errors import PlanError
from dql.session import Session
from tests.fake_session import FakeSession, NoHistory
from tests.models.tiny import TinySizes, tiny_model

pytestmark = pytest.mark.slow
ROWS = 2000
FILTER = "SELECT AI_FILTER('{body} mentions bug') AS f FROM t USING ANY (main, small)"
GENERATE = "SELECT AI_GENERATE('{body}') AS g FROM t USING ANY (main, small)"


@pytest.fixture
def two(session: FakeSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> FakeSession:
    """A session with `main` and a smaller model; on labels they agree, on texts never.

    Asking about a sample takes nothing of a deadline, however busy the machine.
    """
    monkeypatch.setattr("dql.executor.evidence.perf_counter", lambda: 0.0)
    session.query(f"CREATE MODEL main FROM '{session.model}'")
    small = tiny_model(tmp_path, TinySizes(layers=1, hidden=16), name="small.gguf")
    session.query(f"CREATE MODEL small FROM '{small}'")
    session.catalog.register("t", pa.table({"body": [f"a bug {i}" for i in range(ROWS)]}))
    return session


def plan(session: Session, text: str) -> str:
    return "\n".join(str(line) for line in session.query(text).arrow().column(0).to_pylist())


def test_the_cheapest_answers_where_no_quality_is_asked_for(two: FakeSession) -> None:
    text = plan(two, f"EXPLAIN {FILTER}")
    assert "quality: USING ANY: small of small " in text and "model small" in text
    assert two.query(GENERATE).arrow()["g"][0].as_py().startswith("small: ")
    assert "named first" in plan(two, f"EXPLAIN {FILTER} WITH MAXIMIZE quality")


def test_another_model_must_prove_itself_against_the_first(two: FakeSession) -> None:
    asked = f"{FILTER} WITH quality >= 0.95"
    text = plan(two, f"EXPLAIN {asked}")
    assert "the run tests small against main on " in text and "model main" in text and two.asked == []
    text = plan(two, f"EXPLAIN ANALYZE {asked}")
    assert "small agrees with main on 92 of 92 random rows, at least 0.95" in text and "model small" in text
    assert "main differs from itself in another batch on 0 of 64" in text
    before = len(two.asked)
    two.query(asked).arrow()
    assert len(two.asked) - before == ROWS  # what was proven is remembered


def test_a_model_that_answers_otherwise_is_given_up(two: FakeSession) -> None:
    asked = f"{GENERATE} WITH quality >= 0.95"
    text = plan(two, f"EXPLAIN ANALYZE {asked}")
    assert "small agrees with main on 0 of 92 random rows" in text and "main answers" in text
    assert two.query(asked).arrow()["g"][0].as_py().startswith("main: ")


@pytest.mark.slow
def test_texts_are_all_those_of_the_model_that_answers(two: FakeSession) -> None:
    """The first model's tokens would be read in the other's vocabulary: sampled rows do not take them over."""
    two.catalog.register("t", pa.table({"body": [f"{'roughly ' * (i % 20 == 0)}a bug {i}" for i in range(ROWS)]}))
    two.query(GENERATE).arrow()
    small = two.engine("small")
    small.speaker, small.exact = "main: ", False  # says Roughly for roughly, else what main says
    answers = two.query(f"{GENERATE} WITH quality >= 0.8").arrow()["g"].to_pylist()
    assert sum("Roughly" in answer for answer in answers) == ROWS // 20


def test_a_small_table_is_not_worth_a_test(two: FakeSession) -> None:
    two.catalog.register("t", pa.table({"body": ["a bug"] * 30}))
    text = plan(two, f"EXPLAIN ANALYZE {FILTER} WITH quality >= 0.95")
    assert "main answers" in text and "model main" in text


def test_a_bound_on_speed_that_only_another_model_can_keep(two: FakeSession) -> None:
    asked = f"{FILTER} WITH quality >= 0.95"
    tight = hasty(two, asked)
    text = plan(two, f"EXPLAIN {tight}")
    assert "the run tests small against main" in text and "model small" in text
    assert "model small" in plan(two, f"EXPLAIN ANALYZE {tight}")


def hasty(session: FakeSession, asked: str, rows: int = ROWS) -> str:
    """The query with a throughput that `main` misses and `small` keeps, however long measuring takes."""
    (found,) = session.query(f"EXPLAIN (FORMAT json) {asked}").arrow().column(0).to_pylist()
    predicted = json.loads(found)["predicted"]
    return f"{asked}, throughput >= {rows / 0.95 / (predicted['seconds'] + predicted['give']):.3f} rows/s"


@pytest.mark.parametrize(("best", "worse"), [("small", "third"), ("third", "small")])
def test_where_the_first_misses_a_bound_what_agrees_with_it_most_answers(
    two: FakeSession, tmp_path: Path, best: str, worse: str
) -> None:
    """Of two that are quick enough one is wrong about some rows; the other is taken, wherever it was named."""
    two.history = NoHistory(two.config.runs_file)
    third = tiny_model(tmp_path, TinySizes(layers=1, hidden=16, seed=1), name="third.gguf")
    two.query(f"CREATE MODEL third FROM '{third}'")
    two.query(f"SELECT AI_FILTER('a bug', model => '{worse}') AS f").arrow()
    two.engine(worse).exact = False
    two.catalog.register("t", pa.table({"body": [f"a bug {'' if i % 9 else 'roughly '}{i}" for i in range(ROWS)]}))
    asked = f"{FILTER.replace('small', 'small, third')} WITH MAXIMIZE quality"
    assert "USING ANY: main, named first" in plan(two, f"EXPLAIN {asked}")
    tight, before = hasty(two, asked), len(two.asked)
    text = plan(two, f"EXPLAIN {tight}")
    assert "the run tests small against main on 200 random rows" in text and "the one that agrees most answers" in text
    assert len(two.asked) == before
    text = plan(two, f"EXPLAIN ANALYZE {tight}")
    assert f"model {best}" in text and f"keep the contract {best} agrees most and answers" in text
    assert f"{best} agrees with main on 200 of 200 random rows" in text and "main misses throughput" in text


def test_where_rows_cannot_tell_the_first_is_not_traded(two: FakeSession) -> None:
    two.catalog.register("t", pa.table({"body": [f"a bug {i}" for i in range(300)]}))
    with pytest.raises(PlanError, match="300 rows are too few to measure how often others agree on"):
        two.query(hasty(two, f"{FILTER} WITH MAXIMIZE quality", rows=300))
    assert two.asked == []


def test_what_no_model_keeps_fails_before_any_call(two: FakeSession) -> None:
    with pytest.raises(PlanError, match="no plan meets deadline"):
        two.query(f"{FILTER} WITH quality >= 0.95, deadline < 1ms")
    assert two.asked == []
