"""Runs text against a session and shows what comes of it: shared by the shell, `-c`, files and pipes."""

import contextlib
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from dql.errors import ConfigError
from dql.printer import Style, mode_for, paged, stdout, write_result, write_table
from dql.progress import ProgressDisplay, counted
from dql.repl.script import segments
from dql.runner import run_statements
from dql.sanitize import sanitize_cell
from dql.summary import summary

if TYPE_CHECKING:
    import pyarrow as pa

    from dql.result import Result
    from dql.session import Session

OK, REJECTED, INTERRUPTED = 0, 3, 130


class Console:
    """One user at one session: how results are shown, where they go, and the last of them."""

    def __init__(self, session: "Session", *, mode: str | None = None, quiet: bool = False) -> None:
        self.session = session
        self.style = Style(mode=mode)
        self.file: tuple[IO[str], Path] | None = None  # where results go instead of stdout
        self.once: Path | None = None  # the same, for one statement
        self.pager: str | None = None  # a command, while the pager is on
        self.timer = False
        self.echo = False
        self.quiet = quiet
        self.last: Result | None = None  # the last query's result; `_` in queries
        self.last_text = ""
        self._display = ProgressDisplay(sys.stderr, live=sys.stderr.isatty())

    def run_script(self, text: str, params: Mapping[str, object] | None = None) -> int:
        """Statements and dot commands in order; returns the exit code. Raises DqlError, HardStop and Leave."""
        from dql.repl.commands import run_command

        code = OK
        for segment in segments(text):
            if segment.is_command:
                run_command(self, segment.text)
            elif (ended := self.run(segment.text, params)) != OK:
                code = ended
            if code == INTERRUPTED:
                break
        return code

    def run(self, text: str, params: Mapping[str, object] | None = None) -> int:
        """Statements only; see run_script."""
        code, self.last_text = OK, text.strip()
        if self.echo:
            self.print(self.last_text)
        self._display = ProgressDisplay(sys.stderr, live=sys.stderr.isatty())
        progress = None if self.quiet else self._display
        started = time.monotonic()
        try:
            results = run_statements(self.session, text, params, progress=progress, on_interrupt=self._say_stopping)
            with contextlib.closing(results):
                for result in results:
                    self._display.close()
                    self._show(result, time.monotonic() - started)
                    code = INTERRUPTED if result.interrupted else REJECTED if result.errors().num_rows else code
                    started = time.monotonic()
        except KeyboardInterrupt as interrupt:
            if type(interrupt) is not KeyboardInterrupt:
                raise
            self._display.close()
            self.say("interrupted")
            code = INTERRUPTED
        finally:
            self._display.close()
        return code

    def show_table(self, table: "pa.Table", types: list[str] | None = None) -> None:
        """A table that is no query's result, in the current mode."""
        with self._place() as (stream, mode, style):
            write_table(table, types, stream, style, mode)

    def show_whole(self, result: "Result") -> None:
        """A result with no row left out."""
        with self._place() as (stream, mode, style):
            write_result(result, stream, replace(style, max_rows=0), mode)

    def print(self, line: str) -> None:
        """A line of a command's answer, on stdout."""
        print(sanitize_cell(line, keep="\n"), file=self.file[0] if self.file else stdout(), flush=True)

    def say(self, line: str) -> None:
        """A remark on stderr, never part of the results."""
        if not self.quiet:
            print(f"dql: {sanitize_cell(line)}", file=sys.stderr, flush=True)

    def _show(self, result: "Result", seconds: float) -> None:
        if result.statement_kind == "query":
            self.last = result
            self.session.catalog.register("_", result.arrow())
        if result.columns:
            with self._place() as (stream, mode, style):
                write_result(result, stream, style, mode)
        if result.interrupted:
            self.say(f"interrupted; {counted(result.arrow().num_rows, 'finished row')} kept")
        for line in summary(result):
            self.say(line)
        if self.timer:
            print(f"Run time: {seconds:.3f} s", file=sys.stderr)

    def _say_stopping(self) -> None:
        self._display.close()
        self.say("stopping; press Ctrl-C again to stop at once")

    @contextlib.contextmanager
    def _place(self) -> Iterator[tuple[IO[str], str, Style]]:
        """Where the next result goes, in which mode and style."""
        once, self.once = self.once, None
        if once is not None:
            with opened(once) as stream:
                yield stream, mode_for(self.style, once), self.style
        elif self.file is not None:
            stream, path = self.file
            yield stream, mode_for(self.style, path), self.style
        elif self.pager is not None and sys.stdout.isatty():
            with paged(self.pager) as stream:
                yield stream, mode_for(self.style, sys.stdout), replace(self.style, max_rows=0, columns=0)
        else:
            yield stdout(), mode_for(self.style, sys.stdout), self.style


def opened(path: Path) -> IO[str]:
    """A file to write results to. Raises ConfigError where it cannot be written."""
    try:
        return path.open("w", encoding="utf-8")
    except OSError as error:
        raise ConfigError(
            f"cannot write {path}: {error.strerror}", hint="name a file in a folder you may write"
        ) from error
