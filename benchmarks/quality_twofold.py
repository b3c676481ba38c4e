"""Cases of the whole procedure under a quality bound: what is dealt to the texts of a table, and what becomes of it."""

import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.dealt import REFERENCE, Table, Trial, Truth, Truths

ROWS = 5_000
TARGET, DELTA = 0.95, 0.05
FILTER, CLASSIFY = "AI_FILTER('{body} mentions bug')", "AI_CLASSIFY(body, ['bug', 'praise'])"
ONE = f"SELECT {FILTER} AS f FROM t WITH quality >= {TARGET}"
TWO = f"SELECT {FILTER} AS f, {CLASSIFY} AS c FROM t WITH quality >= {TARGET}"

Random = np.random.Generator
Order = Callable[
    [Random, NDArray[np.float64]], NDArray[np.float64]
]  # of texts by how sure they are; the first go wrong


@dataclass(frozen=True, slots=True)
class Case:
    """agrees: the share of rows in which each lower precision says what the reference does. wrong: which rows these
    are not. texts: the table."""

    name: str
    agrees: dict[str, float]
    wrong: Order
    texts: Callable[[Random], NDArray[np.int64]]
    query: str = ONE


def silent(random: Random, sure: NDArray[np.float64]) -> NDArray[np.float64]:
    """Any row: how sure it is says nothing."""
    return random.random(len(sure))


def honest(random: Random, sure: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows of which it is unsure, more or less."""
    return sure + random.normal(0, 0.08, len(sure))


def boastful(random: Random, sure: NDArray[np.float64]) -> NDArray[np.float64]:
    """The rows of which it is surest."""
    return -sure


def stepped(random: Random, sure: NDArray[np.float64]) -> NDArray[np.float64]:
    """Rows just above a confidence of 0.8: thresholds above are flawless, and the first below breaks the promise."""
    return np.where(sure >= 0.8, sure, 2.0)


def distinct(random: Random) -> NDArray[np.int64]:
    return np.arange(ROWS)


def ragged(random: Random) -> NDArray[np.int64]:
    """A fifth of the rows has no text; of the others four share one on average, some of them dozens."""
    texts = np.repeat(np.arange(ROWS), random.geometric(0.25, ROWS))[:ROWS]
    return random.permutation(np.concatenate([texts, np.full(ROWS // 4, -1)]))


CASES = (
    Case("0.948, silent", {"bf16": 0.948}, silent, distinct),
    Case("0.948, honest", {"bf16": 0.948}, honest, distinct),
    Case("0.948, surest are wrong", {"bf16": 0.948}, boastful, distinct),
    Case("0.948, wrong from 0.8 on", {"bf16": 0.948}, stepped, distinct),
    Case("0.90, silent", {"bf16": 0.90}, silent, distinct),
    Case("0.90, honest", {"bf16": 0.90}, honest, distinct),
    Case("0.97, honest", {"bf16": 0.97}, honest, distinct),
    Case("0.99, honest", {"bf16": 0.99}, honest, distinct),
    Case("NULLs and duplicates, 0.948, silent", {"bf16": 0.948}, silent, ragged),
    Case("NULLs and duplicates, 0.948, wrong from 0.8 on", {"bf16": 0.948}, stepped, ragged),
    Case("two calls, 0.948, silent", {"bf16": 0.948}, silent, distinct, TWO),
    Case("two precisions, 0.948, wrong from 0.8 on", {"bf16": 0.948, "int8": 0.948}, stepped, distinct),
)


def trials(case: Case, count: int, seed: int = 0) -> Iterator[Trial]:
    """So many of them; the truth is dealt anew in each."""
    random = np.random.default_rng([seed, count])
    texts = case.texts(random)
    with tempfile.TemporaryDirectory() as folder, Table(Path(folder), texts, tuple(case.agrees)) as table:
        planned = table.planned(case.query)
        for _ in range(count):
            yield table.tried(planned, dealt(random, case, table.rows))


def dealt(random: Random, case: Case, rows: NDArray[np.int64]) -> Truths:
    """A truth for each kind of call and precision. rows: how many each text has."""
    return {
        (op, precision): truth(random, case.wrong, share, rows)
        for op in ("filter", "classify")
        for precision, share in case.agrees.items()
    }


def truth(random: Random, wrong: Order, share: float, rows: NDArray[np.int64]) -> Truth:
    """Rows of texts that come first in the order go wrong until no more than `share` of all rows is left."""
    sure = random.random(len(rows)) / 2 + 0.5
    order = np.argsort(wrong(random, sure))
    enough = int(np.searchsorted(np.cumsum(rows[order]), (1 - share) * rows.sum() - 1e-9)) + 1
    same = np.ones(len(rows), bool)
    same[order[:enough]] = False
    return Truth(same, sure)


def report(count: int, only: str) -> Iterator[str]:
    """The table line by line, of cases whose name begins with `only`; the last says whether every promise was kept."""
    allowed = DELTA + 2 * float(np.sqrt(DELTA * (1 - DELTA) / count))
    yield f"The whole procedure: {ROWS:,} rows that are asked about, target {TARGET}, {count:,} tables a case"
    yield f"{'case':<50}{'whole':>8}{'in two':>8}{'fp32':>8}{'broken':>9}{'allowed':>9}{'saved':>8}"
    worst = 0.0
    for case in (c for c in CASES if c.name.startswith(only)):
        found = list(trials(case, count))
        broken = float(np.mean([trial.agreement < TARGET for trial in found]))
        ways = [trial.way for trial in found]
        two = sum(way.endswith("first") for way in ways)
        whole = len(ways) - two - ways.count(REFERENCE)
        shares = "".join(f"{n / count:>8.1%}" for n in (whole, two, ways.count(REFERENCE)))
        saved = 1 - float(np.mean([trial.asked for trial in found]))
        yield f"{case.name:<50}{shares}{broken:>9.1%}{allowed:>9.1%}{saved:>8.1%}"
        worst = max(worst, broken / allowed)
    yield "every promise kept" if worst <= 1 else f"a promise broken {worst:.2f} times as often as allowed"
