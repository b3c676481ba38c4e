"""What we print is what DuckDB reads: canonical text, with its inference taken out, parses there."""

from dataclasses import replace

import duckdb

from dql.grammar import ast
from dql.grammar.names import INFERENCE_NAMES
from dql.grammar.parser import parse
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
