"""The committed tables are the grammar's."""

import pytest

from dql.grammar import generate
from dql.grammar.builders import BUILDERS
from dql.grammar.tables import END, load


def test_tables_match_the_grammar() -> None:
    data = generate.tables((generate.HERE / "dql.lark").read_text(encoding="utf-8"))
    written = (generate.HERE / "tables.json").read_text(encoding="utf-8")
    assert generate.render(data) == written, "run python -m dql.grammar.generate"


def test_every_rule_has_a_builder_and_every_builder_a_rule() -> None:
    assert {rule.builder for rule in load().rules if rule.kind == "build"} == set(BUILDERS)


def test_a_conflict_is_refused() -> None:
    with pytest.raises(Exception, match=r"conflict|collision"):
        generate.tables('statement: a | b\na: "X"\nb: "X"\nhole: a\nexpr: a\ntype: a')


def test_takes_plays_the_reductions_before_the_terminal() -> None:
    tables = load()
    stack = [tables.starts["expr"][0]]
    for terminal in ("NAME", "PLUS", "NAME"):
        assert tables.advance(stack, terminal)
    assert tables.takes(stack, "STAR") and tables.takes(stack, END)
    assert not tables.takes(stack, "NAME") and not tables.takes(stack, "RPAR")
    before = list(stack)
    assert not tables.advance(stack, "COMMA")
    assert stack == before
