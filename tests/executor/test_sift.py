"""Conditions of a filter in the order that the run learns: same rows, fewer questions."""

import pytest

from dql.planner.optimizer import RULES
from dql.planner.rules.learn_filter_order import learn_filter_order
from tests.fake_session import FakeSession
from tests.planner.running import Outcome, run

ROWS = 1000
WRITTEN = tuple(rule for rule in RULES if rule is not learn_filter_order)
# Of the rows {often} ends in a word that occurs earlier for 90 %, {seldom} for 10 %.
TABLE = f"""
CREATE TABLE t AS SELECT i AS id, i || CASE WHEN i % 10 = 3 THEN ' no' ELSE ' a a' END AS often,
    i || CASE WHEN i % 10 = 7 THEN ' a a' ELSE ' no' END AS seldom, i || ' b b' AS always
FROM range({ROWS}) r(i)
"""
OFTEN, SELDOM = "AI_FILTER('x {often}')", "AI_FILTER('y {seldom}')"


@pytest.fixture
def loaded(session: FakeSession) -> FakeSession:
    session.catalog.execute(TABLE)
    return session


def both(session: FakeSession, query: str) -> tuple[Outcome, Outcome]:
    """The query with the order learnt, and as written; the rows are the same, in the same order."""
    learnt, written = run(session, query, RULES), run(session, query, WRITTEN)
    assert learnt.rows == written.rows
    assert "learn_filter_order" in learnt.applied
    return learnt, written


def test_and_asks_first_what_rules_most_rows_out(loaded: FakeSession) -> None:
    learnt, written = both(loaded, f"SELECT id FROM t WHERE {OFTEN} AND {SELDOM}")
    assert len(written.asked) == pytest.approx(1.9 * ROWS, rel=0.01)
    assert len(learnt.asked) < 1.25 * ROWS


def test_or_asks_first_what_lets_most_rows_in(loaded: FakeSession) -> None:
    learnt, written = both(loaded, f"SELECT id FROM t WHERE {SELDOM} OR {OFTEN}")
    assert len(written.asked) == pytest.approx(1.9 * ROWS, rel=0.01)
    assert len(learnt.asked) < 1.25 * ROWS


def test_trees_are_ordered_at_every_level(loaded: FakeSession) -> None:
    both_of = "AI_SCORE('{id}') < 5 AND (AI_FILTER('z {often}') AND AI_FILTER('w {seldom}'))"
    learnt, written = both(loaded, f"SELECT id FROM t WHERE ({SELDOM} OR {OFTEN}) AND {both_of}")
    assert len(learnt.asked) < 0.75 * len(written.asked)


def test_a_dear_condition_comes_late(loaded: FakeSession) -> None:
    dear = f"AI_FILTER('{'many words ' * 30}{{seldom}}')"
    learnt, _ = both(loaded, f"SELECT id FROM t WHERE {dear} AND AI_FILTER('x {{seldom}}')")
    asked_dear = sum("many words" in text for text in learnt.asked)
    assert asked_dear == ROWS // 10


def test_shown_answers_are_those_of_the_rows_that_pass(loaded: FakeSession) -> None:
    query = "SELECT id, s, AI_GENERATE('{id}') AS g FROM (SELECT *, AI_SCORE(often, 0, 4) AS s FROM t)"
    learnt, _ = both(loaded, f"{query} WHERE s < 3 AND {OFTEN} AND {SELDOM} ORDER BY id LIMIT 40")
    assert len(learnt.rows) == 40


def test_a_limit_stops_the_windows(loaded: FakeSession) -> None:
    learnt, _ = both(loaded, f"SELECT id FROM t WHERE {OFTEN} AND AI_FILTER('{{always}}') LIMIT 3")
    assert len(learnt.asked) <= 2 * 16


def test_no_rows_have_the_columns_of_some(loaded: FakeSession) -> None:
    both(loaded, f"SELECT id, {OFTEN} AS f FROM t WHERE f AND {SELDOM} AND id < 0")


def test_explain_analyze_says_how_it_was_ordered(loaded: FakeSession) -> None:
    query = f"SELECT id FROM t WHERE {OFTEN} AND {SELDOM}"
    plan = "\n".join(loaded.query(f"EXPLAIN ANALYZE {query}").arrow()["plan"].to_pylist())
    assert "order learnt on the first rows" in plan
    assert "order     number 1 in the end · TRUE of 100 of" in plan


def test_a_row_that_failed_one_condition_is_skipped_whatever_the_next_says(session: FakeSession) -> None:
    session.catalog.execute(
        "CREATE TABLE l AS SELECT i AS id, repeat('no ', CASE i WHEN 3 THEN 600 ELSE 1 END) AS x FROM range(40) r(i)"
    )
    dear = f"AI_FILTER('bug {'many words ' * 30}{{id}} mentions bug')"
    query = f"SELECT id FROM l WHERE AI_FILTER('{{x}} mentions bug') OR {dear}"
    assert len(session.query(query)) == 40
    skipped = session.query(f"{query} WITH on_error = 'skip'")
    assert skipped.arrow()["id"].to_pylist() == [i for i in range(40) if i != 3]
    assert sum("many words" in text for text in session.asked) == 40 + 39
