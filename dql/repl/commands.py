"""Dot commands: one table of them, from which .help, completion and dispatch are made."""

import os
import shlex
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from dql.errors import ConfigError, name_hint
from dql.progress import counted
from dql.render import MODES, mode_named
from dql.repl.console import opened

if TYPE_CHECKING:
    from dql.repl.console import Console

Argument = Literal["mode", "path", "table", "command", "switch", "none"]


class Leave(Exception):
    """The user asked to leave, with this exit code."""

    def __init__(self, code: int) -> None:
        super().__init__(code)
        self.code = code


class Prefill(Exception):
    """The next prompt should begin with this text."""

    def __init__(self, text: str) -> None:
        super().__init__(text)
        self.text = text


@dataclass(frozen=True, slots=True)
class Command:
    """A dot command. `argument` is what completion offers after it; `most` is how many words it takes."""

    run: "Callable[[Console, list[str]], None]"
    usage: str
    help: str
    argument: Argument = "none"
    most: int = 1


def run_command(console: "Console", line: str) -> None:
    """Run one line such as `.mode csv`. A unique beginning of a name will do. Raises ConfigError, Leave, Prefill."""
    word, _, rest = line[1:].partition(" ")
    name = _named(word)
    command = COMMANDS[name]
    words = [rest.strip()] if command.most == 1 and rest.strip() else _words(rest)
    if len(words) > command.most:
        raise ConfigError(f".{name} takes fewer words", hint=f"usage: {_usage(name)}")
    command.run(console, words)


def _named(word: str) -> str:
    if word in COMMANDS:
        return word
    begins = [name for name in COMMANDS if word and name.startswith(word)]
    if len(begins) == 1 or word in ("q", "quit"):
        return begins[0] if begins else "exit"
    raise ConfigError(f"no command .{word}", hint=name_hint(f".{word}", [f".{name}" for name in COMMANDS]))


def _words(text: str) -> list[str]:
    try:
        return shlex.split(text)
    except ValueError as error:
        raise ConfigError(f"cannot read the words {text!r}: {error}", hint="close every quote") from error


def _unquoted(words: list[str]) -> list[str]:
    return [w[1:-1] if len(w) > 1 and w[0] == w[-1] and w[0] in "'\"" else w for w in words]


def _usage(name: str) -> str:
    return f".{name} {COMMANDS[name].usage}".rstrip()


def _help(console: "Console", words: list[str]) -> None:
    shown = [_named(words[0].lstrip("."))] if words else sorted(COMMANDS)
    wide = max(len(_usage(name)) for name in shown)
    for name in shown:
        console.print(f"{_usage(name):<{wide}}  {COMMANDS[name].help}")
    if not words:
        console.print(f"{'_':<{wide}}  in a query: the last result, as a table")


def _mode(console: "Console", words: list[str]) -> None:
    if not words:
        for name, what in MODES.items():
            mark = "*" if name == console.style.mode else " "
            console.print(f"{mark} {name:<9} {what}")
        return
    mode = None if words[0] == "auto" else mode_named(words[0])
    table = words[1] if len(words) > 1 else console.style.insert_table
    console.style = replace(console.style, mode=mode, insert_table=table)


def _once(console: "Console", words: list[str]) -> None:
    if not words:
        raise ConfigError(".once needs a file", hint="usage: .once FILE")
    console.once = Path(_unquoted(words)[0]).expanduser()


def _output(console: "Console", words: list[str]) -> None:
    if console.file is not None:
        console.file[0].close()
        console.file = None
    if words and words[0] != "stdout":
        path = Path(_unquoted(words)[0]).expanduser()
        console.file = (opened(path), path)


def _pager(console: "Console", words: list[str]) -> None:
    command = os.environ.get("PAGER", "less")
    if not words:
        console.print(f"pager is {'off' if console.pager is None else 'on: ' + console.pager}")
    elif words[0] in ("on", "off"):
        console.pager = command if words[0] == "on" else None
    else:
        console.pager = words[0]


def _echo(console: "Console", words: list[str]) -> None:
    console.echo = _switch("echo", words, console.echo)


def _timer(console: "Console", words: list[str]) -> None:
    console.timer = _switch("timer", words, console.timer)


def _switch(name: str, words: list[str], before: bool) -> bool:
    if words and words[0] not in ("on", "off"):
        raise ConfigError(f".{name} is on or off, not {words[0]!r}", hint=f"usage: .{name} on")
    return words[0] == "on" if words else not before


def _print(console: "Console", words: list[str]) -> None:
    console.print(" ".join(words))


def _tables(console: "Console", words: list[str]) -> None:
    pattern = words[0].strip("%").lower() if words else ""
    for table in console.session.tables():
        if pattern in table.name.lower():
            columns = counted(len(table.columns), "column") if table.columns else "with inference"
            console.print(f"{table.name}  ({table.kind}, {columns})")


def _schema(console: "Console", words: list[str]) -> None:
    tables = {table.name.lower(): table for table in console.session.tables()}
    wanted = _unquoted(words)[0].lower() if words else None
    if wanted is not None and wanted not in tables:
        hint = name_hint(wanted, tables) + f"; for a file: DESCRIBE FROM '{wanted}'"
        raise ConfigError(f"no table called {wanted}", hint=hint)
    for table in tables.values() if wanted is None else [tables[wanted]]:
        columns = ", ".join(f"{column.name} {column.type}" for column in table.columns)
        console.print(f"{table.kind.upper()} {table.name} ({columns})")


def _models(console: "Console", words: list[str]) -> None:
    for model in console.session.models().list():
        here = "on this machine" if model.installed else f"not here: dql models pull {model.name}"
        console.print(f"{model.name}  {here}  {model.description or model.uri}")


def _read(console: "Console", words: list[str]) -> None:
    if not words:
        raise ConfigError(".read needs a file", hint="usage: .read FILE")
    console.run_script(read_text(_unquoted(words)[0]))


def _explain(console: "Console", words: list[str]) -> None:
    text = words[0] if words else console.last_text
    if not text:
        raise ConfigError("there is no query to explain yet", hint="usage: .explain QUERY")
    query = text.rstrip("; \n").rpartition(";")[2].strip()
    console.run(query if query[:7].upper() == "EXPLAIN" else f"EXPLAIN {query}")


def _last(console: "Console", words: list[str]) -> None:
    if console.last is None:
        raise ConfigError("there is no result yet", hint="run a query first")
    console.show_whole(console.last)


def _maxrows(console: "Console", words: list[str]) -> None:
    if not words:
        console.print(f"maxrows is {console.style.max_rows}")
    elif words[0].isdecimal():
        console.style = replace(console.style, max_rows=int(words[0]))
    else:
        raise ConfigError(f".maxrows takes a number, not {words[0]!r}", hint="0 shows every row")


def _nullvalue(console: "Console", words: list[str]) -> None:
    console.style = replace(console.style, null=_unquoted(words)[0] if words else None)


def _edit(console: "Console", words: list[str]) -> None:
    editor = os.environ.get("VISUAL") or os.environ.get("EDITOR") or "vi"
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "query.dql"
        file.write_text(console.last_text + "\n", encoding="utf-8")
        try:
            subprocess.run([*shlex.split(editor), str(file)], check=True)
        except (OSError, subprocess.CalledProcessError) as error:
            raise ConfigError(f"the editor {editor!r} did not run: {error}", hint="set EDITOR") from error
        raise Prefill(file.read_text(encoding="utf-8").rstrip("\n"))


def _exit(console: "Console", words: list[str]) -> None:
    raise Leave(int(words[0]) if words and words[0].isdecimal() else 0)


def read_text(file: str) -> str:
    """The text of a script file. Raises ConfigError."""
    try:
        return Path(file).expanduser().read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {file}: {error.strerror}", hint="name a file of DQL statements") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{file} is not UTF-8 text", hint="save it as UTF-8") from error


COMMANDS: dict[str, Command] = {
    "echo": Command(_echo, "[on|off]", "print statements before they run", "switch"),
    "edit": Command(_edit, "", "change the last statement in $EDITOR"),
    "exit": Command(_exit, "[CODE]", "leave; so does Ctrl-D"),
    "explain": Command(_explain, "[QUERY]", "the plan of a query, or of the last one"),
    "help": Command(_help, "[COMMAND]", "this list, or one line of it", "command"),
    "last": Command(_last, "", "the last result again, every row of it; nothing is run"),
    "maxrows": Command(_maxrows, "[COUNT]", "rows that duckbox shows; 0 for all"),
    "mode": Command(_mode, "[MODE [TABLE]]", "how results are written; auto picks by place", "mode", 2),
    "models": Command(_models, "", "models and whether they are on this machine"),
    "nullvalue": Command(_nullvalue, "[TEXT]", "what NULL reads as"),
    "once": Command(_once, "FILE", "write the next result to a file", "path"),
    "output": Command(_output, "[FILE]", "write results to a file; without one, back to the screen", "path"),
    "pager": Command(_pager, "[on|off|COMMAND]", "show results through a pager", "switch"),
    "print": Command(_print, "[TEXT]", "print this line"),
    "read": Command(_read, "FILE", "run the statements of a file", "path"),
    "schema": Command(_schema, "[TABLE]", "tables with their columns and types", "table"),
    "tables": Command(_tables, "[PATTERN]", "tables, views and frames", "table"),
    "timer": Command(_timer, "[on|off]", "print how long each statement took", "switch"),
}
