"""What is inference, what is an island, and what a word means where it stands."""

import pytest

from dql.errors import ParseError
from dql.grammar import ast
from dql.grammar.parser import parse, parse_expression, parse_type
from dql.grammar.unparse import to_sql
from dql.grammar.walk import walk


def islands(text: str, **names: frozenset[str]) -> list[str]:
    return [node.text for statement in parse(text, **names) for node in walk(statement) if isinstance(node, ast.Island)]


def one(text: str, **names: frozenset[str]) -> ast.Statement:
    (statement,) = parse(text, **names)
    return statement


def query(text: str, **names: frozenset[str]) -> ast.Query:
    statement = one(text, **names)
    assert isinstance(statement, ast.QueryStatement)
    return statement.query


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SELECT AI_FILTER('x') FROM (SELECT 1) WHERE a IN (SELECT b FROM u)", ["SELECT 1", "SELECT b FROM u"]),
        ("SELECT AI_FILTER('x') FROM ( /* c */ SELECT 1 -- x\n )", ["SELECT 1"]),
        (
            "WITH a AS (FROM t), b AS (DELETE FROM t RETURNING *) SELECT AI_FILTER('x') FROM a",
            ["FROM t", "DELETE FROM t RETURNING *"],
        ),
        ("SELECT a FROM t JOIN u USING (id) USING m", ["SELECT a FROM t JOIN u USING (id)"]),
        ("EXPLAIN (FORMAT json) (SELECT 1) UNION SELECT 2", ["(SELECT 1) UNION SELECT 2"]),
        ("EVALUATE SELECT a FROM t AGAINST (SELECT b FROM u)", ["SELECT a FROM t", "SELECT b FROM u"]),
        ("COPY (SELECT AI_FILTER('x') FROM (FROM t)) TO 'o'", ["FROM t"]),
        ("SELECT AI_FILTER('x') FROM ((SELECT 1) UNION (SELECT 2))", ["(SELECT 1) UNION (SELECT 2)"]),
        ("SELECT a FROM (SELECT a FROM (SELECT 1) USING m)", ["SELECT a FROM (SELECT 1)"]),
        ("SELECT AI_FILTER('x') FROM (PIVOT t ON a USING sum(b))", ["PIVOT t ON a USING sum(b)"]),
        ("SELECT AI_FILTER('x') FROM (FROM t USING SAMPLE 10%)", ["FROM t USING SAMPLE 10%"]),
        ("SELECT AI_FILTER('x'), f((SELECT 1)), ((SELECT 2) + 3)", ["SELECT 1", "SELECT 2"]),
    ],
)
def test_queries_without_inference_stay_verbatim(text: str, expected: list[str]) -> None:
    assert islands(text) == expected


def test_spans_are_places_in_the_whole_text() -> None:
    text = "SELECT 1; SELECT AI_FILTER('x') AS f FROM (SELECT a FROM t) WITH latency < 200ms"
    plain, statement = parse(text)
    spelled = {type(node).__name__: text[slice(*node.span)] for node in walk(statement)}
    assert text[slice(*plain.span)] == "SELECT 1"
    assert spelled["Call"] == "AI_FILTER('x')"
    assert spelled["SelectItem"] == "AI_FILTER('x') AS f"
    assert spelled["Island"] == "SELECT a FROM t"
    assert spelled["DerivedTable"] == "(SELECT a FROM t)"
    assert spelled["Quantity"] == "200ms" and spelled["Contract"] == "WITH latency < 200ms"
    assert {text[slice(*node.span)] for node in walk(statement) if isinstance(node, ast.Word)} == {"latency", "ms"}


def test_macros_with_inference_are_inference_in_any_case() -> None:
    names = frozenset({"Topic"})
    assert isinstance(one("SELECT topic(a) FROM t"), ast.PlainSql)
    assert isinstance(one('SELECT "topic"(a), s.TOPIC(b) FROM t', inference_names=names), ast.QueryStatement)
    assert isinstance(one("SELECT topic FROM t", inference_names=names), ast.PlainSql)
    assert isinstance(one("CREATE FUNCTION topic(x) AS x + 1", inference_names=names), ast.CreateFunction)
    assert isinstance(one("CREATE FUNCTION other(x) AS topic + 1", inference_names=names), ast.PlainSql)
    assert isinstance(one("DROP FUNCTION topic", inference_names=names), ast.Drop)
    assert isinstance(one("DROP FUNCTION other", inference_names=names), ast.PlainSql)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT * FROM angry",
        "FROM main.angry",
        "SELECT a FROM t, angry AS x",
        "SELECT a FROM t JOIN Angry USING (id)",
        "SELECT a FROM t WHERE b IN (SELECT c FROM angry)",
        "SELECT a FROM (angry JOIN t ON true)",
        "CREATE TABLE x AS FROM angry",
        "DESCRIBE angry",
        "SUMMARIZE angry",
        "COPY angry TO 'x.csv'",
        "DROP VIEW IF EXISTS angry",
        "CREATE OR REPLACE TEMP VIEW angry AS SELECT 1",
        "INSERT INTO t SELECT * FROM angry",
    ],
)
def test_views_with_inference_are_read_in_structure(text: str) -> None:
    assert isinstance(one(text), ast.PlainSql)
    assert not isinstance(one(text, inference_tables=frozenset({"angry"})), ast.PlainSql)


@pytest.mark.parametrize(
    "text", ["SELECT angry FROM t", "SELECT a FROM t WHERE angry", "CREATE VIEW x AS SELECT angry FROM t"]
)
def test_a_column_of_a_views_name_is_no_view(text: str) -> None:
    assert isinstance(one(text, inference_tables=frozenset({"angry"})), ast.PlainSql)


def test_not_null_binds_as_duckdb_has_it() -> None:
    assert parse_expression("a = b NOT NULL") == parse_expression("a = b IS NOT NULL")
    assert isinstance(parse_expression("a = b IS NULL"), ast.Is)


def test_chains_are_flat() -> None:
    assert parse_expression(" AND ".join("abcde")) == ast.And(tuple(ast.Column((name,)) for name in "abcde"))
    body = query(" UNION ALL ".join(["SELECT AI_FILTER('x')"] * 300)).body
    assert isinstance(body, ast.SetOperation) and len(body.branches) == 300
    joined = query("SELECT AI_FILTER('x') FROM a" + " JOIN b ON true" * 300).body
    assert isinstance(joined, ast.Select) and isinstance(joined.from_[0], ast.JoinChain)
    assert len(joined.from_[0].joins) == 300


def test_intersect_binds_tighter_than_union() -> None:
    body = query("SELECT AI_FILTER('x') UNION SELECT 1 INTERSECT SELECT 2 EXCEPT SELECT 3").body
    assert isinstance(body, ast.SetOperation) and body.operators == ("UNION", "EXCEPT")
    assert isinstance(body.branches[1], ast.SetOperation)


@pytest.mark.parametrize(
    "word", ["model", "score", "latency", "generate", "classify", "rows", "first", "using_", "cascade"]
)
def test_dqls_words_are_names_wherever_a_name_fits(word: str) -> None:
    text = (
        f"WITH {word} AS (SELECT 1 AS {word})"
        f" SELECT {word}.{word} AS {word}, {word}, {word}({word}), ({word} + 1), AI_FILTER('x')"
        f" FROM {word} {word} WHERE {word} GROUP BY {word} ORDER BY {word} USING {word} INTO {word}"
    )
    names = {part for node in walk(one(text)) if isinstance(node, ast.Column) for part in node.path}
    assert names == {word}
    assert query(text).using == ast.Using(ast.SingleModel(ast.ModelRef(word)))


def test_other_alphabets_hide_no_keyword() -> None:
    assert parse_expression("ſelect + lıke") == ast.Operation((ast.Column(("ſelect",)), ast.Column(("lıke",))), ("+",))


def test_trees_built_by_hand_get_the_brackets_they_need() -> None:
    total = ast.Operation((ast.Column(("a",)), ast.Column(("b",))), ("+",))
    assert to_sql(ast.Operation((total, ast.Number("2")), ("*",))) == "(a + b) * 2"
    assert to_sql(ast.Not(ast.And((ast.Column(("a",)), ast.Column(("b",)))))) == "NOT (a AND b)"
    assert to_sql(ast.FieldAccess(ast.Number("1"), "a")) == "(1).a"
    select = ast.Select((ast.SelectItem(ast.Column(("a",))),))
    union = ast.SetOperation((select, select), ("UNION",))
    assert to_sql(ast.SetOperation((union, select), ("INTERSECT",))) == "(SELECT a UNION SELECT a) INTERSECT SELECT a"


@pytest.mark.parametrize(
    "text",
    ["INTEGER", "DECIMAL(10, 2)", "STRUCT(a INTEGER, b VARCHAR[])[3]", "MAP(VARCHAR, ENUM('a', 'b'))", '"my type"'],
)
def test_types_parse_on_their_own(text: str) -> None:
    assert to_sql(parse_type(text)) == text


def test_an_empty_text_has_no_statements() -> None:
    assert parse("") == parse(" ;; -- nothing\n/* at all */ ;") == ()


def test_an_expression_stands_alone() -> None:
    with pytest.raises(ParseError, match="unexpected"):
        parse_expression("a, b")
    with pytest.raises(ParseError, match="too early"):
        parse_expression("a +")
    with pytest.raises(ParseError):
        parse_expression("")
