"""Ways to run a query that must not change its answers: plans that the planner may choose, and rows as they come."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from math import log2

import pyarrow as pa

from dql.estimate import estimate
from dql.grammar import ast
from dql.grammar.parser import parse
from dql.planner.option import Option
from dql.planner.physical import ErrorPolicy, Placement
from dql.planner.placing import placed
from dql.planner.plan import Planned
from dql.planner.search import Choice
from dql.planner.simulate import PERCENTILES
from dql.session import Session
from dql.statements import Call, plan

QUERIES = {
    "classify": "SELECT AI_CLASSIFY(text, ['praise', 'blame', 'mixed'], details => true) AS answer FROM reviews",
    "filter": "SELECT text FROM reviews WHERE AI_FILTER('the review recommends the film: {text}')",
    "score": "SELECT AI_SCORE('How much does the critic like the film? {text}', 1, 5) AS answer FROM reviews",
    "generate": "GENERATE 'Say in a few words what this review is about: {text}' AS answer FROM reviews",
}
SIZED = 4  # plans of a query that differ in sizes
ALONE = 32  # rows that are asked one by one
_ROOM = 1.03  # times the least memory of a plan
_SOONER = 0.25  # of the latency of the planner's own plan

Cell = tuple[object, float | None]
"""A row's answer, and a number that tells how sure it is, where there is one."""


@dataclass(slots=True)
class Way:
    """One way to run a query over the first `rows` texts.

    place: None where the planner chooses. limit, contract: of the query; with none of the three, each row is a query.
    cells: an answer for each row, or for the first ones, as far as a LIMIT reads; None before it ran. guessed: tokens
    that speculation spared.
    """

    name: str
    rows: int
    place: Placement | None = None
    limit: int = 0
    contract: str = ""
    cells: list[Cell] | None = None
    guessed: int = 0


def choice_for(session: Session, text: str) -> Choice:
    """What the planner weighs for a query, and takes."""
    choice = estimate(_planned(session, text), session, {}).choice
    assert choice is not None, "a query over rows that can be counted has a choice"
    return choice


def table_of(session: Session, text: str, place: Placement) -> tuple[pa.Table, int]:
    """What a query yields with all its calls in this placement, and the tokens that speculation spared."""
    query = placed(_planned(session, text).query, place)
    run = session.runtime.start(query, ErrorPolicy(), {}, None)
    table = pa.Table.from_batches(list(run.batches()))
    return table, run.stats().tokens_accepted


def far_apart(choice: Choice, count: int) -> list[Option]:
    """The plan that was chosen, then one by one that of the simulated ones whose sizes lie farthest from the others'
    before it, in doublings; `count` in all, or as many as there are."""
    found, left = [choice.best], [o for o in choice.options if _sizes(o) != _sizes(choice.best)]
    while left and len(found) < count:
        farthest = max(left, key=lambda option: min(_doublings(option, other) for other in found))
        found.append(farthest)
        left = [option for option in left if _sizes(option) != _sizes(farthest)]
    return found


def unshared(place: Placement) -> Placement:
    """The placement with every prompt computed whole, also where an equal one was."""
    return replace(place, prefix="none", reuse=False)


def ways(session: Session, name: str, rows: int, patience: float) -> list[Way]:
    """How a query may be run over so many rows, the planner's own way first."""
    choice = choice_for(session, QUERIES[name])
    found = []
    for option in far_apart(choice, SIZED):
        share = patience * choice.best.cost.seconds / max(option.cost.seconds, 1e-9)
        place = option.placement
        size = f"{place.max_rows} rows, " if choice.decodes else ""
        found.append(Way(f"{size}{place.step_tokens:,} tokens a step", min(rows, round(rows * share)), place))
    some = rows // 4
    found.append(Way("nothing shared", some, unshared(choice.best.placement)))
    if name == "filter":
        found.append(Way(f"LIMIT {rows // 10}", rows, limit=rows // 10))
    found += [Way(bound, some, contract=f"{bound}, best_effort = true") for bound in bounds(choice)]
    return [*found, Way("one row a query", min(rows, ALONE))]


def bounds(choice: Choice) -> Iterator[str]:
    """A bound on memory that leaves little room for keys, and one on latency that asks for smaller sizes."""
    least = min(option.cost.memory for option in choice.options)
    yield f"memory < {_ROOM * least / 2**10:.0f}KiB"
    yield f"latency < {1e3 * _SOONER * choice.best.cost.latency[PERCENTILES.index('p95')]:.0f}ms"


def answer(session: Session, name: str, texts: Sequence[str], way: Way) -> None:
    """Run a query in one way, on an engine of its own."""
    session.forget(session.model)
    text, some = QUERIES[name], texts[: way.rows]
    if way.place is not None:
        session.catalog.register("reviews", pa.table({"text": some}))
        table, way.guessed = table_of(session, text, way.place)
        way.cells = cells(table, some)
        return
    text += f" LIMIT {way.limit}" if way.limit else ""
    text += f" WITH {way.contract}" if way.contract else ""
    way.cells, whole = [], bool(way.limit or way.contract)
    for part in [some] if whole else ([one] for one in some):
        session.catalog.register("reviews", pa.table({"text": part}))
        result = session.query(text)
        way.cells += cells(result.arrow(), part, way.limit)
        way.guessed += result.stats().tokens_accepted


def cells(table: pa.Table, texts: Sequence[str], limit: int = 0) -> list[Cell]:
    """An answer for each text; below a LIMIT that was reached, for those down to the last that passed."""
    if table.column_names == ["text"]:
        kept = table.column("text").to_pylist()
        reached = texts[: texts.index(kept[-1]) + 1] if limit and len(kept) == limit else texts
        passed = set(kept)
        return [(text in passed, None) for text in reached]
    return [_cell(value) for value in table.column("answer").to_pylist()]


def _planned(session: Session, text: str) -> Planned:
    (statement,) = parse(text)
    assert isinstance(statement, ast.QueryStatement)
    return plan(statement.query, Call(session, text, {}, None))


def _sizes(option: Option) -> tuple[int, int]:
    return option.placement.max_rows, option.placement.step_tokens


def _doublings(one: Option, other: Option) -> float:
    return sum(abs(log2(a / b)) for a, b in zip(_sizes(one), _sizes(other), strict=True))


def _cell(value: object) -> Cell:
    if isinstance(value, dict):
        return value["value"], value["margin"]
    return value, value if isinstance(value, float) else None
