"""`examples` and `calibrate`: what they refuse, and what calibrating means."""

import math
from pathlib import Path

import pytest

from dql.config import Config
from dql.errors import BindError
from dql.session import Session
from tests.models.tiny import tiny_model


@pytest.fixture
def session(tmp_path: Path) -> Session:
    return Session(config=Config(home=tmp_path, model=str(tiny_model(tmp_path))))


@pytest.mark.parametrize(
    ("examples", "reason"),
    [
        ("'I was charged twice'", "pairs of a text and its answer"),
        ("[('a', 'b', 'c')]", "pairs of a text and its answer"),
        ("[('I was charged twice', 'biling')]", "none of the labels"),
    ],
)
def test_examples_are_pairs_with_known_answers(session: Session, examples: str, reason: str) -> None:
    with pytest.raises(BindError, match=reason):
        session.query(f"SELECT AI_CLASSIFY('text', ['billing', 'bug'], examples => {examples})")


def test_the_answer_of_a_filter_is_a_truth_value(session: Session) -> None:
    with pytest.raises(BindError, match="TRUE or FALSE"):
        session.query("SELECT AI_FILTER('{1} is odd', examples => [('2 is odd', 'no')])")


def test_examples_stand_in_the_frame(session: Session) -> None:
    examples = "[('charged twice', 'billing'), {'text': 'crash', 'label': 'bug'}]"
    call = f"AI_CLASSIFY(x, ['billing', 'bug'], examples => {examples})"
    plan = session.query(f"EXPLAIN (REWRITES) SELECT {call} FROM (VALUES ('a'), ('b')) t(x)").arrow()
    text = "\n".join(str(line) for line in plan.column(0).to_pylist())
    assert text.index("charged twice") < text.index("crash") < text.index("{0}")


def test_calibrated_scores_of_texts_without_content_cancel_out(session: Session) -> None:
    rows = session.query(
        "SELECT AI_CLASSIFY(x, ['billing', 'bug'], calibrate => true, details => true) AS d "
        "FROM (VALUES ('N/A'), ('[MASK]'), ('')) t(x)"
    ).arrow()
    odds = [
        math.log(d["confidence"] / (1 - d["confidence"])) * (1 if d["value"] == "billing" else -1)
        for d in rows.column("d").to_pylist()
    ]
    assert sum(odds) == pytest.approx(0, abs=1e-3)


def test_a_run_that_stops_early_calibrates_what_it_answers(session: Session) -> None:
    call = "AI_CLASSIFY(x, ['billing', 'bug'], calibrate => true, details => true) AS d"
    query = f"SELECT {call} FROM (SELECT 'text ' || i AS x FROM range(40) t(i))"
    whole = session.query(query).arrow()["d"].to_pylist()
    some = session.query(f"{query} WITH budget < 500 tokens").arrow()["d"].to_pylist()
    assert 0 < len(some) < len(whole)
    for part, same in zip(some, whole, strict=False):
        assert part["confidence"] == pytest.approx(same["confidence"], abs=1e-3)
