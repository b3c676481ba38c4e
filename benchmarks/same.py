"""Whether queries without a bound on quality have the same answers under every plan that the planner may choose.

    python -m benchmarks.same --data reviews.csv --column reviewText --keep answers
    python -m benchmarks.same --data reviews.csv --column reviewText --keep answers --seconds 60

Every query runs over the first `--rows` different texts, cut to their first characters: as the planner would have it,
which is the reference; with sizes of batch and step far apart, of the plans that the planner simulated; below a LIMIT,
whose windows grow from 16 rows; and over a part of the rows with prefixes and equal prompts not shared, under a bound
on memory, under one on latency, and one row a query. All of it once as it is, and once with `deterministic = true`,
where every bit must be the same. A plan that would take over `--patience` times as long as the planner's own is given
fewer rows. Every plan has an engine of its own, so that none reads what another one computed.

Plans and answers are kept in a folder: the same command goes on where the last one stopped. `--seconds` stops by
itself, between two plans, and the exit status tells that some are left.
"""

import argparse
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from hashlib import blake2b
from pathlib import Path
from time import perf_counter

import pyarrow as pa

from benchmarks.tables import read_texts
from benchmarks.ways import QUERIES, Cell, Way, answer, ways
from dql.config import Config
from dql.planner.physical import Placement
from dql.session import Session

CHARACTERS = 64
MAX_TOKENS = 12
TOLERANCE = 1e-4  # of a score, which rounding may move
BAR = 0.999  # share of the rows, where answers need not be the same to the bit


@dataclass(slots=True)
class Case:
    """A query and the ways to run it, kept in a file. The first way is the reference.

    digest: of the model, the query and the texts.
    """

    name: str
    deterministic: bool
    file: Path
    digest: str
    ways: list[Way] = field(default_factory=list)

    def load(self) -> None:
        """Take what the file holds, if it is there. Raises SystemExit where that belongs to other texts."""
        if not self.file.exists():
            return
        known = json.loads(self.file.read_text())
        if known["digest"] != self.digest:
            sys.exit(f"{self.file} holds answers to other rows or another query; name another folder")
        self.ways = [_way(**each) for each in known["ways"]]

    def save(self) -> None:
        """Write the file, in one step."""
        part = self.file.with_suffix(".part")
        part.write_text(json.dumps({"digest": self.digest, "ways": [asdict(way) for way in self.ways]}))
        part.replace(self.file)

    @property
    def done(self) -> bool:
        """Whether all its ways ran."""
        return bool(self.ways) and all(way.cells is not None for way in self.ways)

    def differing(self, way: Way) -> list[int]:
        """Rows that have another answer than the reference gives."""
        return [row for row, pair in enumerate(self._pairs(way)) if not alike(*pair, exactly=self.deterministic)]

    @property
    def apart(self) -> float | None:
        """The largest difference of numbers from the reference's; None where answers have none."""
        pairs = (pair for way in self.ways for pair in self._pairs(way))
        return max((abs(a[1] - b[1]) for a, b in pairs if a[1] is not None and b[1] is not None), default=None)

    def _pairs(self, way: Way) -> Iterator[tuple[Cell, Cell]]:
        """The answers of a way, which may have run over the first rows alone, each with the reference's."""
        return zip(way.cells or [], self.ways[0].cells or [], strict=False)


def alike(one: Cell, other: Cell, *, exactly: bool) -> bool:
    """Whether two answers are one: to the last bit, or a score but for rounding."""
    if exactly:
        return one == other
    if isinstance(one[0], float) and isinstance(other[0], float):
        return abs(one[0] - other[0]) <= TOLERANCE
    return one[0] == other[0]


def main() -> None:
    """Run what is left of the plans and print the tables, or say that some are left still."""
    options = _options()
    until = perf_counter() + options.seconds
    texts = list(dict.fromkeys(text[:CHARACTERS] for text in read_texts(options.data, options.column, sys.maxsize)))
    texts = texts[: options.rows]
    options.keep.mkdir(parents=True, exist_ok=True)
    cases = []
    for name in (name for name in QUERIES if name.startswith(options.only)):
        digest = blake2b(repr((options.model, QUERIES[name], texts)).encode(), digest_size=16).hexdigest()
        for fixed in (False, True):
            case = Case(name, fixed, options.keep / f"{name}{'-deterministic' if fixed else ''}.json", digest)
            case.load()
            cases.append(case)
    for case in (case for case in cases if not case.done):
        if perf_counter() < until:
            run(case, texts, options.model, options.patience, until)
    if not all(case.done for case in cases):
        sys.exit("some plans are left; the same command goes on with them")
    print("\n".join(report(cases, texts, options.model)))


def run(case: Case, texts: Sequence[str], model: str, patience: float, until: float) -> None:
    """Run what a case lacks; no way begins at `until` (of `perf_counter`) or later."""
    with _session(model, deterministic=case.deterministic) as session:
        if not case.ways:
            session.catalog.register("reviews", pa.table({"text": texts}))
            case.ways = ways(session, case.name, len(texts), patience)
            case.save()
        for way in (way for way in case.ways if way.cells is None):
            if (began := perf_counter()) >= until:
                return
            answer(session, case.name, texts, way)
            case.save()
            took = f"{len(way.cells or [])} rows, {perf_counter() - began:.1f} s"
            print(f"{case.name}, {_yes(case)}, {way.name}: {took}", file=sys.stderr, flush=True)


def report(cases: Sequence[Case], texts: Sequence[str], model: str) -> Iterator[str]:
    """Tables as Markdown: by query, by plan, and the rows that differ."""
    yield f"{len(texts):,} different texts of at most {CHARACTERS} characters, {model}, {MAX_TOKENS} tokens generated"
    yield ""
    yield "| query | deterministic | plans | rows | rows that differ anywhere | alike | largest difference | kept |"
    yield "|---|---|---|---|---|---|---|---|"
    for case in cases:
        rows = len(case.ways[0].cells or [])
        count = len({row for way in case.ways for row in case.differing(way)})
        kept = "yes" if 1 - count / rows >= (1.0 if case.deterministic else BAR) else "NO"
        apart = "" if case.apart is None else f"{case.apart:.2g}"
        yield (
            f"| {case.name} | {_yes(case)} | {len(case.ways)} | {rows:,} | {count} "
            f"| {1 - count / rows:.2%} | {apart} | {kept} |"
        )
    yield ""
    yield "| query | deterministic | plan | rows | rows that differ | tokens guessed |"
    yield "|---|---|---|---|---|---|"
    ran = [(case, way) for case in cases for way in case.ways]
    for case, way in ran:
        differ = "reference" if way is case.ways[0] else str(len(case.differing(way)))
        yield f"| {case.name} | {_yes(case)} | {way.name} | {len(way.cells or []):,} | {differ} | {way.guessed:,} |"
    yield ""
    for case, way in ran:
        for row in case.differing(way):
            pair = [(each.cells or [])[row] for each in (case.ways[0], way)]
            yield f"- {case.name}, {_yes(case)}, {way.name}: {texts[row]!r}: {pair[0]} and {pair[1]}"


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a CSV of texts")
    parser.add_argument("--column", default="reviewText")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--only", default="", help="queries whose name begins so")
    parser.add_argument("--patience", type=float, default=4.0, help="times the planner's own seconds for all rows")
    parser.add_argument("--keep", type=Path, required=True, help="a folder for plans and answers")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="after which no other plan begins")
    return parser.parse_args()


@contextmanager
def _session(model: str, *, deterministic: bool) -> Iterator[Session]:
    """A session without a history, with this machine's models and profiles."""
    config = Config.load()
    with tempfile.TemporaryDirectory() as home:
        for kept in ("models", "profiles"):
            (Path(home) / kept).symlink_to(config.home / kept)
        with Session(config=replace(config, home=Path(home), model=model)) as session:
            for setting in (f"max_tokens = {MAX_TOKENS}", f"deterministic = {str(deterministic).lower()}"):
                session.query(f"SET {setting}")
            yield session


def _way(*, place: dict[str, object] | None, cells: list[list[object]] | None, **rest: object) -> Way:
    """A way as it was written to its file."""
    read = None if cells is None else [(value, number) for value, number in cells]
    return Way(place=None if place is None else Placement(**place), cells=read, **rest)  # type: ignore[arg-type]


def _yes(case: Case) -> str:
    return "yes" if case.deterministic else "no"


if __name__ == "__main__":
    main()
