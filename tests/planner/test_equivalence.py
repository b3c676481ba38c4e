"""Optimised plans yield what DuckDB yields, and what unoptimised plans yield, without asking for more."""

from decimal import Decimal

import pytest

from dql.planner.optimizer import RULES
from tests.fake_session import FakeSession
from tests.planner.generator import TABLES, Generator, oracle
from tests.planner.rule_queries import RuleQueries
from tests.planner.running import Row, run

FAST = range(20)
SLOW = [range(start, start + 500) for start in range(20, 2020, 500)]
REORDERING = {"cheap_before_dear", "join_on_labels", "learn_filter_order"}
DUCKDB_FAILS = {1923}  # inside DuckDB 2.0, on a constant argument of a Python function


@pytest.fixture
def loaded(session: FakeSession, monkeypatch: pytest.MonkeyPatch) -> FakeSession:
    monkeypatch.setattr("dql.executor.sift.PILOT_ROWS", 2)  # so that ten rows see an order change
    for statement in TABLES.split(";"):
        session.catalog.execute(statement)
    return session


def comparable(found: list[Row], text: str) -> list[str]:
    """Rows as texts; in order where the query orders them."""
    texts = [repr(tuple(int(v) if isinstance(v, Decimal) else v for v in row)) for row in found]  # HUGEINT in Arrow
    return texts if text.endswith("ORDER BY ALL") or " LIMIT " in text[-10:] else sorted(texts)


def check(seeds: range, session: FakeSession, plain_every: int = 1, generator: type[Generator] = Generator) -> None:
    """Compare with DuckDB; one query in `plain_every` runs without rules as well."""
    truth = oracle()
    fails = DUCKDB_FAILS if generator is Generator else set[int]()
    for seed in sorted(set(seeds) - fails):
        query = generator(seed).query()
        expected = comparable(truth.execute(query.oracle).fetchall(), query.dql)
        optimised = run(session, query.dql, RULES)
        assert comparable(optimised.rows, query.dql) == expected, f"seed {seed}: {query.dql}"
        assert len(optimised.asked) == len(set(optimised.asked)), f"seed {seed} asks twice: {query.dql}"
        if seed % plain_every:
            continue
        plain = run(session, query.dql, ())
        assert comparable(plain.rows, query.dql) == expected, f"seed {seed}, no rules: {query.dql}"
        if not REORDERING & optimised.applied:  # AND and OR in another order ask something else
            assert set(optimised.asked) <= set(plain.asked), f"seed {seed} asks more: {query.dql}"


def test_plans_agree_with_duckdb(loaded: FakeSession) -> None:
    check(FAST, loaded)


@pytest.mark.slow
@pytest.mark.parametrize("seeds", SLOW, ids=str)
def test_many_plans_agree_with_duckdb(seeds: range, loaded: FakeSession) -> None:
    check(seeds, loaded, plain_every=4)


def test_rules_keep_the_answers_of_their_queries(loaded: FakeSession) -> None:
    check(range(15), loaded, generator=RuleQueries)


@pytest.mark.slow
def test_rules_keep_the_answers_of_many_queries(loaded: FakeSession) -> None:
    check(range(15, 530), loaded, plain_every=4, generator=RuleQueries)


def test_a_condition_parts_the_rows_in_three(loaded: FakeSession) -> None:
    for seed in range(8):
        generator = Generator(seed)
        source, columns = generator.source()
        condition = generator.predicate(columns).dql
        block = f"SELECT {', '.join((*columns.numbers, *columns.texts))} FROM {source.dql}"
        whole = run(loaded, block, RULES).rows
        tests = (condition, f"NOT ({condition})", f"({condition}) IS NULL")
        parts = [row for test in tests for row in run(loaded, f"{block} WHERE {test}", RULES).rows]
        assert sorted(map(repr, parts)) == sorted(map(repr, whole)), f"seed {seed}: {source.dql} / {condition}"


def test_a_filter_keeps_what_it_is_true_of(loaded: FakeSession) -> None:
    for seed in range(8):
        generator = Generator(seed)
        source, columns = generator.source()
        condition = generator.predicate(columns).dql
        kept = run(loaded, f"SELECT 1 FROM {source.dql} WHERE {condition}", RULES).rows
        shown = run(loaded, f"SELECT {condition} AS f FROM {source.dql}", RULES).rows
        assert len(kept) == sum(row == (True,) for row in shown), f"seed {seed}: {source.dql} / {condition}"
