"""INTO: written aside, put in place in one step; what was there is there until then, and after a failure."""

import resource
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dql.errors import BindError, DqlError, ExecutionError
from tests.fake_session import FakeSession

OLD = pl.DataFrame({"g": ["old"]})
QUERY = "SELECT id, AI_GENERATE('n{id}') AS g FROM range(3) AS t(id)"
ROWS = [(0, "n0"), (1, "n1"), (2, "n2")]


@pytest.mark.parametrize("suffix", ["parquet", "csv", "tsv", "jsonl", "json", "arrow", "feather"])
def test_written_rows_are_read_back(suffix: str, session: FakeSession, tmp_path: Path) -> None:
    path = tmp_path / f"out.{suffix}"
    (row,) = session.query(f"{QUERY} INTO '{path}'").arrow().to_pylist()
    assert {name: row[name] for name in ("rows", "nulls", "failed", "path")} == {
        "rows": 3,
        "nulls": 0,
        "failed": 0,
        "path": str(path),
    }
    if suffix in ("arrow", "feather"):
        assert pl.read_ipc(path).rows() == ROWS
    else:
        assert session.query(f"FROM '{path}'").pl().rows() == ROWS
    assert not list(tmp_path.glob(".*"))


def test_the_format_may_be_named(session: FakeSession, tmp_path: Path) -> None:
    path = tmp_path / "out.data"
    session.query(f"{QUERY} INTO '{path}' (FORMAT csv)")
    assert path.read_text().splitlines()[1] == '0,"n0"'


def test_copy_writes_too(session: FakeSession, tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    session.query(f"COPY ({QUERY}) TO '{path}'")
    assert pl.read_parquet(path).rows() == ROWS


def test_options_of_a_format(session: FakeSession, tmp_path: Path) -> None:
    csv, parquet = tmp_path / "out.csv", tmp_path / "out.parquet"
    session.query(f"COPY ({QUERY}) TO '{csv}' (FORMAT csv, HEADER false, DELIM ';')")
    assert csv.read_text().splitlines()[0] == '0;"n0"'
    session.query(f"COPY ({QUERY}) TO '{parquet}' (COMPRESSION snappy)")
    assert pq.ParquetFile(parquet).metadata.row_group(0).column(0).compression == "SNAPPY"


@pytest.mark.parametrize(
    "target",
    ["'out.csv' (FORCE_QUOTE *)", "'out.csv' (DELIM ';;')", "'out.jsonl' (HEADER)", "'out.parquet' (CODEC zip)"],
)
def test_what_cannot_be_written_so_is_refused_before_any_call(session: FakeSession, target: str) -> None:
    with pytest.raises(DqlError):
        session.query(f"COPY ({QUERY}) TO {target}")
    assert not session.asked


def test_csv_holds_no_lists_and_a_folder_may_be_closed(session: FakeSession, tmp_path: Path) -> None:
    """Both are found before any call."""
    with pytest.raises(BindError, match="CSV cannot hold column c"):
        session.query(f"SELECT AI_CLASSIFY('a', ['a', 'b'], multi => true) AS c INTO '{tmp_path}/out.csv'")
    with pytest.raises(ExecutionError, match="could not write /proc/out"):
        session.query(f"{QUERY} INTO '/proc/out.csv'")
    assert not session.asked


def test_no_rows_make_a_file_with_columns(session: FakeSession, tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    session.query(f"{QUERY} WHERE false INTO '{path}'")
    assert pl.read_parquet(path).schema == {"id": pl.Int64, "g": pl.String}


def test_the_file_being_written_may_be_read(session: FakeSession, tmp_path: Path) -> None:
    path = tmp_path / "rows.parquet"
    OLD.write_parquet(path)
    for _ in range(2):
        session.query(f"SELECT AI_GENERATE('{{g}}+') AS g FROM '{path}' INTO '{path}'")
    assert pl.read_parquet(path).rows() == [("old++",)]


def test_the_old_file_is_read_until_the_new_one_is_whole(session: FakeSession, tmp_path: Path) -> None:
    path = tmp_path / "out.parquet"
    OLD.write_parquet(path)
    seen: list[list[tuple[object, ...]]] = []
    session.query(f"{QUERY} INTO '{path}'", progress=lambda _: seen.append(pl.read_parquet(path).rows()))
    assert seen
    assert all(rows == [("old",)] for rows in seen)
    assert pl.read_parquet(path).rows() == ROWS


@pytest.mark.parametrize(
    "query",
    [
        "SELECT AI_GENERATE(repeat('long ', 300)) AS g FROM range(3) WITH on_error = 'fail'",
        "SELECT AI_GENERATE('a')::INTEGER AS g",
        "SELECT [AI_GENERATE('a')] AS g",
    ],
    ids=["failed row", "failed cast", "format cannot hold it"],
)
def test_a_failed_job_leaves_the_old_file(query: str, session: FakeSession, tmp_path: Path) -> None:
    path = tmp_path / "out.csv"
    OLD.write_csv(path)
    with pytest.raises(DqlError):
        session.query(f"{query} INTO '{path}'")
    assert pl.read_csv(path).equals(OLD)
    assert [found.name for found in tmp_path.iterdir() if found.is_file()] == ["out.csv"]


@contextmanager
def full_disk(limit: int) -> Iterator[None]:
    """No file of this process may grow beyond `limit` bytes, as on a disk that is full."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


@pytest.mark.parametrize("suffix", ["parquet", "csv", "jsonl", "arrow"])
def test_a_full_disk_is_said_and_leaves_the_old_file(suffix: str, session: FakeSession, tmp_path: Path) -> None:
    path = tmp_path / f"out.{suffix}"
    path.write_bytes(b"old")
    query = "SELECT id, md5(id::VARCHAR) AS m, AI_GENERATE('n') AS g FROM range(20000) AS t(id)"
    with full_disk(50_000), pytest.raises(ExecutionError, match=f"could not write {path}: File too large"):
        session.query(f"{query} INTO '{path}'")
    assert path.read_bytes() == b"old"
    assert [found.name for found in tmp_path.iterdir() if found.is_file()] == [path.name]


def test_a_table_is_replaced_in_one_step(session: FakeSession) -> None:
    session.query("CREATE TABLE kept AS SELECT 'old' AS g")
    with pytest.raises(DqlError):
        session.query("SELECT AI_GENERATE('a')::INTEGER AS g INTO kept")
    assert session.query("FROM kept").pl().rows() == [("old",)]
    session.query("SELECT AI_GENERATE('{g}+') AS g FROM kept INTO kept")
    assert session.query("FROM kept").pl().rows() == [("old+",)]


def test_failed_rows_are_collected(session: FakeSession, tmp_path: Path) -> None:
    path = tmp_path / "rejects.parquet"
    text = "CASE WHEN id = 1 THEN repeat('long ', 300) ELSE 'n' || id END"
    query = f"SELECT id, AI_GENERATE('{{id}} {{{text.replace(chr(39), chr(39) * 2)}}}') AS g FROM range(3) AS t(id)"
    result = session.query(f"{query} WITH rejects = '{path}'")
    assert result.pl()["g"].to_list() == ["0 n0", None, "2 n2"]
    (row,) = pq.read_table(path).to_pylist()
    assert (row["row"], row["column"], row["class"], row["retryable"]) == (1, "g", "too_long", False)
    assert row["inputs"] == ["1", "long " * 300]
    session.query(f"{query} WHERE id <> 1 WITH rejects = '{path}'").arrow()
    assert pq.read_table(path).num_rows == 0


def test_rows_are_collected_when_the_job_stops(session: FakeSession, tmp_path: Path) -> None:
    path = tmp_path / "rejects.parquet"
    query = f"SELECT AI_GENERATE(repeat('long ', 300)) AS g WITH on_error = 'fail', rejects = '{path}'"
    with pytest.raises(ExecutionError, match="row 0 has no g"):
        session.query(query).arrow()
    assert pq.read_table(path).num_rows == 1


def test_results_are_arrow_with_the_types_of_sql(session: FakeSession) -> None:
    labels = "AI_CLASSIFY('x', ['a', 'b'], multi => true)"
    result = session.query(f"SELECT 1::TINYINT AS a, AI_SCORE('x') AS b, AI_FILTER('x') AS c, {labels} AS d")
    assert result.types == ["TINYINT", "DOUBLE", "BOOLEAN", "VARCHAR[]"]
    assert result.arrow().schema.types == [pa.int8(), pa.float64(), pa.bool_(), pa.list_(pa.string())]
