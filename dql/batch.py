"""One command line's statements: run, print, sum up, and say with the exit code how it went."""

import json
from collections.abc import Sequence
from pathlib import Path

from dql.errors import ConfigError
from dql.printer import mode_for, replaced_file
from dql.repl.commands import Leave
from dql.repl.console import Console
from dql.session import Session


def run(
    text: str,
    database: str | None,
    params: dict[str, object],
    *,
    mode: str | None = None,
    output: Path | None = None,
    quiet: bool = False,
) -> int:
    """Run a script; returns the exit code. Raises DqlError, and HardStop on the second Ctrl-C."""
    with Session(database) as session:
        console = Console(session, mode=mode, quiet=quiet)
        try:
            if output is None:
                return console.run_script(text, params)
            mode_for(console.style, output)  # a name that tells no format is an error before anything runs
            with replaced_file(output) as stream:
                console.file = (stream, output)
                return console.run_script(text, params)
        except Leave as leave:
            return leave.code


def parameters(pairs: Sequence[str]) -> dict[str, object]:
    """`name=value` pairs: numbers, true, false, null and quoted strings as in JSON, anything else is text as it is."""
    values: dict[str, object] = {}
    for pair in pairs:
        name, equals, value = pair.partition("=")
        if not equals or not name.isidentifier():
            raise ConfigError(f"--param takes NAME=VALUE, not {pair!r}", hint="for example --param day=2026-01-31")
        values[name] = _value(value)
    return values


def _value(text: str) -> object:
    try:
        value = json.loads(text)
    except json.JSONDecodeError:
        return text
    return text if isinstance(value, list | dict) else value
