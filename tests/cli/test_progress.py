"""Progress lines: what they say, how often, and that labels are data."""

import io
from dataclasses import dataclass, replace

import pytest

from dql.progress import ProgressDisplay, duration, seconds_left, status


@dataclass(frozen=True)
class Snapshot:
    """Has the fields of the engine's Progress."""

    rows_done: int = 412
    rows_total: int | None = 1143
    rows_failed: int = 0
    tokens_prefilled: int = 8000
    tokens_reused: int = 70_000
    tokens_decoded: int = 13_184
    calls_reused: int = 0
    seconds: float = 100.0
    phase: str = "running"
    label: str = "summary"


def test_status_names_rows_pace_time_left_and_errors() -> None:
    assert status(Snapshot()) == "summary: 412 of 1,143 rows · 4.1 rows/s · 212 tokens/s · 2 min 57 s left"
    busy = status(Snapshot(calls_reused=57, rows_failed=2, rows_total=None))
    assert busy == "summary: 412 rows · 4.1 rows/s · 212 tokens/s · 57 reused · 2 failed"
    assert status(Snapshot(phase="loading", label="smollm2")) == "loading smollm2"


@pytest.mark.parametrize("snapshot", [Snapshot(rows_done=0), Snapshot(rows_done=1143), Snapshot(rows_total=0)])
def test_no_time_left_where_there_is_no_pace(snapshot: Snapshot) -> None:
    assert seconds_left(snapshot) is None


def test_durations_read_as_people_say_them() -> None:
    assert [duration(s) for s in (0.4, 12, 185, 8040)] == ["0.4 s", "12 s", "3 min 05 s", "2 h 14 min"]


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


def test_lines_come_every_ten_seconds_without_a_terminal() -> None:
    stream, clock = io.StringIO(), Clock()
    display = ProgressDisplay(stream, live=False, clock=clock)
    for second in range(35):
        clock.now = second
        display(replace(Snapshot(), rows_done=second))
    display.close()
    assert len(stream.getvalue().splitlines()) == 3
    assert "\x1b" not in stream.getvalue() and "\r" not in stream.getvalue()


def test_bar_is_redrawn_within_the_terminal_and_wiped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    stream, clock = io.StringIO(), Clock()
    display = ProgressDisplay(stream, live=True, clock=clock)
    display(Snapshot())
    assert stream.getvalue() == "", "a quick query shows nothing"
    clock.now = 1.0
    display(Snapshot())
    assert stream.getvalue().startswith("\r\x1b[K████████▋") and len(stream.getvalue()) <= 54
    display.close()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_a_label_is_data() -> None:
    line = status(Snapshot(label="\x1b[31m[red]\n"))
    assert line.startswith("\\e[31m[red]\\n: 412")
