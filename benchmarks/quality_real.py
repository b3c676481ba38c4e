"""Quality bounds on a real table: what the planner chooses, and whether what it promised holds on every row.

Every query runs in fp32 alone and then under each bound: in a session of its own that has loaded the model in fp32,
with nothing proven before and the machine's profile as it is. Seconds are all that the query takes: planning, what is
asked to prove, loading the lower precision, the run.
"""

import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from time import perf_counter

import pyarrow as pa

from benchmarks.tables import CHARACTERS, read_texts
from dql.config import Config
from dql.grammar.ast import QueryStatement
from dql.grammar.parser import parse
from dql.planner.statistics import infer_nodes
from dql.session import Session
from dql.statements import Call, begin, plan

REFERENCE, MODEL = "fp32", "smollm2"
QUERIES = {
    "filter": "SELECT AI_FILTER('the review recommends the film: {text}') AS answer FROM reviews",
    "classify": "SELECT AI_CLASSIFY(text, ['positive', 'negative']) AS answer FROM reviews",
}


@dataclass(frozen=True, slots=True)
class Ran:
    """One run of a query. way: the precisions that answered. by_reference: rows that have the reference's answer, and
    rows that were asked of it to find out. said: what the planner says of the bound."""

    answers: Sequence[object]
    seconds: float
    way: str
    by_reference: int
    said: Sequence[str]


def report(data: Path, rows: int, only: str, bounds: Sequence[float], first: str) -> Iterator[str]:
    """A table as Markdown, of queries whose name begins with `only`, and what the planner says of each. first: a
    precision to be asked first, whether that pays or not; empty for the planner to choose."""
    texts = read_texts(data, "reviewText", rows)
    yield f"{len(texts):,} reviews of at most {CHARACTERS} characters, {len(set(texts)):,} different ones, {MODEL}"
    yield ""
    yield "| query | bound | plan | agrees with fp32 | rows by fp32 | seconds | fp32 alone | gain |"
    yield "|---|---|---|---|---|---|---|---|"
    said = []
    for name, query in ((name, query) for name, query in QUERIES.items() if name.startswith(only)):
        alone = ran(query, texts, "")
        for bound in bounds:
            found = ran(f"{query} WITH quality >= {bound}", texts, first)
            same = sum(a == b for a, b in zip(found.answers, alone.answers, strict=True)) / len(texts)
            yield (
                f"| {name} | {bound} | {found.way} | {same:.4f} | {found.by_reference / len(texts):.1%} "
                f"| {found.seconds:.1f} | {alone.seconds:.1f} | {alone.seconds / found.seconds:.2f}× |"
            )
            said += [f"- {name}, {bound}: {line}" for line in found.said]
    yield ""
    yield from said


def ran(query: str, texts: Sequence[str], first: str) -> Ran:
    """Run a query to its end."""
    config = Config.load()
    with tempfile.TemporaryDirectory() as home:
        for kept in ("models", "profiles"):
            (Path(home) / kept).symlink_to(config.home / kept)
        with Session(config=replace(config, home=Path(home), model=MODEL)) as session:
            session.catalog.register("reviews", pa.table({"text": texts[:1]}))
            session.query(query.partition(" WITH ")[0]).arrow()
            session.catalog.register("reviews", pa.table({"text": texts}))
            return _timed(session, query, first)


def _timed(session: Session, query: str, first: str) -> Ran:
    began = perf_counter()
    (statement,) = parse(query)
    assert isinstance(statement, QueryStatement)
    around = Call(session, query, {}, None)
    planned = plan(statement.query, around)
    run, found = begin(planned.in_two(first) if first and planned.in_two else planned, around)
    answers = pa.Table.from_batches(run.batches()).column("answer").to_pylist()
    seconds = perf_counter() - began
    calls = [call for node in infer_nodes(run.plan.root) for call in node.calls]
    measured = run.context.measured
    asked = {call.placement.weights: measured[call.out].rows for call in calls if call.out in measured}
    way = " first, ".join(sorted(asked, key=lambda weights: weights == REFERENCE))
    by_reference = asked.get(REFERENCE, 0) + sum(run.context.asked_ahead(call.out) for call in calls)
    return Ran(answers, seconds, way, by_reference, found.quality)
