"""Runs statements in a worker thread while the main thread waits, so that Ctrl-C always gets through.

The first Ctrl-C stops the query and keeps its finished rows; the second gives up on it.
"""

import queue
import threading
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dql.executor.progress import Progress
    from dql.result import Result
    from dql.session import Session


_POLL = 0.1  # seconds; a signal that comes just before a wait begins does not end that wait


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
) -> "Iterator[Result]":
    """Each statement's result, computed; the next statement starts when its result is asked for.

    After Ctrl-C: the stopped statement's result with `interrupted` set, then no more (KeyboardInterrupt where it has
    no rows to keep); `on_interrupt` is called when the query is told to stop. Raises what the session raises, and
    HardStop on the second Ctrl-C.
    """
    asked = threading.Semaphore(1)
    results: queue.SimpleQueue[Result | _End] = queue.SimpleQueue()
    dropped = threading.Event()

    def work() -> None:
        try:
            statements = session.run(text, params, progress=progress)
            while asked.acquire() and not dropped.is_set() and (result := next(statements, None)) is not None:
                result.arrow()
                results.put(result)
                if result.interrupted:
                    break
        except BaseException as error:  # the main thread raises it
            results.put(_End(error))
        else:
            results.put(_End(None))

    threading.Thread(target=work, name="dql-query", daemon=True).start()
    try:
        while not isinstance(item := _take(results, session, on_interrupt), _End):
            yield item
            asked.release()
    except GeneratorExit:  # the caller has seen enough; the worker waits in acquire
        dropped.set()
        asked.release()
        raise
    if item.error is not None:
        raise item.error


def _take(
    results: "queue.SimpleQueue[Result | _End]", session: "Session", on_interrupt: Callable[[], None]
) -> "Result | _End":
    interrupts, told = 0, False
    while True:
        try:
            if interrupts and not told:
                session.cancel()
                on_interrupt()
                told = True
            return results.get(timeout=_POLL)
        except queue.Empty:
            continue
        except KeyboardInterrupt:
            interrupts += 1
            if interrupts > 1:
                raise HardStop from None
