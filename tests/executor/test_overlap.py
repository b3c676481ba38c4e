"""Host work beside the engine's: what is ahead of what, errors in their place, and no thread left behind."""

import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dql.executor.ahead import ahead
from dql.executor.inquiry import _Asking
from dql.executor.prepare import Prepared, Preparer
from dql.executor.requests import Answer
from dql.executor.sink import AtomicFile
from tests.fake_session import FakeEngine, FakeSession


def working() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name.startswith("dql-ahead")]


def failing(at: int | None, error: type[BaseException] = ValueError) -> Callable[[int], int]:
    def checked(number: int) -> int:
        if number == at:
            raise error(number)
        return number

    return checked


def collected(results: Iterator[int]) -> tuple[list[int], BaseException | None]:
    """What came, and what ended it."""
    found: list[int] = []
    try:
        found.extend(results)
    except (ValueError, KeyboardInterrupt) as error:
        return found, error
    return found, None


@given(st.integers(0, 9), st.integers(0, 3), st.none() | st.integers(0, 9), st.none() | st.integers(0, 9))
def test_it_yields_what_a_loop_would_and_fails_where_that_would(
    count: int, depth: int, bad_item: int | None, bad_result: int | None
) -> None:
    source, function = failing(bad_item), failing(bad_result)
    plain, why = collected(function(source(number)) for number in range(count))
    found, error = collected(ahead(function, map(source, range(count)), depth=depth))
    assert found == plain
    assert repr(error) == repr(why)
    assert not working()


def test_the_next_item_is_done_while_the_one_before_is_in_use() -> None:
    done = [threading.Event() for _ in range(5)]
    pulled_in, done_in = set[int](), set[int]()

    def items() -> Iterator[int]:
        for number in range(5):
            pulled_in.add(threading.get_ident())
            yield number

    def finish(number: int) -> int:
        done_in.add(threading.get_ident())
        done[number].set()
        return number

    results = ahead(finish, items())
    for number in results:
        assert all(event.wait(20) for event in done[: number + 2])
        assert not any(event.is_set() for event in done[number + 2 :])
    assert pulled_in == {threading.get_ident()}
    assert len(done_in) == 1 and not done_in & pulled_in


def test_closing_waits_for_the_thread_and_drops_what_it_has_not_begun() -> None:
    second, closing, begun = threading.Event(), threading.Event(), list[int]()

    def slow(number: int) -> int:
        begun.append(number)
        if number == 1:
            second.set()
            assert closing.wait(20)
        return number

    results = ahead(slow, iter(range(9)), depth=3)
    assert next(results) == 0 and second.wait(20)
    threading.Timer(0.05, closing.set).start()
    results.close()
    assert begun == [0, 1] and not working()


def test_an_interrupt_waits_for_what_the_thread_holds() -> None:
    begun, release = threading.Event(), threading.Event()

    def slow(number: int) -> int:
        if number == 1:
            begun.set()
            assert release.wait(20)
        return number

    results = ahead(slow, iter(range(9)))
    assert next(results) == 0 and begun.wait(20)

    def interrupt() -> None:
        os.kill(os.getpid(), signal.SIGINT)
        threading.Timer(0.2, release.set).start()  # from the interrupt on: on a busy machine both come late

    threading.Timer(0.2, interrupt).start()
    with pytest.raises(KeyboardInterrupt):
        results.close()
    assert release.is_set() and not working()


def test_an_interrupt_does_not_wait_for_what_was_begun() -> None:
    found, error = collected(ahead(failing(None), map(failing(2, KeyboardInterrupt), range(9))))
    assert found == [0] and isinstance(error, KeyboardInterrupt)
    assert not working()


@pytest.mark.parametrize("depth", [0, 1])
def test_nothing_is_pulled_before_the_first_is_asked_for(depth: int) -> None:
    pulled: list[int] = []

    def items() -> Iterator[int]:
        for number in range(9):
            pulled.append(number)
            yield number

    results = ahead(failing(None), items(), depth=depth)
    assert not pulled
    assert next(results) == 0
    assert len(pulled) == 1 + depth
    results.close()
    assert not working()


class Log:
    """What the parts of a run did, in order: ("read" | "prepared" | "ran", number of the window), and in which thread.

    `hold`, where given, is what the engine does before it answers a window.
    """

    def __init__(
        self, patch: pytest.MonkeyPatch, hold: Callable[["Log", int], None] = lambda log, number: None
    ) -> None:
        self.events: list[tuple[str, int]] = []
        self.threads: dict[str, set[int]] = {}
        self._counts: dict[str, int] = {}
        self._changed = threading.Condition()
        prepare, run = Preparer.__call__, FakeEngine.run

        def preparing(preparer: Preparer, window: pa.RecordBatch) -> Prepared:
            found = prepare(preparer, window)
            self.note("prepared")
            return found

        def running(engine: FakeEngine, *given: Any, **options: Any) -> Generator[Answer]:
            hold(self, self._counts.get("ran", 0))
            yield from run(engine, *given, **options)
            self.note("ran")

        patch.setattr(Preparer, "__call__", preparing)
        patch.setattr(FakeEngine, "run", running)

    def note(self, what: str) -> None:
        with self._changed:
            number = self._counts.get(what, 0)
            self._counts[what] = number + 1
            self.events.append((what, number))
            self.threads.setdefault(what, set()).add(threading.get_ident())
            self._changed.notify_all()

    def wait(self, what: str, number: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: (what, number) in self.events, 20), (what, number, self.events)


CALL = "AI_CLASSIFY(body, ['a', 'b'])"
ROWS = "(SELECT 'a ' || i AS body FROM range(40) r(i)) t"


@pytest.fixture
def small_windows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dql.executor.infer.WINDOW_ROWS", 8)


def test_a_window_is_prepared_while_the_engine_answers_the_one_before(
    session: FakeSession, small_windows: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = Log(monkeypatch, lambda log, number: log.wait("prepared", number + 1))
    stats = session.query(f"SELECT {CALL} AS c FROM {ROWS}").stats()
    assert (stats.rows, stats.calls) == (40, 40)
    assert log.events[-2:] == [("prepared", 5), ("ran", 4)]  # an empty window is the last
    assert not working()
    for number in range(3):  # no further ahead than one window
        assert log.events.index(("prepared", number + 2)) > log.events.index(("ran", number))
    assert log.threads["ran"] == {threading.get_ident()}
    assert threading.get_ident() not in log.threads["prepared"]


@pytest.mark.parametrize(
    "query",
    [
        f"SELECT body FROM {ROWS} WHERE {CALL} = 'a' LIMIT 20",
        f"SELECT body FROM {ROWS} WHERE AI_FILTER('{{body}} has 1') AND AI_FILTER('{{body}} has 2')",
    ],
)
def test_what_a_decision_may_spare_is_not_prepared(
    session: FakeSession, small_windows: None, monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    """A LIMIT may end the run after any window, and conditions are asked in an order that each window teaches."""
    monkeypatch.setattr("dql.executor.infer.FIRST_ROWS", 8)
    monkeypatch.setattr("dql.executor.sift.PILOT_ROWS", 8)
    log = Log(monkeypatch)
    session.query(query).arrow()
    assert [what for what, _ in log.events] == ["prepared", "ran"] * (len(log.events) // 2)
    assert log.threads["prepared"] == {threading.get_ident()}


def test_a_cancelled_run_keeps_the_rows_that_are_finished(
    session: FakeSession, small_windows: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cancel(log: Log, number: int) -> None:
        log.wait("prepared", number + 1)
        if number == 2:
            session.cancel()

    Log(monkeypatch, cancel)
    result = session.query(f"SELECT {CALL} AS c FROM {ROWS}")
    assert 16 <= len(result) < 24
    assert result.interrupted
    assert not working()


def test_rows_read_by_halves_leave_no_thread(session: FakeSession, small_windows: None) -> None:
    batches = session.query(f"SELECT {CALL} AS c FROM {ROWS}").batches()
    assert next(iter(batches)).num_rows == 8
    assert working()
    del batches
    assert not working()


def test_what_is_generated_is_read_while_the_engine_goes_on(
    session: FakeSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    spelt, run = _Asking._spelt, FakeEngine.run
    read, readers = threading.Event(), set[int]()

    def spelling(asking: _Asking, answers: Sequence[Answer]) -> Sequence[Answer]:
        readers.add(threading.get_ident())
        found = spelt(asking, answers)
        read.set()
        return found

    def running(engine: FakeEngine, *given: Any, **options: Any) -> Generator[Answer]:
        for number, found in enumerate(run(engine, *given, **options)):
            assert number != 5 or read.wait(20)  # the first four have been read by now
            yield found

    monkeypatch.setattr("dql.executor.inquiry.TOGETHER_READ", 4)
    monkeypatch.setattr(_Asking, "_spelt", spelling)
    monkeypatch.setattr(FakeEngine, "run", running)
    table = session.query("SELECT i, AI_GENERATE('say ' || i, max_tokens => 40) AS g FROM range(10) r(i)").arrow()
    assert table["g"].to_pylist() == [f"say {i}" for i in table["i"].to_pylist()]
    assert len(readers) == 1 and threading.get_ident() not in readers
    assert not working()


def test_a_file_is_written_in_parts_beside_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dql.executor.sink.ROW_GROUP_ROWS", 2)
    batches = [pa.RecordBatch.from_pydict({"n": [number]}) for number in range(5)]
    with AtomicFile(str(tmp_path / "f.parquet"), "parquet", {}) as file:
        file.write(iter(batches))
        file.commit()
    written = pq.ParquetFile(tmp_path / "f.parquet")
    assert written.metadata.num_row_groups == 3 and not working()
    assert written.read()["n"].to_pylist() == list(range(5))
