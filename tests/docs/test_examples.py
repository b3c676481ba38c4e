"""Every example runs and prints something; each is one short idea."""

import ast
import runpy
import sys
from collections.abc import Iterator
from pathlib import Path

import polars as pl
import pytest

from dql import cli
from dql.repl.console import Console
from tests.fake_session import FakeSession

EXAMPLES = Path(__file__).parents[2] / "examples"
PROGRAMS = sorted(EXAMPLES.glob("*.py"))
SHORT = [program for program in PROGRAMS if program.name != "python_docs.py"]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to run in that has the examples and takes what they write."""
    (tmp_path / "examples").symlink_to(EXAMPLES)
    (tmp_path / "demo-out").mkdir()
    monkeypatch.chdir(tmp_path)
    yield tmp_path


@pytest.mark.parametrize("program", SHORT, ids=lambda program: program.stem)
def test_an_example_is_short_and_says_what_it_shows(program: Path) -> None:
    text = program.read_text(encoding="utf-8")
    docstring = ast.get_docstring(ast.parse(text))
    assert docstring and "\n" not in docstring and len(text.splitlines()) < 40


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.parametrize("program", SHORT, ids=lambda program: program.stem)
def test_an_example_runs(program: Path, capsys: pytest.CaptureFixture[str]) -> None:
    runpy.run_path(str(program), run_name="__main__")
    assert capsys.readouterr().out


@pytest.mark.model
@pytest.mark.slow
def test_the_job_runs_with_its_parameter(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.run(["run", "examples/job.dql", "-p", "channel=phone", "--quiet"]) == 0
    assert pl.read_parquet(folder / "triage.parquet").height == 7
    assert capsys.readouterr().out.splitlines()[-1].count(",") >= 2


@pytest.mark.parametrize("script", ["demo.dql", "job.dql"])
def test_scripts_hold_together(script: str, session: FakeSession, capsys: pytest.CaptureFixture[str]) -> None:
    """On a model that answers by rule: every statement is valid, every file is written and read back."""
    console = Console(session, quiet=True)
    text = (EXAMPLES / script).read_text().replace("smollm2", "other")
    assert console.run_script(text, {"channel": "phone"}) in (0, 3), "the tiny model's context is short"
    assert capsys.readouterr().out


@pytest.mark.slow
def test_docstrings_become_a_table(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["python_docs.py", "docs.parquet"])
    runpy.run_path(str(EXAMPLES / "python_docs.py"), run_name="__main__")
    frame = pl.read_parquet(folder / "docs.parquet")
    assert frame.columns == ["module", "name", "kind", "signature", "doc"] and frame.height > 3000
    assert frame.null_count().select("module", "name", "kind", "doc").row(0) == (0, 0, 0, 0)
    assert "docstrings of" in capsys.readouterr().out


def test_tickets_are_what_the_pages_say() -> None:
    frame = pl.read_csv(EXAMPLES / "data" / "tickets.csv")
    assert frame.height == 183 and frame["id"].is_unique().all()
    topics = ["account", "billing", "bug", "feature", "praise", "shipping"]
    assert frame["topic"].drop_nulls().unique().sort().to_list() == topics
    assert set(frame["urgency"].drop_nulls()) == {1, 2, 3, 4, 5}
    assert frame["body"].null_count() == 1 and frame["body"].is_duplicated().sum() > 4
