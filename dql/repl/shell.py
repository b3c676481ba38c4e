"""The interactive shell: `dql` alone."""

import os
import sys
import traceback

from prompt_toolkit.history import History, InMemoryHistory

from dql import __version__
from dql.config import Config
from dql.errors import DqlError
from dql.grammar import complete
from dql.grammar.names import INFERENCE_NAMES, VERBS
from dql.progress import counted
from dql.repl.commands import Leave, Prefill, read_text
from dql.repl.console import Console
from dql.repl.history import PrivateHistory
from dql.repl.names import session_names
from dql.repl.prompt import meant, prompt_session
from dql.runner import HardStop
from dql.sanitize import error_text, sanitize_cell
from dql.session import Session


def run(database: str | None, *, mode: str | None = None) -> int:
    """Read, run and print until the user leaves; returns the exit code."""
    config = Config.load()
    with Session(database, config=config) as session:
        where = sanitize_cell(database or "in memory")
        print(f"dql {__version__} · {where} · model {session.model} · .help for help, Ctrl-D to leave")
        try:
            Shell(Console(session, mode=mode), config).run()
        except Leave as leave:
            return leave.code
    return 0


class Shell:
    """The loop: prompt, run, show, and again, whatever happened."""

    def __init__(self, console: Console, config: Config) -> None:
        self._console = console
        self._config = config
        self._names = session_names(console.session)
        self._draft = ""  # what the next prompt begins with
        self._prompt = prompt_session(
            lambda: self._names,
            complete,
            inference=INFERENCE_NAMES | VERBS,
            history=_history(config),
            toolbar=self._toolbar,
        )

    def run(self) -> None:
        """Until Ctrl-D. Raises Leave, and HardStop where a query would not stop."""
        if self._config.startup_file.exists():
            self._attempt(read_text(str(self._config.startup_file)))
        while True:
            try:
                text = self._prompt.prompt(default=self._draft)
            except KeyboardInterrupt:  # Ctrl-C at the prompt drops the line
                continue
            except EOFError:
                return
            finally:
                self._draft = ""
            if text.strip():
                self._attempt(meant(text))
                self._names = session_names(self._console.session)

    def _attempt(self, text: str) -> None:
        """Run a script; an error is printed and the shell goes on."""
        try:
            self._console.run_script(text)
        except Prefill as edited:
            self._draft = edited.text
        except (Leave, HardStop):
            raise
        except KeyboardInterrupt:
            self._console.say("interrupted")
        except Exception as error:
            if os.environ.get("DQL_DEBUG") and not isinstance(error, DqlError):
                traceback.print_exc()
            print(error_text(error), file=sys.stderr)

    def _toolbar(self) -> str:
        style = self._console.style
        parts = [f"model {self._console.session.model}", f"mode {style.mode or 'duckbox'}"]
        if self._console.last is not None:
            parts.append(f"_ {counted(self._console.last.arrow().num_rows, 'row')}")
        if self._console.file is not None:
            parts.append(f"output {self._console.file[1]}")
        return " " + " · ".join(parts)


def _history(config: Config) -> History:
    try:
        return PrivateHistory(config.history_file)
    except OSError as error:  # a home that cannot be written is no reason not to start
        print(f"dql: history is not kept: {error.strerror}: {config.history_file}", file=sys.stderr)
        return InMemoryHistory()
