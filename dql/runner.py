"""Runs statements in a worker thread while the main thread waits, so that Ctrl-C always gets through.

The first Ctrl-C stops the query and keeps its finished rows; the second gives up on it.
"""

import queue
import signal
import threading
from collections.abc import Callable, Generator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dql.executor.progress import Progress
    from dql.result import Result
    from dql.session import Session


_POLL = 0.05  # seconds between two looks at whether Ctrl-C was pressed


_PATIENCE = 1.0  # seconds that a worker gets to unwind; the process may end right after


class HardStop(KeyboardInterrupt):
    """Ctrl-C came again before the query had stopped; the worker thread is left behind and the process should end."""


class _End:
    """The worker's last word: None, or what it raised."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


def run_statements(
    session: "Session",
    text: str,
    params: Mapping[str, object] | None = None,
    *,
    progress: "Callable[[Progress], None] | None" = None,
    on_interrupt: Callable[[], None] = lambda: None,
) -> "Generator[Result]":
    """Each statement's result, computed; the next statement starts when its result is asked for.

    After Ctrl-C: the stopped statement's result with `interrupted` set, then no more (KeyboardInterrupt where it has
    no rows to keep); `on_interrupt` is called when the query is told to stop. Raises what the session raises, and
    HardStop on the second Ctrl-C.
    """
    asked = threading.Semaphore(1)
    results: queue.SimpleQueue[Result | _End] = queue.SimpleQueue()
    dropped = threading.Event()

    statements = session.run(text, params, progress=progress)

    def work() -> None:
        try:
            while asked.acquire() and not dropped.is_set() and (result := next(statements, None)) is not None:
                result.arrow()
                results.put(result)
                if result.interrupted:
                    break
        except BaseException as error:  # the main thread raises it
            results.put(_End(error))
        else:
            results.put(_End(None))

    worker = threading.Thread(target=work, name="dql-query", daemon=True)
    worker.start()
    try:
        while not isinstance(item := _take(results, session, on_interrupt), _End):
            yield item
            asked.release()
    except BaseException as end:  # the caller has seen enough, or gave up: nothing more may run behind its back
        dropped.set()
        asked.release()
        session.cancel()
        if not isinstance(end, HardStop):
            worker.join(_PATIENCE)
        raise
    worker.join(_PATIENCE)
    if item.error is not None:
        raise item.error


def _take(
    results: "queue.SimpleQueue[Result | _End]", session: "Session", on_interrupt: Callable[[], None]
) -> "Result | _End":
    told = False
    with _CountedInterrupts() as interrupts:
        while True:
            if interrupts.count > 1:
                raise HardStop
            if interrupts.count and not told:
                told = True
                session.cancel()
                on_interrupt()
            try:
                return results.get(timeout=_POLL)
            except queue.Empty:
                continue


class _CountedInterrupts:
    """Counts Ctrl-C in place of raising KeyboardInterrupt, which could come between any two steps of the wait."""

    def __init__(self) -> None:
        self.count = 0
        self._raises = False

    def __enter__(self) -> "_CountedInterrupts":
        in_main = threading.current_thread() is threading.main_thread()
        self._raises = in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler
        if self._raises:  # a background job that ignores SIGINT goes on ignoring it
            signal.signal(signal.SIGINT, self._add)
        return self

    def __exit__(self, *_: object) -> None:
        if self._raises:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _add(self, *_: object) -> None:
        self.count += 1
