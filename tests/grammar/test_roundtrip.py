"""Text to tree to text: nothing is lost, and printing is stable."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings

from dql.grammar import ast
from dql.grammar.parser import parse
from dql.grammar.unparse import to_sql
from tests.grammar import trees

HERE = Path(__file__).parent


def fixture(name: str) -> list[str]:
    lines = (HERE / name).read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line and not line.startswith("--")]


def test_fixture_is_large_enough() -> None:
    assert len(set(fixture("valid.sql"))) >= 400


@pytest.mark.parametrize("text", fixture("valid.sql"))
def test_valid_statement_comes_back(text: str) -> None:
    (statement,) = parse(text)
    assert not isinstance(statement, ast.PlainSql)
    canonical = to_sql(statement)
    assert parse(canonical) == (statement,)
    assert to_sql(*parse(canonical)) == canonical


@pytest.mark.parametrize("text", fixture("plain.sql"))
def test_statement_without_inference_is_duckdbs(text: str) -> None:
    (statement,) = parse(text)
    assert isinstance(statement, ast.PlainSql)
    assert text.startswith(to_sql(statement))


def check_tree(statement: ast.Statement) -> None:
    text = to_sql(statement)
    assert parse(text) == (statement,)


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(trees.statements)
def test_any_tree_comes_back(statement: ast.Statement) -> None:
    check_tree(statement)


@pytest.mark.slow
@settings(max_examples=1500, deadline=None, suppress_health_check=list(HealthCheck))
@given(trees.statements)
def test_very_many_trees_come_back(statement: ast.Statement) -> None:
    check_tree(statement)
