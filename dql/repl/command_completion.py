"""Completion of dot commands and what follows them."""

from collections.abc import Sequence

from dql.render import MODES
from dql.repl.commands import COMMANDS
from dql.repl.completion import Candidate, Named, Names


def complete_command(before: str, names: Names) -> list[Candidate]:
    """Candidates for a line that begins with a dot."""
    word, space, rest = before[1:].partition(" ")
    if not space:
        commands = [Named(name, command.help) for name, command in COMMANDS.items()]
        return _beginning(commands, word)
    command = COMMANDS.get(word)
    argument = rest.lstrip().lstrip("'\"")
    if command is None or (" " in argument and command.argument != "path"):
        return []
    if command.argument == "path":
        return [Candidate(path.name, len(argument), path.detail) for path in names.paths(argument)]
    return _beginning(_arguments(command.argument, names), argument)


def _arguments(kind: str, names: Names) -> Sequence[Named]:
    if kind == "mode":
        return [Named(mode, what) for mode, what in MODES.items()] + [Named("auto", "by place")]
    if kind == "table":
        return [Named(table, f"{len(columns)} columns") for table, columns in names.tables.items()]
    if kind == "command":
        return [Named(name, command.help) for name, command in COMMANDS.items()]
    return [Named("on"), Named("off")] if kind == "switch" else []


def _beginning(found: Sequence[Named], prefix: str) -> list[Candidate]:
    return [Candidate(n.name, len(prefix), n.detail) for n in found if n.name.lower().startswith(prefix.lower())]
