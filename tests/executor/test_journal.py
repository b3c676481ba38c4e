"""Journals: what is whole is read, what is torn is cut off, and one process writes at a time."""

import os
import resource
import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dql.executor.journal import Journal, records, sweep
from dql.executor.sink import AtomicFile

RECORDS = [b"one", b"two" * 1000, b"\x00"]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    journal = Journal.open(tmp_path / "folder" / "a.journal")
    assert journal is not None
    for record in RECORDS:
        journal.append(record)
    journal.close()
    return journal.path


@pytest.mark.parametrize(("cut", "whole"), [(0, 3), (1, 2), (9, 2), (10, 1), (3009, 1), (3020, 0), (10_000, 0)])
def test_whole_records_are_read_and_a_torn_one_is_replaced(path: Path, cut: int, whole: int) -> None:
    data = path.read_bytes()
    path.write_bytes(data[: max(0, len(data) - cut)])
    assert records(path) == RECORDS[:whole]
    journal = Journal.open(path)
    assert journal is not None
    journal.append(b"more")
    journal.close()
    assert records(path) == [*RECORDS[:whole], b"more"]


@pytest.mark.parametrize("place", [0, 4, 9, 14, 30])
def test_nothing_is_believed_from_a_damaged_record_on(path: Path, place: int) -> None:
    data = bytearray(path.read_bytes())
    data[place] ^= 0x40
    path.write_bytes(data)
    assert records(path) == RECORDS[: int(place >= 11)]


def test_one_writes_and_the_unwritten_goes(path: Path) -> None:
    first = Journal.open(path)
    assert first is not None and Journal.open(path) is None
    first.remove()
    assert not path.exists()
    empty = Journal.open(path)
    assert empty is not None
    empty.close()
    assert not path.exists() and records(path) == []


def test_old_journals_go_and_open_ones_stay(tmp_path: Path) -> None:
    now = time.time()
    opened = []
    for age in range(6):
        journal = Journal.open(tmp_path / f"{age}.journal")
        assert journal is not None
        journal.append(b"x")
        opened.append(journal)
        if age != 5:
            journal.close()
    for age in range(6):
        os.utime(tmp_path / f"{age}.journal", (now - 100 * age, now - 100 * age))
    size = opened[0].size
    (tmp_path / "of an older version.arrow").touch()
    os.utime(tmp_path / "of an older version.arrow", (now - 1000, now - 1000))
    left = [f"{age}.journal" for age in range(6)]
    for since, most, newest in ((now - 350, 10**6, 4), (now - 10**6, 2 * size, 2)):
        sweep(tmp_path, since, most)
        assert sorted(p.name for p in tmp_path.iterdir()) == [*left[:newest], left[5]]
    opened[5].close()
    (tmp_path / "gone.journal").symlink_to(tmp_path / "nothing")  # as one that is removed while others are looked at
    sweep(tmp_path, now, 0)
    assert [p.name for p in tmp_path.iterdir()] == ["gone.journal"]


def test_what_a_killed_writer_left_beside_its_target_goes(tmp_path: Path) -> None:
    ended = subprocess.run([sys.executable, "-c", "import os; print(os.getpid())"], capture_output=True, check=True)
    gone, runs = int(ended.stdout), os.getppid()
    names = [f"out.csv.{gone}", f"out.csv.{os.getpid()}", f"out.csv.{runs}", f"other.csv.{gone}"]
    left = [tmp_path / f".{name}.00c0ffee.tmp" for name in names]
    for file in left:
        file.touch()
    with AtomicFile(str(tmp_path / "out.csv"), "csv", {}):
        assert [file.exists() for file in left] == [False, False, True, True]
        assert len(list(tmp_path.iterdir())) == 3


def test_two_writers_of_one_file_in_one_process_do_not_meet(tmp_path: Path) -> None:
    ones, twos = (pa.RecordBatch.from_pydict({"n": [n] * 1000}) for n in (1, 2))
    first, second = (AtomicFile(str(tmp_path / "out.parquet"), "parquet", {}) for _ in range(2))
    with first, second:
        first.write(iter([ones]))
        second.write(iter([twos]))
        first.commit()
        assert pq.read_table(tmp_path / "out.parquet").to_batches() == [ones]
        second.commit()
    assert pq.read_table(tmp_path / "out.parquet").to_batches() == [twos]


def test_a_full_disk_leaves_what_was_whole(path: Path) -> None:
    journal = Journal.open(path)
    assert journal is not None
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (journal.size + 20, hard))
    try:
        with pytest.raises(OSError, match="too large"):
            journal.append(b"x" * 100)
        journal.close()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert records(path) == RECORDS
    again = Journal.open(path)
    assert again is not None
    again.append(b"more")
    again.close()
    assert records(path) == [*RECORDS, b"more"]
