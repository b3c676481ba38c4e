"""`python -m dql.grammar.generate` writes tables.json from dql.lark. Needs lark; reading the tables does not.

The file is the same for the same grammar: states are numbered in breadth-first order, rules and rows sorted.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from lark import Lark, Token
from lark.common import LexerConf
from lark.grammar import Rule
from lark.lexer import Lexer
from lark.parsers.lalr_analysis import Shift

HERE = Path(__file__).parent
STARTS = ("statement", "hole", "expr", "type")

Row = dict[str, int]


class _NoLexer(Lexer):
    """Lark wants a lexer to build a parser; ours works on the finished tables."""

    __future_interface__ = 2

    def __init__(self, conf: LexerConf) -> None:
        self.terminals = conf.terminals

    def lex(self, lexer_state: object, parser_state: object) -> Iterator[Token]:
        return iter(())


def tables(grammar: str) -> dict[str, Any]:
    """The LALR tables of a grammar as plain data; raises lark's GrammarError on any conflict."""
    lark = Lark(
        grammar,
        parser="lalr",
        lexer=_NoLexer,
        start=list(STARTS),
        keep_all_tokens=True,
        maybe_placeholders=False,
        strict=True,
    )
    parser: Any = lark.parser.parser
    table = parser._parse_table
    rules = sorted(set(lark.rules), key=_rule_key)
    rule_number = {_rule_key(rule): i for i, rule in enumerate(rules)}
    number = _number_states(table)
    fixed = sorted((t.pattern.value, t.name) for t in lark.terminals if t.pattern is not None)
    declared = {t.name for t in lark.terminals if t.pattern is None}
    assert declared.isdisjoint(name for _, name in fixed), "a keyword shares its name with a declared terminal"
    words = {text: name for text, name in fixed if text[0].isalpha()}
    return {
        "digest": digest(grammar),
        "words": words,
        "symbols": {text: name for text, name in fixed if text not in words},
        "ambiguous": _ambiguous(table, words),
        "starts": {start: [number[table.start_states[start]], number[table.end_states[start]]] for start in STARTS},
        "rules": [_rule(rule) for rule in rules],
        "firsts": _firsts(rules),
        **_rows(table, number, rule_number),
    }


def _rows(table: Any, number: dict[Any, int], rule_number: dict[Any, int]) -> dict[str, list[Any]]:
    """What each state does: the number of a row of shifts, of a row of gotos, and [rule, row of lookaheads] pairs."""
    lookaheads, shifts, gotos = _Interned(), _Interned(), _Interned()
    states: list[Any] = []
    for state in number:
        reduce: dict[int, list[str]] = {}
        shift: Row = {}
        goto: Row = {}
        for symbol, (action, target) in table.states[state].items():
            if action is not Shift:
                reduce.setdefault(rule_number[_rule_key(target)], []).append(symbol)
            elif symbol[0] == "$" or symbol.isupper():
                shift[symbol] = number[target]
            else:
                goto[symbol] = number[target]
        reductions = [[rule, lookaheads.add(sorted(symbols))] for rule, symbols in sorted(reduce.items())]
        states.append([shifts.add(_sorted(shift)), gotos.add(_sorted(goto)), reductions])
    return {"lookaheads": lookaheads.rows, "shifts": shifts.rows, "gotos": gotos.rows, "states": states}


def digest(grammar: str) -> str:
    """SHA-256 of the grammar's text."""
    return hashlib.sha256(grammar.encode()).hexdigest()


def render(data: dict[str, Any]) -> str:
    """JSON with one table row per line, so that a change of grammar is a readable diff."""
    parts = []
    for name, value in data.items():
        if isinstance(value, list):
            body = "[\n" + ",\n".join(json.dumps(row, separators=(",", ":")) for row in value) + "\n]"
        else:
            body = json.dumps(value, separators=(",", ":"))
        parts.append(f"{json.dumps(name)}:{body}")
    return "{" + ",\n".join(parts) + "}\n"


def _firsts(rules: list[Rule]) -> dict[str, list[str]]:
    """The terminals that each rule can begin with; rules that only pass their children on are left out."""
    first: dict[str, set[str]] = {rule.origin.name: set() for rule in rules}
    changed = True
    while changed:
        changed = False
        for rule in rules:
            before = len(first[rule.origin.name])
            for symbol in rule.expansion[:1]:
                first[rule.origin.name] |= {symbol.name} if symbol.is_term else first[symbol.name]
            changed |= len(first[rule.origin.name]) > before
    return {name: sorted(terminals) for name, terminals in sorted(first.items()) if not name.startswith("_")}


def _ambiguous(table: Any, words: dict[str, str]) -> list[str]:
    """Words that some state could take both as keyword and as name, bare aliases (where AS could stand too) apart.

    A name that is none of them is safe without quotes.
    """
    rows = [row for row in table.states.values() if "NAME" in row and "AS" not in row]
    return sorted(word for word, terminal in words.items() if any(terminal in row for row in rows))


class _Interned:
    """Equal rows are stored once."""

    def __init__(self) -> None:
        self.rows: list[Any] = []
        self._index: dict[str, int] = {}

    def add(self, row: Row | list[str]) -> int:
        key = json.dumps(row)
        if key not in self._index:
            self._index[key] = len(self.rows)
            self.rows.append(row)
        return self._index[key]


def _sorted(row: Row) -> Row:
    return dict(sorted(row.items()))


def _rule_key(rule: Rule) -> tuple[str, tuple[str, ...], str]:
    return rule.origin.name, tuple(symbol.name for symbol in rule.expansion), rule.alias or ""


def _rule(rule: Rule) -> list[Any]:
    """[origin, number of symbols, positions of children to splice in, kind, builder].

    kind is "inline" (the children go to the parent), "rename" (the one child stands for the rule) or "build".
    """
    inline = [i for i, symbol in enumerate(rule.expansion) if not symbol.is_term and symbol.name.startswith("_")]
    if rule.origin.name.startswith("_"):
        kind = "inline"
    else:
        lone = rule.options.expand1 and not rule.alias and len(rule.expansion) == 1
        assert not (lone and inline), f"?{rule.origin.name} would rename a list of children"
        kind = "rename" if lone else "build"
    return [rule.origin.name, len(rule.expansion), inline, kind, rule.alias or rule.origin.name]


def _number_states(table: Any) -> dict[Any, int]:
    number: dict[Any, int] = {}
    pending: list[Any] = [table.start_states[start] for start in STARTS]
    while pending:
        reached: list[Any] = []
        for state in pending:
            if state not in number:
                number[state] = len(number)
                reached.extend(_targets(table.states.get(state, {})))
        pending = reached
    return number


def _targets(row: dict[str, Any]) -> Iterable[Any]:
    return (target for _, (action, target) in sorted(row.items(), key=lambda entry: entry[0]) if action is Shift)


def main() -> None:
    text = render(tables((HERE / "dql.lark").read_text(encoding="utf-8")))
    (HERE / "tables.json").write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
