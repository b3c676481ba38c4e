"""A statement that stopped goes on from all that was answered, and from nothing else."""

import signal
import threading
import time
from collections.abc import Callable, Generator, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

from dql.catalog import Catalog
from dql.config import Config
from dql.errors import BindError
from dql.executor.block_pool import Block, BlockPool
from dql.executor.operators import execute
from dql.executor.requests import Answer
from dql.result import Result
from dql.session import Session
from tests.fake_session import FakeEngine, FakeSession

ROWS = 10
SAY = "SELECT i, AI_GENERATE('say ' || i{}) AS g FROM range(10) r(i)"
PLAIN = SAY.format("")
SAID = [f"say {i}" for i in range(ROWS)]


@pytest.fixture
def at(monkeypatch: pytest.MonkeyPatch) -> dict[int, Callable[[], object]]:
    """What happens before the answer of this number comes, in any run of an engine."""
    acts: dict[int, Callable[[], object]] = {}
    run = FakeEngine.run

    def running(engine: FakeEngine, *given: Any, **options: Any) -> Generator[Answer]:
        for number, found in enumerate(run(engine, *given, **options)):
            if number in acts:
                acts.pop(number)()
            yield found

    monkeypatch.setattr(FakeEngine, "run", running)
    return acts


def fail() -> None:
    raise RuntimeError("a bug")


def stop(session: FakeSession, at: dict[int, Callable[[], object]], text: str = PLAIN, answered: int = 6) -> None:
    """Run a statement that fails after some answers, and forget what was asked."""
    at[answered] = fail
    with pytest.raises(RuntimeError, match="a bug"):
        session.query(text).arrow()
    for engine in session._fake.engines.values():
        engine.asked.clear()


def journals(session: FakeSession) -> list[Path]:
    return list(session.config.unfinished_dir.glob("*"))


def test_all_that_was_answered_before_an_error_is_kept(
    session: FakeSession, at: dict[int, Callable[[], object]]
) -> None:
    stop(session, at)
    assert session.query(PLAIN).arrow()["g"].to_pylist() == SAID
    assert len(session.asked) == ROWS - 6 and not journals(session)


def test_a_result_that_failed_is_asked_for_the_rest(session: FakeSession, at: dict[int, Callable[[], object]]) -> None:
    at[6] = fail
    result = session.query(PLAIN)
    with pytest.raises(RuntimeError, match="a bug"):
        result.arrow()
    assert result.arrow()["g"].to_pylist() == SAID
    assert len(session.asked) == ROWS + 1  # the one that failed was asked twice


def test_few_slow_answers_are_on_the_disk_before_the_next_comes(
    session: FakeSession, at: dict[int, Callable[[], object]], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the process is killed, they are not lost, though they are too few to be read together."""
    monkeypatch.setattr("dql.executor.unfinished._FIRST", 0.01)

    def wait() -> None:
        until = time.monotonic() + 20
        while not sum(file.stat().st_size for file in journals(session)):
            assert time.monotonic() < until, "nothing was written"
            time.sleep(0.01)

    at[3] = wait
    assert session.query(PLAIN).arrow()["g"].to_pylist() == SAID
    assert not journals(session)


@pytest.mark.parametrize(
    ("first", "then", "asked"),
    [
        (PLAIN, f"{PLAIN} WITH latency < 1h", 4),  # another pace, the same answers
        (SAY.format(", temperature => 1, seed => 7"), SAY.format(", temperature => 1, seed => 7"), 4),
        (SAY.format(", temperature => 1, seed => 7"), SAY.format(", temperature => 1, seed => 8"), 10),
        (SAY.format(", temperature => 1"), SAY.format(", temperature => 1"), 10),  # every sample is drawn
        (PLAIN, SAY.format(", max_tokens => 40"), 10),
    ],
)
def test_only_the_same_question_is_taken_as_answered(
    session: FakeSession, at: dict[int, Callable[[], object]], first: str, then: str, asked: int
) -> None:
    stop(session, at, first)
    session.query(then).arrow()
    assert len(session.asked) == asked


def test_rows_that_changed_are_asked_about(session: FakeSession, at: dict[int, Callable[[], object]]) -> None:
    text = "SELECT AI_GENERATE('say ' || i) AS g FROM t"
    session.query("CREATE TABLE t AS SELECT i FROM range(10) r(i)")
    stop(session, at, text)
    session.query("UPDATE t SET i = i + 100 WHERE i % 2 = 0")
    assert set(session.query(text).arrow()["g"].to_pylist()) == {f"say {i + 100 * (i % 2 == 0)}" for i in range(10)}
    assert len(session.asked) == ROWS - 3  # 1, 3 and 5 were answered


def test_analyze_measures_the_rest_and_takes_nothing_away(
    session: FakeSession, at: dict[int, Callable[[], object]]
) -> None:
    stop(session, at)
    session.query(f"EXPLAIN ANALYZE {PLAIN}")
    assert len(session.asked) == ROWS - 6 and len(journals(session)) == 1
    session.query(PLAIN).arrow()
    assert len(session.asked) == 2 * (ROWS - 6) and not journals(session)


def test_rows_are_kept_where_reading_further_ones_is_interrupted(
    session: FakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    stream = Catalog.stream

    def interrupted(*given: Any) -> Iterator[pa.RecordBatch]:
        yield from stream(*given)
        if given[2] == 4:  # the run's own reading
            raise KeyboardInterrupt

    monkeypatch.setattr(Catalog, "stream", interrupted)
    monkeypatch.setattr("dql.executor.infer.WINDOW_ROWS", 4)
    monkeypatch.setattr("dql.executor.operators.SCAN_ROWS", 4)
    result = session.query(PLAIN)
    assert result.arrow()["g"].to_pylist() == SAID[:4] and result.interrupted
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("dql-")]
    monkeypatch.setattr("dql.executor.infer.WINDOW_ROWS", 99)
    with pytest.raises(KeyboardInterrupt):
        session.query(PLAIN).arrow()


def test_a_run_is_ended_whatever_fails_at_its_end(session: FakeSession, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*given: Any) -> Generator[pa.RecordBatch]:
        try:
            yield from execute(*given)
        finally:
            fail()

    monkeypatch.setattr("dql.executor.runtime.execute", failing)
    run = session.query(PLAIN)._outcome.run
    assert run is not None
    reading = run.batches()
    next(reading)
    with pytest.raises(RuntimeError, match="a bug"):
        reading.close()
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("dql-")]
    assert len(journals(session)) == 1


def test_rejects_are_not_the_target(session: FakeSession, tmp_path: Path) -> None:
    with pytest.raises(BindError, match="both the rows and the rejected ones"):
        session.query(f"{PLAIN} WITH rejects = '{tmp_path}/a.csv' INTO '{tmp_path}/./a.csv'")
    assert not session.asked


@pytest.mark.slow
def test_an_interrupt_ends_the_engine_between_two_steps(
    tmp_path: Path, model_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where it comes while slots are handed out, none is lost; the rows that were finished are there."""
    allocate, counted, at = BlockPool.allocate, 0, -1

    def interrupted(pool: BlockPool, length: int) -> Block | None:
        nonlocal counted
        block, counted = allocate(pool, length), counted + 1
        if counted == at:
            signal.raise_signal(signal.SIGINT)
        return block

    monkeypatch.setattr(BlockPool, "allocate", interrupted)
    with Session(config=Config(home=tmp_path, model=str(model_file), threads=1)) as session:

        def run(text: str) -> Result:
            tables = {"t": pa.table({"body": [f"{i} {text} {i}" for i in range(600)]})}
            query = "SELECT AI_GENERATE('Say {body}', max_tokens => 4) AS g FROM t WITH batch_size = 16"
            return session.query(query, tables=tables)

        assert len(run("one")) == 600
        at, counted = counted * 3 // 4, 0
        stopped = run("two")
        assert 0 < len(stopped) < 600 and stopped.interrupted
        assert all(engine.free_slots == engine.pool.slots and engine.idle for engine in session.runtime.loaded)
        at = -1
        assert len(run("two")) == 600
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_an_interrupt_while_a_frame_is_looked_at_is_one(session: FakeSession) -> None:
    class Frame:
        def __arrow_c_stream__(self, requested_schema: object = None) -> object:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        session.query("SELECT AI_GENERATE('say ' || i) AS g FROM t", tables={"t": Frame()}).arrow()


def test_a_result_given_up_half_way_is_read_whole_and_counted_once(session: FakeSession) -> None:
    result = session.query(PLAIN)
    some = result.batches(2)
    assert next(some).num_rows == 2
    some.close()  # type: ignore[attr-defined]
    assert [row["g"] for row in result.arrow().to_pylist()] == SAID
    assert result.stats().rows == len(result) == ROWS
    assert result.stats().calls == ROWS
