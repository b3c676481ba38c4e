"""A job that is killed leaves what it has answered, and the same statement run again asks only for the rest."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from dql.config import Config
from dql.session import Session

ROWS = 600
# kills itself as soon as there is something to go on from
JOB = """
import os, signal
from dql import cli
from dql.executor import unfinished
from dql.executor.journal import Journal
append = Journal.append
def last(journal, record):
    append(journal, record)
    os.kill(os.getpid(), signal.SIGKILL)
Journal.append = last
unfinished._FIRST = unfinished._EVERY = 0.05
raise SystemExit(cli.run(["run", "job.dql"]))
"""


@pytest.mark.slow
def test_a_killed_job_goes_on_where_it_is_run_again(tmp_path: Path, model_file: Path) -> None:
    pq.write_table(pa.table({"body": [f"text number {i}" for i in range(ROWS)]}), tmp_path / "in.parquet")
    source, target = tmp_path / "in.parquet", tmp_path / "out.parquet"
    text = f"GENERATE 'Say {{body}}' AS said FROM '{source}' WITH max_tokens = 24 INTO '{target}'"
    (tmp_path / "job.dql").write_text(text)
    home = tmp_path / "home"

    def run(home: Path) -> tuple[list[object], int, str]:
        with Session(config=Config(home=home, model=str(model_file))) as session:
            result = session.query(text)
            stats = result.stats()
            rows: list[object] = pq.read_table(target).column("said").to_pylist()
            target.unlink()
            return rows, stats.tokens_decoded, " ".join(stats.changes)

    whole, decoded, _ = run(tmp_path / "another")
    environ = {**os.environ, "DQL_HOME": str(home), "DQL_MODEL": str(model_file), "PYTHONPATH": str(Path.cwd())}
    job = subprocess.Popen([sys.executable, "-c", JOB], cwd=tmp_path, env=environ, stderr=subprocess.DEVNULL)
    assert job.wait() == -signal.SIGKILL, "the job came to its end before it was killed"
    assert not target.exists() and list(tmp_path.glob(".out.parquet.*.tmp"))

    with Session(config=Config(home=home, model=str(model_file))) as session:
        lines = session.query(f"EXPLAIN {text}").arrow().column(0).to_pylist()
        assert any("answers are there, of a run that stopped" in str(line) for line in lines)
    again, rest, said = run(home)
    assert again == whole and 0 < rest < decoded and "an earlier run that stopped" in said
    assert not list(tmp_path.glob(".out.parquet.*")) and not list(home.glob("unfinished/*"))
