"""What a run that stopped has answered is not priced again: EXPLAIN and contracts speak of the rest."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dql.config import Config
from dql.errors import PlanError
from dql.session import Session

ROWS, DISTINCT = 30, 20
GENERATE = "GENERATE 'Say {body}' AS said FROM t"
BUDGET = "budget < 200 tokens"


@pytest.fixture
def session(tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Session]:
    """A session on typical figures, whatever the machine does beside."""
    monkeypatch.setattr("dql.machine.Machine.lacks", lambda *args: False)
    with Session(config=Config(home=tmp_path / "home", model=str(model_file))) as session:
        bodies = [f"text number {i % DISTINCT}" for i in range(ROWS)]
        session.catalog.register("t", pa.table({"id": range(ROWS), "body": bodies}))
        yield session


def explained(session: Session, query: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(session.query(f"EXPLAIN (FORMAT json) {query}").arrow().column(0)[0].as_py())
    return found


def only(plan: dict[str, Any]) -> dict[str, Any]:
    (call,) = plan["calls"].values()
    statistics: dict[str, Any] = call["statistics"]
    return statistics


def test_the_rest_of_a_stopped_statement_is_counted_to_the_token(session: Session) -> None:
    whole = explained(session, f"{GENERATE} WITH max_tokens = 4")
    session.query(f"{GENERATE} WITH max_tokens = 4, {BUDGET}").arrow()
    left = explained(session, f"{GENERATE} WITH max_tokens = 4, {BUDGET}")
    answered = left["answered"]
    assert 0 < answered < DISTINCT and whole["answered"] == 0
    assert only(left)["exact"] and only(left)["distinct"] == DISTINCT - answered
    # rows come in order, so that those left are all but the first, and the ones that ask the same as these
    unasked = [f"text number {i % DISTINCT}" for i in range(ROWS) if i % DISTINCT >= answered]
    session.catalog.register("u", pa.table({"body": unasked}))
    alone = only(explained(session, f"{GENERATE.replace('FROM t', 'FROM u')} WITH max_tokens = 4"))
    assert only(left) == alone
    assert left["predicted"]["seconds"] < whole["predicted"]["seconds"]
    text = "\n".join(session.query(f"EXPLAIN {GENERATE} WITH max_tokens = 4, {BUDGET}").arrow().column(0).to_pylist())
    assert f"-- {answered} answers are there, of a run that stopped: the figures are for the rest" in text


def test_a_contract_is_held_against_what_is_left(session: Session) -> None:
    """A bound that the whole cannot keep is no reason to refuse what little is left of it."""
    text = f"{GENERATE} WITH max_tokens = 4"
    fresh = text.replace("said", "told")
    session.query(f"{text}, {BUDGET}").arrow()
    ends = [p["seconds"] + p["give"] for p in (explained(session, each)["predicted"] for each in (text, fresh))]
    assert ends[0] < ends[1]
    bound = f"deadline < {1e3 * sum(ends) / 2:.6f}ms"
    with pytest.raises(PlanError):
        session.query(f"EXPLAIN {fresh}, {bound}")
    assert explained(session, f"{text}, {bound}")["answered"]
    assert len(session.query(f"{text}, {bound}").arrow()) == ROWS
    assert not explained(session, text)["answered"]  # it came to its end: the next run asks for all rows


@pytest.mark.parametrize(
    "query",
    [
        "SELECT id FROM t WHERE AI_FILTER('Odd? {body}') LIMIT 25",
        "SELECT AI_GENERATE('Say {a}', max_tokens => 4) AS said"
        " FROM (SELECT AI_GENERATE('Name {body}', max_tokens => 2) AS a FROM t)",
    ],
)
def test_what_a_limit_ends_and_what_inference_decides_are_less_as_well(session: Session, query: str) -> None:
    def tokens() -> float:
        return float(sum(call["statistics"]["prompt_tokens"] for call in explained(session, query)["calls"].values()))

    whole = tokens()
    session.query(f"{query} WITH {BUDGET}").arrow()
    assert 0 <= tokens() < whole
