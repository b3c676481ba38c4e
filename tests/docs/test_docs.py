"""Every command and output in README and docs is real: the blocks of each page run, and print what the page says."""

import contextlib
import io
import re
import runpy
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from dql import cli
from dql.errors import DqlError
from dql.repl.console import Console
from dql.sanitize import error_text
from dql.session import Session
from tests.conftest import Golden
from tests.docs.blocks import Block, blocks, filled, settled

ROOT = Path(__file__).parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
LINK = re.compile(r"\]\((?!https?://|#|mailto:)([^)#\s]+)(?:#[^)]*)?\)")
MAKE = re.compile(r"(?:`|\$ )make (\w+)")


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder to run in that has the examples and keeps what a page writes apart."""
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    monkeypatch.chdir(tmp_path)
    yield tmp_path


@pytest.mark.model
@pytest.mark.slow
@pytest.mark.parametrize("page", [p for p in PAGES if any(blocks(p.read_text()))], ids=lambda page: page.name)
def test_blocks_print_what_the_page_says(page: Path, folder: Path, golden: Golden) -> None:
    """With --complete the page is written instead."""
    text = page.read_text(encoding="utf-8")
    with Session() as session:
        console, namespace = Console(session, mode="duckbox", quiet=True), dict[str, object]()
        printed = {block.span: (block, run(block, console, namespace)) for block in blocks(text)}
    actual = filled(text, {span: out for span, (block, out) in printed.items() if block.printed is not None})
    if settled(actual) != settled(text):
        golden.check(page, actual)


def run(block: Block, console: Console, namespace: dict[str, object]) -> str:
    """What a block prints; of stderr the errors, not the progress."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        if block.language == "sql":
            try:
                console.run_script(block.code)
            except DqlError as error:
                print(error_text(error))
        elif block.language == "python":
            Path("block.py").write_text(block.code, encoding="utf-8")
            namespace.update(runpy.run_path("block.py", init_globals=namespace))
        else:
            program, *arguments = shlex.split(block.code)
            assert program == "dql", f"a page runs {program!r}"
            cli.run(arguments)
    return out.getvalue() + "".join(line for line in err.getvalue().splitlines(True) if not line.startswith("dql: "))


@pytest.mark.parametrize("page", [*PAGES, ROOT / "CONTRIBUTING.md"], ids=lambda page: page.name)
def test_links_and_make_targets_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    missing = [link for link in LINK.findall(text) if not (page.parent / link).exists()]
    targets = set(re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    assert not missing and set(MAKE.findall(text)) <= targets


def test_blocks_are_found_with_what_they_print() -> None:
    page = (
        "a\n```sql\nSELECT 1;\n```\n\n```text\n1\n```\nb\n```console\n$ dql -c x\nout\n$ dql y\n```\n```sh\nls\n```\n"
    )
    found = list(blocks(page))
    assert [(b.language, b.code, b.printed) for b in found] == [
        ("sql", "SELECT 1;\n", "1\n"),
        ("console", "dql -c x", "out\n"),
        ("console", "dql y", ""),
    ]
    assert filled(page, {b.span: b.printed or "" for b in found}) == page
    assert filled(page, {found[2].span: "more\n"}).count("more\n```\n") == 1


def test_durations_are_settled() -> None:
    assert settled("12 rows in 3.4 s · 1,200 tokens/s") == "12 rows in # s · # tokens/s"
    assert settled("SCAN t\n│  predicted 7 s ± 3\n-- applied: x\n-- hardware: cpu\n") == "SCAN t\n#\n-- applied: x\n#\n"
    boxes = [f"┌─┐\n│ rows │ seconds │\n├─┤\n│    6 │ {seconds} │\n└─┘\n" for seconds in ("  4.544", " 12.5")]
    assert settled(boxes[0]) == settled(boxes[1]) != settled(boxes[0].replace("6", "7"))
