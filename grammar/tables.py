"""The parser's tables, read from tables.json, which `python -m dql.grammar.generate` makes from dql.lark."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

END = "$END"


@dataclass(frozen=True, slots=True)
class Rule:
    """`size` symbols become one `origin`; `builder` names what is built of them.

    `spliced` are the positions whose value is a list of children. kind is "build", "inline" where the list of children
    goes to the parent, or "rename" where the one child stays as it is.
    """

    origin: str
    size: int
    spliced: tuple[int, ...]
    kind: str
    builder: str


@dataclass(frozen=True, slots=True)
class Tables:
    """An LALR automaton. `words` and `symbols` lead from text to terminal; a name among `ambiguous` needs quotes;
    `firsts` are the terminals that a rule can begin with.

    `actions[state][terminal]` is a state to shift to or, negative, `~rule` to reduce.
    """

    digest: str
    words: dict[str, str]
    symbols: dict[str, str]
    ambiguous: frozenset[str]
    starts: dict[str, tuple[int, int]]
    rules: tuple[Rule, ...]
    firsts: dict[str, frozenset[str]]
    actions: tuple[dict[str, int], ...]
    gotos: tuple[dict[str, int], ...]
    _reached: dict[tuple[int, str, str], int] = field(default_factory=dict, compare=False, repr=False)

    def reached(self, below: int, origin: str, terminal: str) -> int:
        """The state after `origin` was built on top of state `below`, with all rules that only rename it applied.

        An atom climbs fifteen levels of precedence; what stands after the climb depends on these three alone, so the
        answer is kept.
        """
        key = (below, origin, terminal)
        state = self._reached.get(key)
        if state is None:
            state = self.gotos[below][origin]
            while (action := self.actions[state].get(terminal, 0)) < 0 and self.rules[~action].kind == "rename":
                state = self.gotos[below][self.rules[~action].origin]
            self._reached[key] = state
        return state

    def takes(self, stack: Sequence[int], terminal: str) -> bool:
        """Would the parser, with these states, shift the terminal? Exact: the reductions before it are played."""
        actions, above, depth = self.actions, list[int](), len(stack)
        while True:
            state = above[-1] if above else stack[depth - 1]
            action = actions[state].get(terminal)
            if action is None:
                return terminal == END and state in self._ends()
            if action >= 0:
                return True
            rule = self.rules[~action]
            dropped = min(rule.size, len(above))
            del above[len(above) - dropped :]
            depth -= rule.size - dropped
            above.append(self.gotos[above[-1] if above else stack[depth - 1]][rule.origin])
            if terminal == END and above[-1] in self._ends():
                return True

    def advance(self, stack: list[int], terminal: str) -> bool:
        """Shift the terminal if it can stand here, building nothing; False, with the stack as it was, if it cannot."""
        if not self.takes(stack, terminal):
            return False
        while (action := self.actions[stack[-1]][terminal]) < 0:
            rule = self.rules[~action]
            del stack[len(stack) - rule.size :]
            stack.append(self.reached(stack[-1], rule.origin, terminal))
        stack.append(action)
        return True

    def settled(self, stack: Sequence[int]) -> list[int]:
        """The stack once every reduction is done that does not depend on what comes next."""
        states = list(stack)
        while len(choices := set(self.actions[states[-1]].values())) == 1 and (action := choices.pop()) < 0:
            rule = self.rules[~action]
            del states[len(states) - rule.size :]
            states.append(self.gotos[states[-1]][rule.origin])
        return states

    def legal(self, stack: Sequence[int]) -> frozenset[str]:
        """Every terminal that `takes` accepts here."""
        return frozenset(terminal for terminal in self.actions[stack[-1]] if self.takes(stack, terminal))

    def _ends(self) -> set[int]:
        return {end for _, end in self.starts.values()}


@cache
def load() -> Tables:
    """The tables of this installation; read once, 175 kB of JSON."""
    data = json.loads(Path(__file__).with_name("tables.json").read_text(encoding="utf-8"))
    shifts, gotos, lookaheads = data["shifts"], data["gotos"], data["lookaheads"]
    actions = []
    for shift, _, reductions in data["states"]:
        row = dict(shifts[shift])
        for rule, terminals in reductions:
            row.update(dict.fromkeys(lookaheads[terminals], ~rule))
        actions.append(row)
    return Tables(
        digest=data["digest"],
        words=data["words"],
        symbols=data["symbols"],
        ambiguous=frozenset(data["ambiguous"]),
        starts={name: (first, last) for name, (first, last) in data["starts"].items()},
        rules=tuple(Rule(o, size, tuple(spliced), kind, name) for o, size, spliced, kind, name in data["rules"]),
        firsts={name: frozenset(terminals) for name, terminals in data["firsts"].items()},
        actions=tuple(actions),
        gotos=tuple(gotos[goto] for _, goto, _ in data["states"]),
    )
