"""Without a bound on quality a query has the same answers under every plan that the planner may choose."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pyarrow as pa
import pytest

from benchmarks.same import BAR, Case, alike, report
from benchmarks.ways import Way, answer, cells, choice_for, far_apart, table_of, unshared, ways
from dql.config import Config
from dql.planner.physical import Placement
from dql.session import Session

ROWS = 12
TEXTS = (
    "SELECT AI_CLASSIFY(body, ['red', 'green', 'deep blue']) AS a, AI_SCORE('How long? {body}', 1, 5) AS b FROM t",
    "SELECT body FROM t WHERE AI_FILTER('{body} is odd')",
    "GENERATE 'Say in other words: {body}' AS a FROM t WITH max_tokens = 6",
)
SIZES = ((1, 48), (256, 2048))


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory, model_file: Path) -> Iterator[Session]:
    config = Config(home=tmp_path_factory.mktemp("home"), model=str(model_file), threads=1)
    with Session(config=config) as opened:
        bodies = [f"text {i % 8} with {'words ' * (i % 7)}in it" for i in range(ROWS)]
        opened.catalog.register("t", pa.table({"body": bodies}))
        yield opened


def placements(session: Session, text: str) -> list[Placement]:
    """What the planner weighs for a query, thinned out, sizes far apart, and nothing shared."""
    choice = choice_for(session, text)
    best = choice.best.placement
    assert {option.placement.weights for option in choice.options} == {best.weights}
    weighed = [option.placement for option in far_apart(choice, 3)]
    sized = [replace(best, max_rows=rows, step_tokens=tokens) for rows, tokens in SIZES]
    return [*weighed, *sized, unshared(replace(best, max_rows=5))]


@pytest.mark.slow
@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("deterministic", [False, True])
def test_every_plan_answers_alike(session: Session, text: str, deterministic: bool) -> None:
    first, *others = (replace(p, deterministic=deterministic) for p in placements(session, text))
    expected = table_of(session, text, first)[0].to_pylist()
    for place in others:
        found = table_of(session, text, place)[0].to_pylist()
        if deterministic:
            assert found == expected, place
            continue
        assert len(found) == len(expected)
        pairs = zip(found, expected, strict=True)
        same = sum(all(alike((row[k], None), (want[k], None), exactly=False) for k in want) for row, want in pairs)
        assert same >= BAR * len(expected), place


@pytest.mark.slow
def test_the_benchmark_runs_every_way(session: Session, tmp_path: Path) -> None:
    texts = [f"review {i}, {'long ' * (i % 5)}" for i in range(40)]
    session.catalog.register("reviews", pa.table({"text": texts}))
    session.query("SET max_tokens = 3")
    cases = []
    for name in ("filter", "generate"):
        case = Case(name, False, tmp_path / f"{name}.json", "of this")
        case.ways = ways(session, name, len(texts), patience=1.0)
        for way in case.ways:
            answer(session, name, texts, way)
        case.save()
        again = Case(name, False, case.file, "of this")
        again.load()
        assert again == case and again.done
        assert not any(case.differing(way) for way in case.ways)
        cases.append(again)
    assert {way.limit for way in cases[0].ways} == {0, 4} and all(0 < way.rows <= 40 for way in cases[1].ways)
    assert {way.contract.partition(" ")[0] for way in cases[1].ways} == {"", "memory", "latency"}
    lines = list(report(cases, texts, "tiny"))
    assert [line.endswith("| yes |") for line in lines[4:6]] == [True, True]
    with pytest.raises(SystemExit, match="other rows"):
        Case("filter", False, cases[0].file, "of something else").load()


def test_a_limit_judges_the_rows_that_it_read() -> None:
    texts = ["a", "b", "c", "d"]
    assert cells(pa.table({"text": ["a", "c"]}), texts) == [(True, None), (False, None), (True, None), (False, None)]
    assert cells(pa.table({"text": ["a", "c"]}), texts, limit=2) == [(True, None), (False, None), (True, None)]
    assert len(cells(pa.table({"text": ["a"]}), texts, limit=2)) == 4


def test_rounding_moves_a_score_and_no_label(tmp_path: Path) -> None:
    assert alike((2.00001, 2.00001), (2.0, 2.0), exactly=False) and not alike((2.01, None), (2.0, None), exactly=False)
    assert not alike((2.00001, 2.00001), (2.0, 2.0), exactly=True)
    assert alike(("praise", 0.2), ("praise", 0.3), exactly=False) and not alike(("a", 0.2), ("b", 0.2), exactly=False)
    way = Way("first rows", 1, cells=[("blame", 0.5)])
    case = Case(
        "classify", False, tmp_path / "c.json", "", [Way("all", 2, cells=[("praise", 0.2), ("mixed", 0.1)]), way]
    )
    assert case.differing(way) == [0] and case.apart == pytest.approx(0.3)
