"""What others do on the machine is told apart from what this process does."""

from pathlib import Path

import pytest

from dql.executor.others import Others


def test_own_seconds_are_not_those_of_others(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    stat, own = tmp_path / "stat", 5.0
    monkeypatch.setattr("dql.executor.others.process_time", lambda: own)
    monkeypatch.setattr("os.sysconf", lambda name: 100)
    stat.write_text("cpu  1000 0 500 9000 70 0 0 0 0 0\ncpu0 …\n")
    meter = Others(stat)
    own = 7.0  # two seconds of its own, one and a half of others, on two cores for ten seconds
    stat.write_text("cpu  1250 50 550 10600 120 0 0 0 0 0\ncpu0 …\n")
    assert meter.share() == pytest.approx(1.5 / 20)


def test_where_nobody_counts_the_load_average_stands_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    for load, share in ((1.0, 0.0), (3.0, 0.5)):
        monkeypatch.setattr("os.getloadavg", lambda load=load: (load, 0.0, 0.0))
        assert Others(tmp_path / "none").share() == pytest.approx(share)
