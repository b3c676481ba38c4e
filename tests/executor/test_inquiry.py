"""Calls of a row run together: equal inputs once, and what their prompts begin with is computed once."""

import json
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dql.config import Config
from dql.executor.options import EngineOptions
from dql.executor.prepare import distinct
from dql.session import Session
from tests.fake_session import FakeSession

TEXTS = st.sampled_from(["", "a", "b", "ab", "c"])
LONG = "the quick brown fox jumps over the lazy dog and runs away from the rain "


@settings(deadline=None)
@given(st.lists(st.tuples(TEXTS, TEXTS, TEXTS), max_size=30))
def test_distinct_inputs_are_numbered_as_they_come(rows: list[tuple[str, str, str]]) -> None:
    columns = [pa.array([row[i] for row in rows], pa.string()) for i in range(3)]
    first, places = distinct(columns, len(rows))
    known = list(dict.fromkeys(rows))
    assert [rows[i] for i in first.tolist()] == known
    assert [known[i] for i in places.tolist()] == rows


def test_without_inputs_all_rows_ask_the_same() -> None:
    first, places = distinct([], 3)
    assert first.tolist() == [0]
    assert places.tolist() == [0, 0, 0]


def test_a_row_with_several_labels_is_one_call(session: FakeSession) -> None:
    call = "AI_CLASSIFY(x, ['bug', 'praise', 'spam'], multi => true)"
    stats = session.query(f"SELECT {call} AS c FROM (VALUES ('a bug'), ('a bug'), ('b'), ('a bug')) t(x)").stats()
    assert (stats.calls, stats.calls_reused) == (4, 2)


@pytest.fixture
def tiny(tmp_path: Path, model_file: Path) -> Session:
    session = Session(config=Config(home=tmp_path, model=str(model_file), threads=1))
    session.query(f"CREATE TABLE t AS SELECT i AS id, repeat('{LONG}', 2) || i AS body FROM range(6) r(i)")
    return session


@pytest.mark.slow
def test_questions_about_the_same_text_share_its_tokens(tiny: Session) -> None:
    summary, language = "AI_GENERATE('{body} In short:', max_tokens => 2)", "AI_GENERATE('{body} In French:')"
    alone = [tiny.query(f"SELECT {call} AS x FROM t WITH max_tokens = 2") for call in (summary, language)]
    answers = [result.arrow()["x"].to_pylist() for result in alone]
    together = tiny.query(f"SELECT {summary} AS x, {language} AS y FROM t WITH max_tokens = 2")
    table = together.arrow()
    assert [table["x"].to_pylist(), table["y"].to_pylist()] == answers
    # The text is most of a prompt: the second call adds little to what the first one costs.
    assert together.stats().tokens_prefilled < 1.5 * alone[0].stats().tokens_prefilled
    assert together.stats().tokens_prefilled < 0.75 * sum(result.stats().tokens_prefilled for result in alone)


@pytest.mark.slow
def test_each_call_is_measured_by_its_own_tokens(tiny: Session) -> None:
    query = "SELECT AI_FILTER('{body} is long') AS f, AI_GENERATE('{body}', max_tokens => 3) AS g FROM t"
    plain = tiny.query(query)
    plain.arrow()
    stats = plain.stats()
    analyzed = tiny.query(f"EXPLAIN ANALYZE (FORMAT json) {query}").arrow()["plan"][0].as_py()
    calls = [call["measured"] for call in json.loads(analyzed)["calls"].values()]
    assert sum(sum(call["tokens"][name] for name in ("prefilled", "reused")) for call in calls) == (
        stats.tokens_prefilled + stats.tokens_reused
    )
    assert [call["tokens"]["decoded"] > 0 for call in calls] == [False, True]
    assert all(call["seconds"] > 0 for call in calls)


@pytest.mark.slow
def test_rows_that_begin_alike_are_planned_together(tiny: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    defaults = EngineOptions.__init__.__kwdefaults__
    assert defaults is not None
    monkeypatch.setitem(defaults, "window", 8)
    tiny.query(f"CREATE TABLE g AS SELECT i AS id, (i % 6) || ' {LONG}' || i AS body FROM range(48) r(i)")
    runs = []
    for together in (1_000, 8):
        monkeypatch.setattr("dql.executor.inquiry.PLANNED", together)
        result = tiny.query("SELECT id, AI_SCORE(body) AS s FROM g")
        runs.append((result.arrow().to_pylist(), result.stats().tokens_prefilled))
    (rows, tokens), (sorted_rows, sorted_tokens) = runs
    assert [row["id"] for row in sorted_rows] == list(range(48))
    assert [row["s"] for row in sorted_rows] == pytest.approx([row["s"] for row in rows], rel=1e-4)
    assert sorted_tokens < 0.6 * tokens
