"""Progress of a running query, drawn on stderr: a live bar on a terminal, a plain line now and then elsewhere."""

import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, TextIO

from wcwidth import clip, width

from dql.sanitize import sanitize_cell

if TYPE_CHECKING:
    from dql.executor.progress import Progress

_BAR = 24  # characters
_REDRAW = 0.1  # seconds between frames on a terminal
_PATIENCE = 0.4  # seconds before the first frame: quick queries show nothing
_LINE_EVERY = 10.0  # seconds between lines where there is no terminal
_CLEAR = "\r\x1b[K"


class ProgressDisplay:
    """Called with each Progress; `close` takes the bar off the screen. Nothing is ever written to stdout.

    `live` draws one line over and over; otherwise a line is printed at most every ten seconds.
    """

    def __init__(self, stream: TextIO, *, live: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._stream = stream
        self._live = live
        self._clock = clock
        self._next = clock() + (_PATIENCE if live else _LINE_EVERY)
        self._drawn = False
        self._start: Progress | None = None  # the first snapshot of the phase: paces count from there

    def __call__(self, progress: "Progress") -> None:
        if self._start is None or (self._start.phase, self._start.label) != (progress.phase, progress.label):
            self._start = progress
        progress = _since(self._start, progress)
        now = self._clock()
        if now < self._next:
            return
        self._next = now + (_REDRAW if self._live else _LINE_EVERY)
        if self._live:
            columns = shutil.get_terminal_size().columns - 1
            self._stream.write(_CLEAR + _shorten(_bar(progress) + status(progress), columns))
            self._drawn = True
        else:
            self._stream.write(f"dql: {status(progress)}\n")
        self._stream.flush()

    def close(self) -> None:
        """Wipe the bar, so that what follows starts on a clean line."""
        if self._drawn:
            self._stream.write(_CLEAR)
            self._stream.flush()
            self._drawn = False


def status(progress: "Progress") -> str:
    """One line in words: rows, rows/s, tokens/s, time left, reused answers, failed rows."""
    label = sanitize_cell(progress.label)
    if progress.phase != "running":
        return f"{progress.phase} {label}".rstrip()
    parts = [_rows(progress)]
    if progress.seconds > 0 and progress.rows_done:
        parts.append(f"{_rate(progress.rows_done / progress.seconds)} rows/s")
        parts.append(f"{_rate((progress.tokens_prefilled + progress.tokens_decoded) / progress.seconds)} tokens/s")
    if (left := seconds_left(progress)) is not None:
        parts.append(f"{duration(left)} left")
    if progress.calls_reused:
        parts.append(f"{progress.calls_reused:,} reused")
    if progress.rows_failed:
        parts.append(f"{progress.rows_failed:,} failed")
    return " · ".join([f"{label}: {parts[0]}" if label else parts[0], *parts[1:]])


def seconds_left(progress: "Progress") -> float | None:
    """Seconds until the last row at the pace so far; None while there is no pace or no known end."""
    if not progress.rows_total or not progress.rows_done or progress.rows_done >= progress.rows_total:
        return None
    return progress.seconds / progress.rows_done * (progress.rows_total - progress.rows_done)


def counted(number: int, noun: str) -> str:
    """`1 row`, `1,200 rows`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def duration(seconds: float) -> str:
    """`0.4 s`, `12 s`, `3 min 05 s`, `2 h 14 min`."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def _since(start: "Progress", now: "Progress") -> "Progress":
    return replace(
        now,
        seconds=now.seconds - start.seconds,
        tokens_prefilled=now.tokens_prefilled - start.tokens_prefilled,
        tokens_decoded=now.tokens_decoded - start.tokens_decoded,
    )


def _rows(progress: "Progress") -> str:
    if progress.rows_total is None:
        return counted(progress.rows_done, "row")
    return f"{progress.rows_done:,} of {counted(progress.rows_total, 'row')}"


def _rate(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def _bar(progress: "Progress") -> str:
    if progress.phase != "running" or not progress.rows_total:
        return ""
    eighths = round(min(1.0, progress.rows_done / progress.rows_total) * _BAR * 8)
    full, part = divmod(eighths, 8)
    return ("█" * full + ("▏▎▍▌▋▊▉"[part - 1] if part else "")).ljust(_BAR, "░") + " "


def _shorten(line: str, columns: int) -> str:
    if width(line, control_codes="ignore") <= columns:
        return line
    return clip(line, 0, max(1, columns - 1), control_codes="ignore") + "…"
