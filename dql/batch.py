"""One command line's statements: run, print, sum up, and say with the exit code how it went."""

import json
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING

from dql.errors import ConfigError
from dql.printer import Style, mode_for, replaced_file, stdout, write_result
from dql.progress import ProgressDisplay
from dql.runner import HardStop, run_statements
from dql.sanitize import sanitize_cell
from dql.session import Session
from dql.summary import summary

if TYPE_CHECKING:
    from dql.result import Result

OK, REJECTED, INTERRUPTED = 0, 3, 130


def run(
    text: str,
    database: str | None,
    params: dict[str, object],
    *,
    mode: str | None = None,
    output: Path | None = None,
    quiet: bool = False,
) -> int:
    """Run every statement of `text`; returns the exit code. Raises DqlError."""
    style = Style(mode=mode)
    chosen = mode_for(style, output or sys.stdout)
    with _session(database) as session, _destination(output) as stream:
        return _Job(session, stream, style, chosen, quiet).run(text, params)


def parameters(pairs: Sequence[str]) -> dict[str, object]:
    """`name=value` pairs: numbers, true, false, null and quoted strings as in JSON, anything else is text as it is."""
    values: dict[str, object] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"--param takes NAME=VALUE, not {pair!r}", hint="for example --param day=2026-01-31")
        values[name] = _value(value)
    return values


class _Job:
    def __init__(self, session: Session, stream: IO[str], style: Style, mode: str, quiet: bool) -> None:
        self._session = session
        self._stream = stream
        self._style = style
        self._mode = mode
        self._quiet = quiet
        self._display = ProgressDisplay(sys.stderr, live=sys.stderr.isatty())

    def run(self, text: str, params: dict[str, object]) -> int:
        code = OK
        progress = None if self._quiet else self._display
        try:
            for result in run_statements(
                self._session, text, params, progress=progress, on_interrupt=self._say_stopping
            ):
                self._display.close()
                self._print(result)
                code = INTERRUPTED if result.interrupted else REJECTED if result.errors().num_rows else code
        except HardStop:
            self._say("stopped at once; unfinished output was not committed")
            raise
        finally:
            self._display.close()
        return code

    def _print(self, result: "Result") -> None:
        write_result(result, self._stream, self._style, self._mode)
        if result.interrupted:
            self._say(f"interrupted: {result.arrow().num_rows:,} finished rows kept")
        for line in summary(result):
            self._say(line)

    def _say_stopping(self) -> None:
        self._display.close()
        self._say("stopping; press Ctrl-C again to stop at once")

    def _say(self, line: str) -> None:
        if not self._quiet:
            print(f"dql: {sanitize_cell(line)}", file=sys.stderr, flush=True)


@contextmanager
def _session(database: str | None) -> Iterator[Session]:
    session = Session(database)
    try:
        yield session
    finally:
        session.close()


@contextmanager
def _destination(output: Path | None) -> Iterator[IO[str]]:
    if output is None:
        yield stdout()
    else:
        with replaced_file(output) as stream:
            yield stream


def _value(text: str) -> object:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    return text if isinstance(value, list | dict) else value
