"""The fenced blocks of a page that a test runs.

    ```sql       statements, run in order in one session per page
    ```python    run in one namespace per page
    ```console   lines after `$ ` are commands of `dql`

A ```text block right after a sql or python block is what that block prints; in a console block it is the lines below
the command. Blocks in other languages are not run.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

_FENCE = re.compile(r"^```(\w+)\n(.*?)^```\n(?:\s*^```text\n(.*?)^```\n)?", re.MULTILINE | re.DOTALL)
_RUN = frozenset({"sql", "python", "console"})
# What differs from run to run and machine to machine: durations and rates, what a plan predicts, how a file did.
_MEASURED = re.compile(r"\d[\d,.]*(?= ?(?:s|ms|min|h|rows/s|tokens/s)\b)")
_PREDICTED = re.compile(r"^(?:.*\b(?:predicted|chunk|batch)\b|-- (?:considered|hardware|bound)\b).*\n", re.MULTILINE)
_PLACE = re.compile(r"^path +\S.*$", re.MULTILINE)
_WRITTEN = re.compile(r"^┌[^┌└]*│ seconds │[^└]*└", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One block to run. span: where the printed text stands in the page, or where it would."""

    language: str
    code: str
    printed: str | None
    span: tuple[int, int]


def blocks(page: str) -> Iterator[Block]:
    """The blocks of a page in order; a console block yields one for each command."""
    for match in _FENCE.finditer(page):
        language, code = match[1], match[2]
        if language == "console":
            yield from _commands(code, match.start(2))
        elif language in _RUN:
            yield Block(language, code, match[3], match.span(3) if match[3] is not None else (match.end(), match.end()))


def filled(page: str, printed: dict[tuple[int, int], str]) -> str:
    """The page with what its blocks print."""
    for (start, end), text in sorted(printed.items(), reverse=True):
        page = page[:start] + text + page[end:]
    return page


def settled(text: str) -> str:
    """Text without what differs from run to run and from machine to machine."""
    text = _WRITTEN.sub(lambda box: re.sub(r" *\d+\.\d+", " #", box[0]), text)
    return _MEASURED.sub("#", _PREDICTED.sub("#\n", _PLACE.sub("path #", text)))


def _commands(code: str, offset: int) -> Iterator[Block]:
    starts = [match.start() for match in re.finditer(r"^\$ ", code, re.MULTILINE)]
    for start, end in zip(starts, [*starts[1:], len(code)], strict=True):
        command, newline, printed = code[start:end].partition("\n")
        while command.endswith("\\"):
            more, newline, printed = printed.partition("\n")
            command += "\n" + more
        first = offset + start + len(command) + len(newline)
        yield Block("console", command[2:], printed, (first, offset + end))
