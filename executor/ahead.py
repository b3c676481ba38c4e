"""Host work beside the engine: a function over items in a thread of its own, one item ahead of who asks for them.

The items come from the thread that asks. So the engine and DuckDB stay in the one thread that they know, and torch
keeps a single pool of threads; what runs beside them must hold only what it is given. numpy, Arrow and the tokenizer
let go of the interpreter while they work, and a device computes by itself.
"""

from collections import deque
from collections.abc import Callable, Collection, Generator, Iterable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

T = TypeVar("T")
R = TypeVar("R")


def ahead(function: Callable[[T], R], items: Iterable[T], *, depth: int = 1) -> Generator[R]:
    """`function` of each item, in order; up to `depth` items are pulled and begun before their results are asked for.

    Beside the item in use at most depth + 1 are held. depth 0: in line, without a thread. An error, of the function or
    of the items, is raised in its place, after the results of the items before it; KeyboardInterrupt at once. However
    it ends, no thread is left: what was begun is waited for, whatever comes meanwhile.
    """
    if not depth:
        yield from map(function, items)
        return
    worker = ThreadPoolExecutor(1, thread_name_prefix="dql-ahead")
    begun: deque[Future[R]] = deque()
    source, failure = iter(items), None
    try:
        while True:
            try:
                item = next(source)
            except StopIteration:
                break
            except Exception as error:  # raised below, in its place
                failure = error
                break
            begun.append(worker.submit(function, item))
            del item
            if len(begun) > depth:
                yield _first(begun)
        while begun:
            yield _first(begun)
        if failure is not None:
            raise failure
    finally:
        _end(worker, begun)


def _first(begun: deque[Future[R]]) -> R:
    """The oldest result; one that is awaited when Ctrl-C comes stays among those to be waited for."""
    result = begun[0].result()
    begun.popleft()
    return result


def _end(worker: ThreadPoolExecutor, begun: Collection[Future[R]]) -> None:
    """Wait for the thread, also through Ctrl-C: it may hold what the caller closes next.

    For its work first: a thread whose join was interrupted counts as ended in Python 3.11.
    """
    interrupt: KeyboardInterrupt | None = None
    while True:
        try:
            wait([future for future in begun if not future.cancel()])
            worker.shutdown()
            break
        except KeyboardInterrupt as error:
            interrupt = error
    if interrupt is not None:
        raise interrupt
