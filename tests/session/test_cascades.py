"""Cascades as a user sees them: what is promised before and after, what is asked, what is remembered."""

import json
from pathlib import Path

import pyarrow as pa
import pytest

from dql.session import Session
from tests.fake_session import FakeSession, choose
from tests.models.tiny import TinySizes, tiny_model

pytestmark = pytest.mark.slow
ROWS = 600
DOUBTS = [f"perhaps a bug {i}" if i % 3 == 0 else f"a bug {i}" for i in range(ROWS)]


@pytest.fixture
def cascade(session: FakeSession) -> str:
    """A query; its first model is in doubt about a third of the rows, and wrong there."""
    session.catalog.register("t", pa.table({"body": DOUBTS}))
    return f"SELECT AI_CLASSIFY(body, ['bug', 'praise']) AS topic FROM t USING CASCADE (other, '{session.model}')"


def plan(session: Session, text: str) -> str:
    return "\n".join(str(line) for line in session.query(text).arrow().column(0).to_pylist())


def test_explain_promises_and_asks_nothing(session: FakeSession, cascade: str) -> None:
    text = plan(session, f"EXPLAIN {cascade}")
    assert "≥ 95 % of the answers are those of" in text and "the run calibrates on about 120 random rows" in text
    assert "cascade: believed once it is calibrated" in text and "taken as 30 % of the rows" in text
    assert "no lossy choice" not in text and "dql_sure" not in text
    assert session.asked == []


def test_a_run_says_what_it_rests_on(session: FakeSession, cascade: str) -> None:
    text = plan(session, f"EXPLAIN ANALYZE {cascade}")
    assert "at 95 % confidence: calibrated on 120 random rows, of which 0 differed" in text
    assert "cascade: believed from a confidence of 0.6" in text
    stats = session.query(cascade).stats()
    assert stats.calls_saved == stats.rows * 2 // 3 and stats.nulls == 0
    assert set(session.query(cascade).arrow()["topic"].to_pylist()) == {"bug"}


def test_the_quality_bound_is_the_promise(session: FakeSession, cascade: str) -> None:
    asked = f"{cascade} WITH quality >= 0.9 CONFIDENCE 0.99"
    (found,) = session.query(f"EXPLAIN (FORMAT json) {asked}").arrow().column(0).to_pylist()
    bound = json.loads(found)["bounds"][0]
    assert bound["bound"] == "quality >= 0.9" and json.loads(found)["quality"][0].startswith("≥ 90 %")
    text = plan(session, f"EXPLAIN ANALYZE {asked}")
    assert "bound quality >= 0.9: ≥ 90 % of the answers" in text and "at 99 % confidence" in text
    strict = plan(session, f"EXPLAIN {cascade} WITH quality >= 0.999")
    assert "answers all rows: 600 rows are too few to calibrate 0.999 at 95 % on" in strict


def test_proofs_are_remembered_for_the_same_rows_alone(session: FakeSession, cascade: str) -> None:
    def asked() -> int:
        before = len(session.asked)
        session.query(cascade).arrow()
        return len(session.asked) - before

    first = asked()
    assert asked() == ROWS + ROWS // 3 < first
    assert "calibrated on 120 random rows" in plan(session, f"EXPLAIN {cascade}")
    session.catalog.register("t", pa.table({"body": [f"{text}!" for text in DOUBTS]}))
    assert "the run calibrates" in plan(session, f"EXPLAIN {cascade}")
    assert asked() == first


def test_rows_that_another_call_lets_through_are_sampled_through_it(session: FakeSession, cascade: str) -> None:
    above = cascade.replace("FROM t", "FROM t WHERE AI_FILTER('{body} mentions perhaps', model => 'other') IS NOT NULL")
    assert "the run calibrates on about " in plan(session, f"EXPLAIN {above}")
    text = plan(session, f"EXPLAIN ANALYZE {above}")
    assert text.count("cascade: believed from a confidence of 0.6") == 1 and "of which 0 differed" in text
    before = len(session.asked)
    assert set(session.query(above).arrow()["topic"].to_pylist()) == {"bug"}
    assert len(session.asked) - before == ROWS + ROWS + ROWS // 3  # the filter, one model, the other in doubt


def test_what_cannot_be_sampled_goes_to_the_last_model(session: FakeSession, cascade: str) -> None:
    some = "(SELECT body FROM t WHERE AI_FILTER('{body} mentions bug') ORDER BY body LIMIT 500)"
    below = cascade.replace("FROM t", f"FROM {some}")
    assert "answers all rows: its rows cannot be sampled before the run" in plan(session, f"EXPLAIN {below}")
    assert set(session.query(below).arrow()["topic"].to_pylist()) == {"bug"}


def test_models_that_are_not_here_yet_are_explained(session: FakeSession, cascade: str) -> None:
    """Also where something was proven of others, and where only the tokenizer of a model is needed."""
    plan(session, f"EXPLAIN ANALYZE {cascade}")
    assert "the run calibrates on about" in plan(session, f"EXPLAIN {cascade.replace('other', 'smollm2')}")
    tokens = plan(session, "EXPLAIN SELECT AI_COUNT_TOKENS(body, model => 'smollm2') AS n FROM t")
    assert "smollm2 is not here yet" in tokens


def test_an_endless_input_is_not_too_short(session: FakeSession, cascade: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dql.estimate.BUDGET", 0.02)
    endless = cascade.replace("body", "i").replace("FROM t", "FROM range(10_000_000_000_000) r(i)")
    assert "the run calibrates on about" in plan(session, f"EXPLAIN {endless} WITH quality >= 0.999")


def test_other_rows_are_priced_for_all_models(session: FakeSession, cascade: str) -> None:
    """The last model's calls grow with the rows that the first one's stand for."""

    def seconds(text: str) -> list[float]:
        (found,) = session.query(text).arrow().column(0).to_pylist()
        return [call["predicted"]["seconds"] for call in json.loads(found)["calls"].values()]

    few, many = seconds(f"EXPLAIN (FORMAT json) {cascade}"), seconds(f"EXPLAIN (FORMAT json, ROWS 6000000) {cascade}")
    assert len(few) == 2 and all(1000 < after / before < 100_000 for before, after in zip(few, many, strict=True))


def test_a_sample_keeps_the_last_models_answers(session: FakeSession, cascade: str) -> None:
    """A first model that is wrong about one row in a hundred: where that row was sampled it is answered rightly."""
    texts = ["perhaps a bug" if i % 100 == 0 else f"a bug {i}" for i in range(ROWS)]
    session.catalog.register("t", pa.table({"body": texts}))
    answers = session.query(cascade).arrow()["topic"].to_pylist()
    assert answers.count("praise") in (0, ROWS // 100)  # they are one prompt: all are right or none is


@pytest.mark.parametrize("sure", [True, False])
@pytest.mark.parametrize("models", ["other", "other, third"])
def test_what_is_spared_is_what_the_last_model_was_not_asked(
    session: FakeSession, cascade: str, models: str, sure: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """However many models come before it, and whether sampled rows come to it in the run as well."""
    session.query(f"CREATE MODEL third FROM '{session.model}'")
    session.query("SELECT AI_CLASSIFY('a bug', ['bug', 'praise'])").arrow()
    last = session.engine(session.model)
    monkeypatch.setattr(last, "chosen", lambda text, labels: (choose(text, labels), 0.9 if sure else 0.55))
    before = len(last.asked)
    stats = session.query(cascade.replace("other", models)).stats()
    assert stats.calls_saved == ROWS - (len(last.asked) - before) and 0 < stats.calls_saved < ROWS


def test_stopping_ends_the_calibration(session: FakeSession, cascade: str) -> None:
    with pytest.raises(KeyboardInterrupt):
        session.query(cascade, progress=lambda _: session.cancel()).arrow()
    assert len(session.asked) < 120


def test_what_a_cascade_keeps_is_no_other_calls_answer(session: FakeSession, cascade: str) -> None:
    """The same question to the first model alone gets that model's answers, on sampled rows as well."""
    alone = "AI_CLASSIFY(body, ['bug', 'praise'], model => 'other') AS alone"
    both = session.query(cascade.replace("AS topic", f"AS topic, {alone}")).arrow()
    assert both["alone"].to_pylist() == session.query(f"SELECT {alone} FROM t").arrow()["alone"].to_pylist()
    assert set(both["topic"].to_pylist()) == {"bug"}


def test_a_second_cascade_is_calibrated_on_the_models_own_answers(session: FakeSession, cascade: str) -> None:
    again = "AI_CLASSIFY(body || '', ['bug', 'praise']) AS again"
    text = plan(session, "EXPLAIN ANALYZE " + cascade.replace("AS topic", f"AS topic, {again}"))
    assert text.count("cascade: believed from a confidence of 0.6") == 2


def test_the_risk_is_split_over_the_cascades_of_a_query(session: FakeSession, cascade: str) -> None:
    promised = "WITH quality >= 0.9 CONFIDENCE 0.9"
    again = "AI_CLASSIFY(body || '', ['bug', 'praise']) AS again"
    one = plan(session, f"EXPLAIN {cascade} {promised}")
    two = plan(session, f"EXPLAIN {cascade.replace('AS topic', f'AS topic, {again}')} {promised}")
    assert "at 90 % confidence: the run calibrates on about 88 random rows" in one
    assert two.count("at 90 % confidence: the run calibrates on about 116 random rows") == 2


def test_proofs_hold_for_what_lets_the_rows_through(session: FakeSession, cascade: str, tmp_path: Path) -> None:
    session.query(f"CREATE MODEL below FROM '{session.model}'")
    above = cascade.replace("FROM t", "FROM t WHERE AI_FILTER('{body} mentions perhaps', model => 'below') IS NOT NULL")
    session.query(above).arrow()
    assert "calibrated on " in plan(session, f"EXPLAIN {above}")
    assert "the run calibrates" in plan(session, f"EXPLAIN {above} WITH on_overflow = 'truncate_middle'")
    session.query(f"CREATE OR REPLACE MODEL below FROM '{tiny_model(tmp_path, TinySizes(layers=1), name='b.gguf')}'")
    assert "the run calibrates" in plan(session, f"EXPLAIN {above}")


def test_proofs_hold_for_the_parameters_of_what_lets_the_rows_through(session: FakeSession, cascade: str) -> None:
    """The rows below are the same; those that reach the cascade are others."""
    above = cascade.replace("FROM t", "FROM t WHERE len(AI_GENERATE(body, model => 'other')) > $least")
    one, other = {"least": 1}, {"least": 3}
    session.query(above, one).arrow()

    def explained(params: dict[str, int]) -> str:
        return "".join(map(str, session.query(f"EXPLAIN {above}", params).arrow().column(0).to_pylist()))

    assert "calibrated on " in explained(one) and "the run calibrates" in explained(other)


def test_proofs_hold_for_the_kernels_that_they_were_made_with(
    session: FakeSession, cascade: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    session.query(cascade).arrow()
    assert "the run calibrates" in plan(session, f"EXPLAIN {cascade} WITH deterministic = true")
    assert "calibrated on " in plan(session, f"EXPLAIN {cascade}")
    monkeypatch.setattr("dql.judging.cpu_versions", lambda threads: {"torch": "another"})
    assert "the run calibrates" in plan(session, f"EXPLAIN {cascade}")
