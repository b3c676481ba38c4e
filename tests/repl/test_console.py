"""Dot commands and the last result, on a session whose model answers by rule."""

import io
import json
import re
from pathlib import Path

import pytest

from dql.errors import ConfigError, ExecutionError
from dql.repl.commands import COMMANDS, Leave, Prefill
from dql.repl.console import REJECTED, Console
from tests.fake_session import FakeSession

NOTES = "CREATE TABLE notes AS SELECT * FROM (VALUES (1, 'a refund, please'), (2, 'all fine'), (3, NULL)) n(id, body);"


@pytest.fixture
def console(session: FakeSession, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Console:
    monkeypatch.chdir(tmp_path)
    console = Console(session, mode="list")
    console.run_script(NOTES)
    return console


def printed(console: Console, capsys: pytest.CaptureFixture[str], script: str) -> str:
    capsys.readouterr()
    console.run_script(script)
    return capsys.readouterr().out


def test_the_last_result_is_a_table_and_is_never_computed_again(
    console: Console, session: FakeSession, capsys: pytest.CaptureFixture[str]
) -> None:
    query = "SELECT id, AI_CLASSIFY(body, ['refund', 'other']) AS topic FROM notes"
    assert printed(console, capsys, query) == "id|topic\n1|refund\n2|other\n3|\n"
    asked = len(session.asked)
    assert printed(console, capsys, "SELECT count(topic) AS n FROM _") == "n\n2\n"
    assert printed(console, capsys, "SELECT n + 1 AS m FROM _") == "m\n3\n"
    assert printed(console, capsys, ".last") == "m\n3\n"
    assert printed(console, capsys, "SET max_tokens = 5; SELECT m FROM _") == "m\n3\n", "a setting is no result"
    assert len(session.asked) == asked


def test_a_summary_follows_on_stderr(console: Console, capsys: pytest.CaptureFixture[str]) -> None:
    console.run_script("GENERATE 'Sum up {body}' FROM notes")
    err = capsys.readouterr().err
    assert re.match(r"dql: 3 rows in [\d.]+ s · 2 calls", err)
    console.quiet = True
    console.run_script("GENERATE 'Sum up {body}' FROM notes")
    assert capsys.readouterr().err == ""


def test_rows_without_an_answer_are_told_and_change_the_exit_code(
    console: Console, capsys: pytest.CaptureFixture[str]
) -> None:
    long = "GENERATE 'Sum up {repeat(body, 2000)}' FROM notes WHERE id = 1"
    assert console.run_script(long) == REJECTED
    assert "1 row without an answer (NULL):\n" in capsys.readouterr().err.replace("dql: ", "")


def test_modes_and_files(console: Console, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    assert printed(console, capsys, ".mode json\nSELECT 1 AS a;\n.mode list\nSELECT 2 AS a") == '[{"a":1}]\na\n2\n'
    script = ".mode auto\n.once one.json\nSELECT 1 AS a;\n.output many.csv\nSELECT 2 AS a;\nSELECT 3 AS a;\n.output\n"
    assert printed(console, capsys, script) == ""
    assert json.loads((tmp_path / "one.json").read_text()) == [{"a": 1}]
    assert (tmp_path / "many.csv").read_text() == "a\n2\na\n3\n"
    assert printed(console, capsys, ".mode insert t2\nSELECT 1 AS a") == 'INSERT INTO "t2" ("a") VALUES (1);\n'


def test_names_are_listed(console: Console, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(console, capsys, ".tables") == "notes  (table, 2 columns)\n"
    assert printed(console, capsys, ".tables x") == ""
    assert printed(console, capsys, ".schema notes") == "TABLE notes (id INTEGER, body VARCHAR)\n"
    assert "smollm2" in printed(console, capsys, ".models")
    assert "GENERATE" in printed(console, capsys, "GENERATE 'x {body}' FROM notes LIMIT 1;\n.explain").upper()


def test_rows_nulls_timer_and_help(console: Console, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(console, capsys, ".nullvalue -\nSELECT NULL AS a") == "a\n-\n"
    assert "99" not in printed(console, capsys, ".mode duckbox\n.maxrows 4\nSELECT range + 90 AS a FROM range(20)")
    assert "99" in printed(console, capsys, ".last")
    capsys.readouterr()
    console.run_script(".timer on\nSELECT 1")
    assert "Run time: " in capsys.readouterr().err
    assert (
        printed(console, capsys, ".mode list\n.echo on\nSELECT 1 AS a;\n.echo off\n.print  b  c")
        == "SELECT 1 AS a;\na\n1\nb  c\n"
    )
    shown = printed(console, capsys, ".help")
    assert all(f".{name}" in shown for name in COMMANDS)
    assert printed(console, capsys, ".help mode").startswith(".mode [MODE [TABLE]]")


def test_scripts_read_scripts(console: Console, capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    (tmp_path / "inner.dql").write_text(".mode jsonl\nSELECT 1 AS a;")
    assert printed(console, capsys, ".read inner.dql") == '{"a":1}\n'


def test_the_pager_gets_the_whole_result(console: Console, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True)
    monkeypatch.setattr("sys.stdout", terminal)
    console.run_script(
        ".mode auto\n.pager cat > paged.txt\nSELECT range AS a FROM range(60);\n.pager off\nSELECT 1 AS b"
    )
    assert "59" in (tmp_path / "paged.txt").read_text()
    assert "shown" not in (tmp_path / "paged.txt").read_text() and "│ b" not in (tmp_path / "paged.txt").read_text()


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (".mod csv", "mode"),
        (".modle csv", r"\.mode"),
        (".mode cvs", "csv"),
        (".mode csv a b", "usage: .mode"),
        (".once", "FILE"),
        (".output /nowhere/x.csv", "/nowhere/x.csv"),
        (".read nowhere.dql", "nowhere.dql"),
        (".maxrows many", "number"),
        (".timer maybe", "on or off"),
        (".schema note", "notes"),
        (".mode 'csv", "quote"),
    ],
)
def test_mistakes_say_how_to_mend_them(console: Console, line: str, said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        console.run_script(line)
    assert re.search(said, str(raised.value))


def test_the_beginning_of_a_name_will_do(console: Console, capsys: pytest.CaptureFixture[str]) -> None:
    assert printed(console, capsys, ".tab") == "notes  (table, 2 columns)\n"
    for line, code in ((".exit", 0), (".q", 0), (".quit 3", 3), (".ex 2", 2)):
        if line != ".ex 2":  # .ex could be .exit or .explain
            with pytest.raises(Leave) as left:
                console.run_script(line)
            assert left.value.code == code
    with pytest.raises(ConfigError):
        console.run_script(".ex 2")


def test_edit_gives_the_last_statement_to_the_editor(console: Console, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("VISUAL", "sed -i s/1/2/")
    console.run_script("SELECT 1;")
    with pytest.raises(Prefill) as edited:
        console.run_script(".edit")
    assert edited.value.text == "SELECT 2;"
    monkeypatch.setenv("VISUAL", "false")
    with pytest.raises(ConfigError, match="EDITOR"):
        console.run_script(".edit")


def test_an_error_stops_a_script(console: Console, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ExecutionError):
        console.run_script("SELECT 1 AS a; SELECT error('no'); SELECT 2 AS a")
    assert capsys.readouterr().out == "a\n1\n"
