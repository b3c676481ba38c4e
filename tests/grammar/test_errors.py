"""Malformed texts and what is said about them.

errors.txt holds one block per text: the text with «» around the token to blame, then the message, indented. After a
change of wording, `pytest tests/grammar/test_errors.py --complete` writes the messages anew; read the diff.
"""

from pathlib import Path

import pytest

from dql.errors import ParseError
from dql.grammar.parser import parse
from tests.conftest import Golden

FILE = Path(__file__).with_name("errors.txt")


def blocks() -> list[tuple[str, str]]:
    parts = FILE.read_text(encoding="utf-8").strip("\n").split("\n\n")
    return [(lines[0], "\n".join(line[4:] for line in lines[1:])) for lines in (part.split("\n") for part in parts)]


def error(marked: str) -> ParseError:
    with pytest.raises(ParseError) as caught:
        parse(marked.replace("«", "").replace("»", ""))
    return caught.value


def test_file_is_large_enough() -> None:
    assert len(blocks()) >= 80


def test_nearly_every_message_blames_the_right_token() -> None:
    wrong = [marked for marked, _ in blocks() if (error(marked).span or (-1,))[0] != marked.index("«")]
    assert len(wrong) <= len(blocks()) // 50, wrong


def test_messages_are_those_of_the_file(golden: Golden) -> None:
    written = []
    for marked, _ in blocks():
        lines = str(error(marked)).split("\n")
        written.append("\n".join([marked, *(f"    {line}" for line in lines)]))
    golden.check(FILE, "\n\n".join(written) + "\n")


def test_position_is_a_line_and_a_column() -> None:
    with pytest.raises(ParseError) as caught:
        parse("SELECT AI_FILTER('x')\n  FORM t")
    assert (caught.value.line, caught.value.column) == (2, 3)
