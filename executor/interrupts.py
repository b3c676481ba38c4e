"""Ctrl-C while an engine runs: it ends between two steps, not between any two lines of the scheduler's books."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def held_back(cancel: Callable[[], None]) -> Iterator[None]:
    """The first Ctrl-C in the block calls `cancel` in place of raising KeyboardInterrupt; the second raises it.

    Only where Python's own handler would raise it here: in the main thread of a program that has no other.
    """
    in_main = threading.current_thread() is threading.main_thread()
    if not in_main or signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return

    def told(number: int, frame: FrameType | None) -> None:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        cancel()

    signal.signal(signal.SIGINT, told)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)
