"""Queries over made-up texts that the planner's benchmarks run, and how they are planned."""

from dataclasses import dataclass

import pyarrow as pa

from benchmarks.tables import GUIDELINES
from dql.executor.progress import Tracker
from dql.grammar.ast import QueryStatement
from dql.grammar.parser import parse
from dql.planner.physical import Placement
from dql.planner.plan import Planned
from dql.session import Session
from dql.statements import Call, plan

TEXT = (
    "the parcel arrived late and the box was torn on one side so I want my money back please answer soon thank you for "
    "your help with the invoice of last month which I cannot find in my account although I looked twice"
)
WORDS = tuple(TEXT.split())
REWORD = "'Say it in other words: {body}'"
GREEDY = f"GENERATE {REWORD} AS a FROM t WITH max_tokens = 32"
LABELS = "['billing', 'delivery', 'praise', 'other']"


@dataclass(frozen=True, slots=True)
class Workload:
    """A query over `rows` texts of `words` words (5 to −2 · `words` where negative), `distinct` of them different.

    guidelines: sentences of instruction in front.
    """

    name: str
    query: str
    rows: int
    words: int
    guidelines: int = 0
    distinct: int = 0


WORKLOADS = (
    Workload("classify, short texts", f"SELECT AI_CLASSIFY(body, {LABELS}) AS a FROM t", 96, 12),
    Workload("classify, long texts", f"SELECT AI_CLASSIFY(body, {LABELS}) AS a FROM t", 24, 150),
    Workload("classify, mixed lengths", f"SELECT AI_CLASSIFY(body, {LABELS}) AS a FROM t", 48, -80),
    Workload("filter, long instruction", "SELECT AI_FILTER('{g} {body} asks for money') AS a FROM t", 64, 16, 12),
    Workload("score, eleven points", "SELECT AI_SCORE('How angry is this? {body}') AS a FROM t", 64, 20),
    Workload("classify, every text four times", f"SELECT AI_CLASSIFY(body, {LABELS}) AS a FROM t", 192, 20, 0, 48),
    Workload("classify, tight latency", f"SELECT AI_CLASSIFY(body, {LABELS}) AS a FROM t WITH latency < 3s", 48, 20),
    Workload("generate 8", "GENERATE 'Name the mood: {body}' AS a FROM t WITH max_tokens = 8", 64, 20),
    Workload("generate 32", GREEDY, 48, 20),
    Workload("greedy", GREEDY, 128, 20),
    Workload("sampled", f"{GREEDY}, temperature = 0.8", 128, 20),
    Workload("with details", f"SELECT AI_GENERATE({REWORD}, max_tokens => 32, details => true) AS a FROM t", 128, 20),
    Workload("generate 96, few rows", "GENERATE 'Answer this: {body}' AS a FROM t WITH max_tokens = 96", 6, 20),
    Workload(
        "generate, long instruction", "GENERATE '{g} Mood of: {body}' AS a FROM t WITH max_tokens = 8", 48, 16, 24
    ),
    Workload(
        "generate, batch of 4", "GENERATE 'Mood: {body}' AS a FROM t WITH max_tokens = 16, batch_size = 4", 24, 20
    ),
    Workload(
        "classify, deterministic", f"SELECT AI_CLASSIFY(body, {LABELS}) AS a FROM t WITH deterministic = true", 48, 20
    ),
    Workload(
        "generate 16, deterministic",
        "GENERATE 'Name the mood: {body}' AS a FROM t WITH max_tokens = 16, deterministic = true",
        24,
        20,
    ),
    Workload("generate, one by one", "GENERATE 'Mood: {body}' AS a FROM t WITH max_tokens = 16, batch_size = 1", 6, 9),
    Workload(
        "two calls a row",
        f"SELECT AI_CLASSIFY(body, {LABELS}) AS a, AI_GENERATE('Mood: {{body}}', max_tokens => 8) AS b FROM t",
        32,
        20,
    ),
)


def planned(session: Session, workload: Workload, seed: int) -> tuple[Planned, Call]:
    """The workload's query over texts and below instructions of this seed, bound and rewritten."""
    session.catalog.register("t", texts(workload, seed=seed))
    rules = " ".join((f"Rules number {seed}.", *GUIDELINES[: workload.guidelines])).replace("'", "''")
    query = workload.query.replace("{g}", rules)
    (statement,) = parse(query)
    assert isinstance(statement, QueryStatement)
    around = Call(session, query, {}, None)
    return plan(statement.query, around), around


def forget(session: Session) -> None:
    """Let the engine drop the beginnings of prompts that it kept, so that the next run computes its own."""
    session.runtime.engine(session.model, Placement(), Tracker()).pool.clear()


def texts(workload: Workload, seed: int) -> pa.Table:
    """The workload's rows; another seed gives other texts of the same lengths."""
    distinct = workload.distinct or workload.rows
    bodies = []
    for row in range(distinct):
        count = workload.words if workload.words > 0 else 5 + (row * 37) % (-2 * workload.words)
        words = [WORDS[(row * 7 + i * (row % 5 + 1) + seed) % len(WORDS)] for i in range(count)]
        bodies.append(f"{row + 1000 * seed} {' '.join(words)}")
    return pa.table({"body": [bodies[row % distinct] for row in range(workload.rows)]})
