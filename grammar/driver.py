"""The LALR loop: terminals in, one value out. What is built of the children of a rule is the builders' matter."""

from collections.abc import Callable, Mapping
from typing import Any

from dql.errors import ParseError
from dql.grammar.lexer import Lexer
from dql.grammar.tables import END, Tables

MAX_DEPTH = 200

Children = list[Any]
Builder = Callable[[Children, tuple[int, int]], Any]
Entry = tuple[Any, int, int, int]  # value, start, end, depth


class Unexpected(Exception):
    """A token, or the end, that the parser cannot take; `Diagnosis` says why."""


class Driver:
    """Runs the tables with one set of builders, by the name of the rule or alias in dql.lark."""

    def __init__(self, tables: Tables, builders: Mapping[str, Builder]) -> None:
        self.tables = tables
        self._rules = [
            (rule.size, rule.origin, rule.spliced, builders[rule.builder] if rule.kind == "build" else None)
            for rule in tables.rules
        ]

    def run(self, lexer: Lexer, start: str) -> Any:
        """The value of the whole; raises Unexpected, or a ParseError (without its text) from a builder."""
        first, last = self.tables.starts[start]
        states, entries = [first], list[Entry]()
        actions = self.tables.actions
        for token in lexer.read(states):
            terminal = token.type
            while True:
                action = actions[states[-1]].get(terminal)
                if action is None:
                    raise Unexpected
                if action >= 0:
                    break
                self._reduce(~action, terminal, states, entries)
            states.append(action)
            entries.append((token, token.start, token.end, 0))
        while states[-1] != last:
            action = actions[states[-1]].get(END)
            if action is None:
                raise Unexpected
            self._reduce(~action, END, states, entries)
        return entries[-1][0]

    def _reduce(self, number: int, terminal: str, states: list[int], entries: list[Entry]) -> None:
        size, origin, spliced, build = self._rules[number]
        if size == 0:
            end = entries[-1][2] if entries else 0
            entries.append(([], end, end, 0))
        elif size == 1 and build is None and not spliced and origin[0] != "_":
            del states[-1]
        else:
            parts = entries[-size:]
            del entries[-size:]
            del states[-size:]
            entries.append(_build(parts, spliced, build))
        states.append(self.tables.reached(states[-1], origin, terminal))


def _build(parts: list[Entry], spliced: tuple[int, ...], build: Builder | None) -> Entry:
    start, end = parts[0][1], parts[-1][2]
    depth = 0
    for part in parts:
        if part[3] > depth:
            depth = part[3]
    if not spliced:
        children = [part[0] for part in parts]
    elif spliced[0] == 0:  # a list that grows at its right end: the list goes on, uncopied
        children = parts[0][0]
        for i in range(1, len(parts)):
            (children.extend if i in spliced else children.append)(parts[i][0])
    else:
        children = []
        for i, part in enumerate(parts):
            (children.extend if i in spliced else children.append)(part[0])
    if build is None:
        return children, start, end, depth
    if depth >= MAX_DEPTH:
        message, hint = f"the query nests deeper than {MAX_DEPTH} levels here", "split it with CTEs: WITH part AS (…) …"
        raise ParseError(message, span=(start, end), hint=hint)
    return build(children, (start, end)), start, end, depth + 1
