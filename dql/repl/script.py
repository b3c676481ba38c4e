"""Text from a file, a pipe or an argument: statements, and dot commands on lines of their own between them."""

from collections.abc import Iterator
from dataclasses import dataclass

from dql.repl.lexing import last_piece


@dataclass(frozen=True, slots=True)
class Segment:
    """One dot command, or a run of statements. These keep their line numbers: the lines before them are blank."""

    text: str
    is_command: bool


def segments(text: str) -> Iterator[Segment]:
    """The parts of a script in order; a dot inside an unfinished statement starts no command."""
    kept: list[str] = []
    for number, line in enumerate(text.split("\n")):
        if line.startswith(".") and line[1:2].isalpha() and _at_boundary(kept):
            yield from _statements(kept)
            yield Segment(line.strip(), True)
            kept = [""] * (number + 1)
        else:
            kept.append(line)
    yield from _statements(kept)


def _at_boundary(lines: list[str]) -> bool:
    last = last_piece("\n".join(lines))
    return last is None or last.text == ";"


def _statements(lines: list[str]) -> Iterator[Segment]:
    text = "\n".join(lines)
    if last_piece(text) is not None:
        yield Segment(text, False)
