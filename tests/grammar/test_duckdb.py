"""What we print is what DuckDB reads: canonical text parses there, and means what the text it came from meant."""

import json
from dataclasses import replace

import duckdb
import pytest

from dql.grammar import ast
from dql.grammar.names import INFERENCE_NAMES
from dql.grammar.parser import parse, parse_expression
from dql.grammar.unparse import to_sql
from dql.grammar.walk import transform, walk
from tests.grammar.test_roundtrip import fixture

NOTHING = ast.Cast(ast.Constant("NULL"), ast.TypeName(("VARCHAR",)))


def without_inference(node: ast.Node) -> ast.Node:
    """One step, from the leaves up."""
    if isinstance(node, ast.Call) and node.name[-1].upper() in INFERENCE_NAMES:
        aggregate = node.filter or node.order_by or node.within_group or node.over
        return replace(node, name=("min",), args=(NOTHING,), distinct=False) if aggregate else NOTHING
    if isinstance(node, ast.VerbQuery):
        items = (ast.SelectItem(ast.Star()), *(ast.SelectItem(NOTHING, item.alias) for item in node.items))
        clauses = {name: getattr(node, name) for name in ast.Block.__dataclass_fields__ if name != "span"}
        return ast.Select(items if node.from_ else items[1:], **clauses)
    if isinstance(node, ast.Query):
        return replace(node, using=None, contract=None, into=None)
    return node


def duckdb_texts(statement: ast.Statement) -> list[str]:
    plain = transform(statement, without_inference)
    if isinstance(plain, ast.CreateTable | ast.CreateView | ast.CreateFunction | ast.Insert | ast.Copy):
        return [to_sql(plain)]
    outermost: list[ast.Query] = []
    for node in walk(plain):
        if isinstance(node, ast.Query):
            outermost.append(node)
            break
    return [to_sql(query) for query in outermost]


def test_duckdb_reads_what_we_print() -> None:
    connection = duckdb.connect()
    refused = []
    for sql in (sql for text in fixture("valid.sql") for sql in duckdb_texts(*parse(text))):
        try:
            connection.extract_statements(sql)
        except duckdb.Error as error:
            refused.append((sql, str(error)))
    assert not refused


def meaning(connection: duckdb.DuckDBPyConnection, expression: str) -> object:
    """DuckDB's own tree of an expression, without places; `ARRAY[…]` and `[…]` are one function there."""
    (found,) = connection.execute("SELECT json_serialize_sql($1)", [f"SELECT {expression}"]).fetchone() or ("",)
    return json.loads(found, object_hook=_without_places)


def _without_places(node: dict[str, object]) -> dict[str, object]:
    return {key: value for key, value in node.items() if not key.startswith("query_location")}


def test_printing_keeps_the_meaning_of_duckdbs_own_examples() -> None:
    connection = duckdb.connect()
    rows = connection.execute("SELECT DISTINCT unnest(examples) FROM duckdb_functions() ORDER BY ALL").fetchall()
    texts = [text for (text,) in rows if not text.endswith((";", "!")) and " AS " not in text]
    assert len(texts) > 400
    for text in texts:
        try:
            before = meaning(connection, text)
        except duckdb.Error:  # some examples are no expressions
            continue
        if isinstance(before, dict) and not before["error"]:
            assert meaning(connection, to_sql(parse_expression(text))) == before, text


@pytest.mark.parametrize(
    "text", ["a = b NOT NULL", "a || b -> 'd'", "-a ^ b", "NOT a = b IS NULL", "x'FF'", "a::INT[1]"]
)
def test_precedence_is_duckdbs(text: str) -> None:
    connection = duckdb.connect()
    tree = parse_expression(text)
    bracketed = to_sql(transform(tree, lambda node: node if node is tree else _bracketed(node)))
    assert meaning(connection, bracketed) == meaning(connection, text) == meaning(connection, to_sql(tree))


@pytest.mark.parametrize("text", ["a || b = c -> 'd'", "a AND b -> 'c'", "a -> 'b' ->> 'c' = d", "NOT a -> b = c"])
def test_an_arrow_beside_looser_operators_is_left_to_duckdb(text: str) -> None:
    """2.0.0 and 2.0.1 bracket these differently, so printing must add no brackets of its own."""
    connection = duckdb.connect()
    assert meaning(connection, to_sql(parse_expression(text))) == meaning(connection, text)


def _bracketed(node: ast.Node) -> ast.Node:
    looser = ast.Comparison | ast.Operation | ast.Is | ast.Unary | ast.Not
    return ast.Paren(node) if isinstance(node, looser) else node
