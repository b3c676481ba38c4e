"""Tokens that EXPLAIN promises are those that the run then counts, to the last one, where no LIMIT ends it early."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pytest

from dql.config import Config
from dql.executor.options import EngineOptions
from dql.session import Session
from tests.models.tiny import TinySizes, tiny_model

ROWS = 40
GUIDE = "Read the text and say what the writer of it wants us to do. " * 4
SHORT, LONG = "['yes', 'no']", "['a question', 'an answer', 'a question to the assistant']"
CALLS = {
    "classify": f"AI_CLASSIFY(body, {SHORT}) AS a",
    "classify, labels of several tokens": f"AI_CLASSIFY(body, {LONG}) AS a",
    "classify, equal texts": f"AI_CLASSIFY(again, {LONG}) AS a",
    "classify, several labels may hold": f"AI_CLASSIFY(body, {LONG}, multi => true) AS a",
    "classify, calibrated": f"AI_CLASSIFY(body, {LONG}, calibrate => true) AS a",
    "calibrated, several labels may hold": f"AI_CLASSIFY(body, {LONG}, calibrate => true, multi => true) AS a",
    "filter, calibrated": f"AI_FILTER('{GUIDE}{{body}} asks for money', calibrate => true) AS a",
    "two calls of a row, one calibrated": f"AI_CLASSIFY(body, {SHORT}, calibrate => true) AS a, AI_SCORE(body) AS b",
    "filter": "AI_FILTER('{body} asks for money') AS a",
    "filter, shared instruction": f"AI_FILTER('{GUIDE}{{body}} asks for money') AS a",
    "filter, shared instruction, equal texts": f"AI_FILTER('{GUIDE}{{again}} asks for money') AS a",
    "score": "AI_SCORE('How angry is {body}?') AS a",
    "two calls of a row": f"AI_CLASSIFY(body, {SHORT}) AS a, AI_SCORE('How angry is {{body}}?') AS b",
    "a text that others go on from": "AI_SCORE(start) AS a",
    "no column": "AI_FILTER('It is so.') AS a",
}


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Session]:
    model = tiny_model(tmp_path, TinySizes(hidden=16, layers=1, heads=2, kv_heads=1, intermediate=16, context=2048))
    bodies = [f"text {i % 7} of {i} that asks" + " for money" * (i % 5) for i in range(ROWS)]
    bodies[3], bodies[5] = None, "N/A"  # type: ignore[call-overload]
    again = [bodies[i % 9] for i in range(ROWS)]
    starts = ["text"[: i % 4 + 1] + "text number " * (i // 4) for i in range(ROWS)]
    with Session(config=Config(home=tmp_path / "home", model=str(model), threads=1)) as session:
        session.catalog.register("t", pa.table({"body": bodies, "again": again, "start": starts}))
        yield session


def check(session: Session, query: str, names: Sequence[str] = ("prefilled", "reused", "decoded", "forced")) -> None:
    """The tokens of a query's EXPLAIN are those of its run. A run before it would leave beginnings in memory."""
    explained = session.query(f"EXPLAIN (FORMAT json) {query}").arrow()["plan"][0].as_py()
    promised = [call["predicted"]["tokens"] for call in json.loads(explained)["calls"].values()]
    stats = session.query(query).stats()
    for name in names:
        assert sum(tokens[name] for tokens in promised) == getattr(stats, f"tokens_{name}"), name


@pytest.mark.slow
@pytest.mark.parametrize("calls", CALLS.values(), ids=CALLS)
def test_promised_tokens_are_the_measured_ones(session: Session, calls: str) -> None:
    check(session, f"SELECT {calls} FROM t")


@pytest.mark.slow
def test_what_two_calls_ask_alike_is_computed_once(session: Session) -> None:
    calls = f"AI_FILTER('{GUIDE}{{body}}') AS a, AI_FILTER('{GUIDE}{{again}}') AS b"
    check(session, f"SELECT {calls} FROM t", ["prefilled"])


@pytest.mark.slow
@pytest.mark.parametrize("settings", ["prefix_cache = false", "result_cache = false"])
def test_so_are_they_without_sharing(session: Session, settings: str) -> None:
    check(session, f"SELECT {CALLS['filter, shared instruction, equal texts']} FROM t WITH {settings}")


@pytest.mark.slow
@pytest.mark.parametrize(("rows", "prompts", "tokens"), [(1000, 16, 1 << 20), (1000, 1000, 2000), (20, 8, 1 << 20)])
def test_so_are_they_over_several_windows(
    session: Session, monkeypatch: pytest.MonkeyPatch, rows: int, prompts: int, tokens: int
) -> None:
    """The shared instruction is computed once, however many windows there are."""
    defaults = EngineOptions.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "window", prompts)
    monkeypatch.setitem(defaults, "window_tokens", tokens)
    monkeypatch.setattr("dql.planner.windows.PLANNED_TOKENS", tokens)
    monkeypatch.setattr("dql.planner.windows.WINDOW_ROWS", rows)
    monkeypatch.setattr("dql.executor.infer.WINDOW_ROWS", rows)
    for module in ("planner.windows", "executor.inquiry"):
        monkeypatch.setattr(f"dql.{module}.PLANNED", prompts)
    check(session, f"SELECT {CALLS['filter, shared instruction']} FROM t")
