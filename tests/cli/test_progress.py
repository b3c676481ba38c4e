"""Progress lines: what they say, how often, and that labels are data."""

import io
from dataclasses import replace

import pytest

from dql.executor.progress import Progress
from dql.progress import ProgressDisplay, duration, seconds_left, status

RUNNING = Progress(412, 1143, 0, 0, 8000, 70_000, 13_184, seconds=100.0, phase="running", label="summary")


def test_status_names_rows_pace_time_left_and_errors() -> None:
    assert status(RUNNING) == "summary: 412 of 1,143 rows · 4.1 rows/s · 212 tokens/s · 2 min 57 s left"
    busy = status(replace(RUNNING, calls_reused=57, rows_failed=2, rows_total=None))
    assert busy == "summary: 412 rows · 4.1 rows/s · 212 tokens/s · 57 reused · 2 failed"
    assert status(replace(RUNNING, phase="loading", label="smollm2")) == "loading smollm2"


@pytest.mark.parametrize("snapshot", [Progress(), replace(RUNNING, rows_done=1143), replace(RUNNING, rows_total=0)])
def test_no_time_left_where_there_is_no_pace(snapshot: Progress) -> None:
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
        display(replace(RUNNING, rows_done=second, seconds=second))
    display.close()
    assert len(stream.getvalue().splitlines()) == 3
    assert "\x1b" not in stream.getvalue() and "\r" not in stream.getvalue()


def test_bar_is_redrawn_within_the_terminal_and_wiped(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", "50")
    stream, clock = io.StringIO(), Clock()
    display = ProgressDisplay(stream, live=True, clock=clock)
    display(RUNNING)
    assert stream.getvalue() == "", "a quick query shows nothing"
    clock.now = 1.0
    display(RUNNING)
    assert stream.getvalue().startswith("\r\x1b[K████████▋") and len(stream.getvalue()) <= 54
    display.close()
    assert stream.getvalue().endswith("\r\x1b[K")


def test_paces_count_from_the_start_of_the_stage() -> None:
    stream, clock = io.StringIO(), Clock()
    display = ProgressDisplay(stream, live=False, clock=clock)
    display(replace(RUNNING, rows_done=0, seconds=60.0))
    clock.now = 20.0
    display(replace(RUNNING, rows_done=40, seconds=80.0))
    assert " 2 rows/s" in stream.getvalue()


def test_a_label_is_data() -> None:
    line = status(replace(RUNNING, label="\x1b[31m[red]\n"))
    assert line.startswith("\\e[31m[red]\\n: 412")
