"""Ctrl-C: the first stops the query and keeps its rows, the second gives up waiting."""

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any, cast

import pyarrow as pa
import pytest

from dql.errors import ExecutionError
from dql.result import Outcome, Result
from dql.runner import HardStop, run_statements
from dql.session import Session
from tests.fake_session import FakeSession


@pytest.fixture(autouse=True)
def default_sigint() -> Iterator[None]:
    """Python's own handler, also where the tests run in the background of a shell, which ignores SIGINT."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


class Endless:
    """A session whose second statement runs until it is cancelled, if it listens."""

    def __init__(self, listens: bool = True) -> None:
        self.started = threading.Event()
        self.cancelled = threading.Event()
        self._listens = listens
        self._released = threading.Event()

    def run(self, text: str, *_: Any, **__: Any) -> Iterator[Result]:
        yield table_result(1)
        if text == "fails":
            raise ExecutionError("no")
        self.started.set()
        (self.cancelled if self._listens else self._released).wait(20)
        yield interrupted_result()
        raise AssertionError("nothing runs after an interrupt")

    def cancel(self) -> None:
        self.cancelled.set()

    def release(self) -> None:
        self._released.set()


class Interrupted(Result):
    @property
    def interrupted(self) -> bool:
        return True


def outcome(rows: int) -> Outcome:
    batch = pa.RecordBatch.from_pydict({"n": list(range(rows))})
    return Outcome(("n",), ("BIGINT",), lambda: iter([batch]))


def table_result(rows: int) -> Result:
    return Result(outcome(rows))


def interrupted_result() -> Result:
    return Interrupted(outcome(3))


def press_ctrl_c_when(event: threading.Event) -> None:
    def press() -> None:
        event.wait(20)
        os.kill(os.getpid(), signal.SIGINT)

    threading.Thread(target=press, daemon=True).start()


def test_the_first_ctrl_c_keeps_the_finished_rows() -> None:
    session, told = Endless(), list[str]()
    press_ctrl_c_when(session.started)
    results = run_statements(cast(Session, session), "", on_interrupt=lambda: told.append("stopping"))
    kept = [(result.interrupted, len(result)) for result in results]
    assert kept == [(False, 1), (True, 3)] and told == ["stopping"]


def test_a_query_cancelled_before_it_started_does_not_start(session: FakeSession) -> None:
    """Imports and planning come before the model: Ctrl-C counts from the moment that the statements are handed over."""
    statements = session.run("SELECT AI_GENERATE('a') AS g")
    session.cancel()
    with pytest.raises(KeyboardInterrupt):
        next(statements)
    assert [result.arrow().num_rows for result in session.run("SELECT AI_GENERATE('a') AS g")] == [1]


def test_the_second_ctrl_c_stops_waiting() -> None:
    session = Endless(listens=False)
    press_ctrl_c_when(session.started)
    press_ctrl_c_when(session.cancelled)
    with pytest.raises(HardStop):
        list(run_statements(cast(Session, session), ""))
    session.release()


def test_what_the_session_raises_arrives_after_earlier_results() -> None:
    results = run_statements(cast(Session, Endless()), "fails")
    assert len(next(results)) == 1
    with pytest.raises(ExecutionError):
        next(results)


def test_a_statement_waits_until_its_result_is_asked_for() -> None:
    session = Endless()
    results = run_statements(cast(Session, session), "")
    next(results)
    assert not session.started.wait(0.05)
    results.close()
    assert not session.started.is_set()
