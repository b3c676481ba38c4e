r"""Whether a long run leaves the process as it was: memory, threads, handles, and blocks of the KV cache.

    python -m benchmarks.steady --data reviews.csv --column reviewText [--rows 10000] [--warm 1000] [--runs 1] \
        [--generate]

One session writes a table's answers to a Parquet file, first of some rows to warm up, then of all. The rows
are those of the file, cut short and numbered, so that no two are alike and every one of them runs. Resident memory is
printed at each tenth of the rows, and what is there before and after. Answers are remembered until their query is over,
so that equal rows of later windows are asked about once: that is what grows with the rows. With more than one run,
what is there after each is printed as well.
"""

import argparse
import csv
import gc
import os
import tempfile
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import pyarrow as pa

from dql.config import Config
from dql.executor.progress import Progress
from dql.executor.runtime import Runtime
from dql.session import Session

CHARACTERS = 24
FILTER = "SELECT AI_FILTER('This praises a film: {text}') AS answer FROM reviews"
GENERATE = "SELECT AI_GENERATE('Say praise or blame: {text}', max_tokens => 2) AS answer FROM reviews"


@dataclass(frozen=True, slots=True)
class Held:
    """What a process holds: MB of resident memory, open files, threads of all libraries, and Python's by name."""

    memory: float
    handles: int
    tasks: int
    threads: tuple[str, ...]

    @classmethod
    def now(cls) -> "Held":
        names = sorted(thread.name.rstrip("0123456789_") for thread in threading.enumerate())
        handles, tasks = (len(os.listdir(f"/proc/self/{kind}")) for kind in ("fd", "task"))
        return cls(_resident(), handles, tasks, tuple(names))

    def __str__(self) -> str:
        return f"{self.memory:,.0f} MB, {self.handles} handles, {self.tasks} threads ({', '.join(self.threads)})"


@dataclass
class Watch:
    """Takes note of the memory at each tenth of a run's rows."""

    rows: int
    seen: dict[int, float]

    def __call__(self, progress: Progress) -> None:
        tenth = 10 * progress.rows_done // self.rows
        if tenth not in self.seen:
            self.seen[tenth] = _resident()


def main() -> None:
    """Run, and print a table."""
    options = _options()
    with options.data.open(newline="") as file:
        texts = [row[options.column] for row in csv.DictReader(file) if row[options.column]]
    query = GENERATE if options.generate else FILTER
    with _session(options.model) as session, tempfile.TemporaryDirectory() as folder:
        target = f"{query} INTO '{folder}/answers.parquet'"
        _run(session, _numbered(texts, options.warm or options.rows // 10, "warm "), target)
        before, began = _settled(), perf_counter()
        watch = Watch(options.rows, {})
        stats = _run(session, _numbered(texts, options.rows, ""), target, watch)
        for number in range(1, options.runs):
            print(f"after {number} of {options.runs} runs: {_settled()}")
            _run(session, _numbered(texts, options.rows, f"{number} "), target)
        seconds, after = perf_counter() - began, _settled()
        print(f"{options.rows:,} rows, {stats} in {seconds:.0f} s")
        print(f"before: {before}\nafter:  {after}")
        print("MB by tenths:", ", ".join(f"{watch.seen[tenth]:,.0f}" for tenth in sorted(watch.seen)))
        print("blocks:", _blocks(session.runtime))
        assert before.threads == after.threads and before.tasks >= after.tasks, "a thread is left"
        assert before.handles >= after.handles, "a handle is left"


def _run(session: Session, texts: Sequence[str], query: str, watch: Watch | None = None) -> str:
    tables = {"reviews": pa.table({"text": texts})}
    stats = session.query(query, tables=tables, progress=watch).stats()
    assert not stats.failed and stats.rows == len(texts) == stats.calls - stats.calls_reused
    return f"{stats.tokens_prefilled:,} tokens computed, {stats.tokens_decoded:,} drawn"


def _numbered(texts: Sequence[str], rows: int, word: str) -> list[str]:
    return [f"{word}{row} {texts[row % len(texts)][:CHARACTERS]}" for row in range(rows)]


def _settled() -> Held:
    gc.collect()
    return Held.now()


def _resident() -> float:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def _blocks(runtime: Runtime) -> str:
    found = []
    for engine in runtime.loaded:
        engine.pool.clear()
        assert engine.free_slots == engine.pool.slots, "slots are held by nobody"
        found.append(f"{engine.free_slots:,} of {engine.pool.slots:,} slots are free")
    return ", ".join(found)


@contextmanager
def _session(model: str) -> Iterator[Session]:
    """A session without a history, whose model is that of the machine."""
    known = Config.load()
    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "models").symlink_to(known.models_dir)
        with Session(config=Config(home=Path(home), model=model)) as session:
            yield session


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, required=True, help="a CSV file")
    parser.add_argument("--column", required=True, help="its column of texts")
    parser.add_argument("--rows", type=int, default=10_000)
    parser.add_argument("--warm", type=int, help="rows of the run before it, a tenth unless given")
    parser.add_argument("--runs", type=int, default=1, help="so many of them, one after the other")
    parser.add_argument("--model", default="smollm2")
    parser.add_argument("--generate", action="store_true", help="two tokens a row instead of a filter")
    return parser.parse_args()


if __name__ == "__main__":
    main()
