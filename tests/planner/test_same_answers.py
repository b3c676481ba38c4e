"""Without a bound on quality a query has the same answers under every plan that the planner may choose."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from dql.config import Config
from dql.estimate import estimate
from dql.grammar import ast
from dql.grammar.parser import parse
from dql.planner.physical import ErrorPolicy, Placement
from dql.planner.placing import placed
from dql.session import Session
from dql.statements import Call, plan

ROWS = 12
QUERIES = (
    "SELECT AI_CLASSIFY(body, ['red', 'green', 'deep blue']) AS a, AI_SCORE('How long? {body}', 1, 5) AS b FROM t",
    "SELECT body FROM t WHERE AI_FILTER('{body} is odd')",
    "GENERATE 'Say in other words: {body}' AS a FROM t WITH max_tokens = 6",
)
SIZES = ((1, 48), (256, 2048))
SHARES = 0.999  # of the rows, where rounding may depend on the batch


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, model_file: Path) -> Iterator[Session]:
    config = Config(home=tmp_path_factory.mktemp("home"), model=str(model_file), threads=1)
    with Session(config=config) as opened:
        bodies = [f"text {i % 8} with {'words ' * (i % 7)}in it" for i in range(ROWS)]
        opened.catalog.register("t", pa.table({"body": bodies}))
        yield opened


def answers(session: Session, text: str, place: Placement) -> list[dict[str, object]]:
    (statement,) = parse(text)
    assert isinstance(statement, ast.QueryStatement)
    query = plan(statement.query, Call(session, text, {}, None)).query
    run = session.runtime.start(placed(query, place), ErrorPolicy(), {}, None)
    rows: list[dict[str, object]] = pa.Table.from_batches(list(run.batches())).to_pylist()
    return rows


def placements(session: Session, text: str) -> list[Placement]:
    """What the planner weighs for a query, thinned out to sizes far apart, with and without each kind of sharing."""
    (statement,) = parse(text)
    assert isinstance(statement, ast.QueryStatement)
    choice = estimate(plan(statement.query, Call(session, text, {}, None)), session, {}).choice
    assert choice is not None
    best = choice.best.placement
    assert {option.placement.weights for option in choice.options} == {best.weights}
    sized = [replace(best, max_rows=rows, step_tokens=tokens) for rows, tokens in SIZES]
    return [best, *sized, replace(best, reuse=False, prefix="none", max_rows=5)]


def same(one: object, other: object) -> bool:
    return one == pytest.approx(other, abs=1e-4) if isinstance(one, float) else one == other


@pytest.mark.slow
@pytest.mark.parametrize("text", QUERIES)
@pytest.mark.parametrize("deterministic", [False, True])
def test_every_plan_answers_alike(session: Session, text: str, deterministic: bool) -> None:
    first, *others = (replace(p, deterministic=deterministic) for p in placements(session, text))
    expected = answers(session, text, first)
    for place in others:
        found = answers(session, text, place)
        if deterministic:
            assert found == expected, place
            continue
        assert len(found) == len(expected)
        alike = sum(all(same(row[k], want[k]) for k in want) for row, want in zip(found, expected, strict=True))
        assert alike >= SHARES * len(expected), place
