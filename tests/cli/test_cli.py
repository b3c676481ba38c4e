"""The command line: what it prints where, and its exit codes. Queries here run no model."""

import io
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from dql import cli

ROOT = Path(__file__).parents[2]


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A home and a working folder of its own for every test."""
    monkeypatch.setenv("DQL_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def test_a_query_prints_csv_into_a_pipe(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["-c", "SELECT 42 AS answer, 'a,b' AS text"]) == 0
    assert capsys.readouterr() == ('answer,text\n42,"a,b"\n', "")


@pytest.mark.parametrize("mode", ["json", "jsonl", "markdown", "line", "duckbox"])
def test_modes(mode: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["--mode", mode, "-c", "SELECT 1 AS n"]) == 0
    out = capsys.readouterr().out
    assert "n" in out and "1" in out
    if mode.startswith("json"):
        assert json.loads(out) in ({"n": 1}, [{"n": 1}])


def test_statements_run_in_order_and_see_each_other(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = ["-c", "CREATE TABLE t AS SELECT 1 AS a", "-c", "INSERT INTO t VALUES (2); SELECT sum(a) AS s FROM t"]
    assert cli.run(arguments) == 0
    assert capsys.readouterr().out.endswith("s\n3\n")


def test_a_file_a_database_and_parameters(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (home / "job.dql").write_text("SELECT name FROM people WHERE age > $least ORDER BY name LIMIT $n;")
    people = "CREATE TABLE people AS SELECT * FROM (VALUES ('Ann', 40), ('Bob', 20), ('Cy', 50)) p(name, age)"
    assert cli.run(["people.db", "-c", people]) == 0
    assert cli.run(["run", "job.dql", "-d", "people.db", "-p", "least=30", "-p", "n=1"]) == 0
    assert cli.run(["people.db", "-f", "job.dql", "-p", "least=0", "-p", "n=3", "-m", "list"]) == 0
    assert capsys.readouterr().out == "name\nAnn\nname\nAnn\nBob\nCy\n"


def test_standard_input_is_a_script(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys, "stdin", io.StringIO(".mode jsonl\nSELECT 1 AS a;\n.mode csv\nSELECT 2 AS a;\n"))
    assert cli.run([]) == 0
    assert capsys.readouterr().out == '{"a":1}\na\n2\n'


def test_output_goes_to_a_file_in_the_mode_of_its_suffix(home: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["-o", "out.json", "-c", "SELECT 1 AS a"]) == 0
    assert json.loads((home / "out.json").read_text()) == [{"a": 1}]
    assert cli.run(["-o", "out.json", "-c", "SELECT nothing"]) == 1
    assert json.loads((home / "out.json").read_text()) == [{"a": 1}], "a failed job leaves the old file"
    assert cli.run(["-o", "out.parquet", "-c", "SELECT 1"]) == 1
    assert "INTO 'out.parquet'" in capsys.readouterr().err
    assert sorted(p.name for p in home.iterdir() if p.is_file()) == ["out.json"]


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["-c", "SELEC 1"], 1, "ParseError"),
        (["-c", "SELECT * FROM nowhere"], 1, "BindError"),
        (["-c", "SELECT * FROM 'nothing.parquet'"], 1, "nothing.parquet"),
        (["-f", "nothing.dql", "-c", "SELECT 1"], 2, "-c and -f"),
        (["-f", "nothing.dql"], 1, "nothing.dql"),
        (["-m", "cvs", "-c", "SELECT 1"], 2, "csv"),
        (["-p", "nonsense", "-c", "SELECT 1"], 2, "NAME=VALUE"),
        (["--colour"], 2, "--colour"),
        (["run"], 2, "JOB"),
        (["models", "show", "smolm2"], 1, "smollm2"),
        (["-c", ".mdoe csv"], 1, ".mode"),
        (["-c", 'SELECT * FROM "no\x1b[31mwhere"'], 1, "\\e[31m"),
    ],
)
def test_errors_say_what_and_how_to_mend_it(
    arguments: list[str], code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.run(arguments) == code
    out, err = capsys.readouterr()
    assert out == "" and said.lower() in err.lower()
    assert "Traceback" not in err and "\x1b" not in err and "bug in dql" not in err


def test_a_bug_says_that_it_is_one(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(cli, "app", lambda **_: 1 / 0)
    assert cli.run(["-c", "SELECT 1"]) == 1
    assert "bug in dql" in capsys.readouterr().err
    monkeypatch.setenv("DQL_DEBUG", "1")
    with pytest.raises(ZeroDivisionError):
        cli.run(["-c", "SELECT 1"])


def test_models_and_doctor(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["models", "ls"]) == 0
    assert "smollm2" in capsys.readouterr().out
    assert cli.run(["models", "show", "smollm2"]) == 0
    assert "no: dql models pull smollm2" in capsys.readouterr().out
    assert cli.run(["models"]) == 0
    assert "pull" in capsys.readouterr().out


def test_help_loads_nothing_heavy() -> None:
    code = """
import sys
from dql import cli
assert cli.run(["--help"]) == 0 and cli.run(["models", "ls"]) == 0
heavy = {"torch", "duckdb", "polars", "pyarrow", "transformers", "prompt_toolkit", "lark"} & set(sys.modules)
sys.exit(f"loaded {heavy}" if heavy else 0)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_a_full_disk_is_told_in_one_line() -> None:
    command = f"{sys.executable} -m dql -c 'SELECT 1' > /dev/full"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 1 and done.stderr == "dql: cannot read or write: No space left on device\n"


@pytest.mark.slow
def test_a_reader_that_leaves_early_is_no_error(home: Path) -> None:
    (home / "long.dql").write_text("SELECT repeat('x', 1000) FROM range(100000)")
    command = f"{sys.executable} -m dql -f long.dql | head -1"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(["bash", "-c", command], capture_output=True, text=True, check=False, env=environment)
    assert done.stderr == ""
