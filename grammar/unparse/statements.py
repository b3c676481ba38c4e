"""Printers of statements."""

from dql.grammar.ast import (
    Column,
    Copy,
    CreateAdapter,
    CreateFunction,
    CreateModel,
    CreateTable,
    CreateView,
    DescribeModel,
    DescribeQuery,
    Drop,
    Evaluate,
    Explain,
    Insert,
    Parameter,
    PlainSql,
    QueryStatement,
    ResetSetting,
    SetSetting,
    Show,
    SummarizeQuery,
    Word,
)
from dql.grammar.literals import quote_name
from dql.grammar.unparse.clauses import options
from dql.grammar.unparse.core import join, names, path, to_sql, words

_Created = CreateModel | CreateAdapter | CreateTable | CreateView | CreateFunction


@to_sql.register
def _(node: QueryStatement) -> str:
    return to_sql(node.query)


@to_sql.register
def _(node: PlainSql) -> str:
    return node.text


@to_sql.register
def _(node: Explain) -> str:
    given = [
        f"FORMAT {to_sql(node.format)}" if node.format else None,
        "CANDIDATES" if node.candidates else None,
        "REWRITES" if node.rewrites else None,
        f"ON {to_sql(node.on)}" if node.on else None,
        f"ROWS {to_sql(node.rows)}" if node.rows else None,
    ]
    chosen = ", ".join(option for option in given if option)
    return words("EXPLAIN", "ANALYZE" if node.analyze else None, f"({chosen})" if chosen else None, to_sql(node.query))


@to_sql.register
def _(node: Evaluate) -> str:
    gold = to_sql(node.against)
    against = gold if isinstance(node.against, Column) else f"({gold})"
    metrics = f"METRICS ({join(node.metrics)})" if node.metrics else None
    return words("EVALUATE", to_sql(node.query), "AGAINST", against, metrics)


def _create(node: _Created, kind: str) -> str:
    temporary = "TEMP" if isinstance(node, CreateTable | CreateView | CreateFunction) and node.temporary else None
    replaced, exists = "OR REPLACE" if node.or_replace else None, "IF NOT EXISTS" if node.if_not_exists else None
    return words("CREATE", replaced, temporary, kind, exists)


@to_sql.register
def _(node: CreateModel) -> str:
    given = options(node.options)
    return words(
        _create(node, "MODEL"), quote_name(node.name), "FROM", to_sql(node.uri), f"WITH {given}" if given else None
    )


@to_sql.register
def _(node: CreateAdapter) -> str:
    name, model = quote_name(node.name), to_sql(node.model)
    return words(_create(node, "ADAPTER"), name, "FOR", model, "FROM", to_sql(node.path))


@to_sql.register
def _(node: CreateTable) -> str:
    return _relation(node, "TABLE")


@to_sql.register
def _(node: CreateView) -> str:
    return _relation(node, "VIEW")


def _relation(node: CreateTable | CreateView, kind: str) -> str:
    columns = f"({names(node.columns)})" if node.columns else ""
    return words(_create(node, kind), path(node.name) + columns, "AS", to_sql(node.query))


@to_sql.register
def _(node: CreateFunction) -> str:
    name = ".".join(quote_name(part) for part in node.name)
    return words(_create(node, "FUNCTION"), f"{name}({join(node.params)})", "AS", to_sql(node.body))


@to_sql.register
def _(node: Parameter) -> str:
    return quote_name(node.name) + (f" := {to_sql(node.default)}" if node.default else "")


@to_sql.register
def _(node: Drop) -> str:
    return words("DROP", node.kind, "IF EXISTS" if node.if_exists else None, path(node.name))


@to_sql.register
def _(node: Insert) -> str:
    columns = f"({names(node.columns)})" if node.columns else ""
    by_name = "BY NAME" if node.by_name else None
    return words("INSERT INTO", path(node.table) + columns, by_name, to_sql(node.query))


@to_sql.register
def _(node: Copy) -> str:
    return words(f"COPY ({to_sql(node.query)}) TO", to_sql(node.path), options(node.options))


@to_sql.register
def _(node: Show) -> str:
    return f"SHOW {node.what}"


@to_sql.register
def _(node: DescribeModel) -> str:
    return f"DESCRIBE MODEL {to_sql(node.model)}"


@to_sql.register
def _(node: DescribeQuery) -> str:
    return f"DESCRIBE {to_sql(node.query)}"


@to_sql.register
def _(node: SummarizeQuery) -> str:
    return f"SUMMARIZE {to_sql(node.query)}"


@to_sql.register
def _(node: SetSetting) -> str:
    return f"SET {_setting(node.name)} = {to_sql(node.value)}"


@to_sql.register
def _(node: ResetSetting) -> str:
    return f"RESET {_setting(node.name)}"


def _setting(name: Word) -> str:
    return ".".join(quote_name(part) for part in name.text.split("."))
