"""Printers of queries with their clauses."""

from dql.grammar.ast import (
    Block,
    Cte,
    DerivedTable,
    Distinct,
    FileRef,
    GroupBy,
    GroupingSets,
    Island,
    Join,
    JoinChain,
    Limit,
    NamedTable,
    NamedWindow,
    NestedQuery,
    ParenTable,
    Query,
    QueryBody,
    Sample,
    Select,
    SelectItem,
    SetOperation,
    TableFunction,
    TableRef,
    Values,
    VerbItem,
    VerbQuery,
)
from dql.grammar.literals import quote_name
from dql.grammar.unparse.core import clause, join, names, path, to_sql, words
from dql.grammar.unparse.expressions import OPERATOR, operand


@to_sql.register
def _(node: Query) -> str:
    recursive = "RECURSIVE " if node.recursive else ""
    return words(
        f"WITH {recursive}{join(node.ctes)}" if node.ctes else None,
        to_sql(node.body),
        f"ORDER BY {join(node.order_by)}" if node.order_by else None,
        to_sql(node.limit) if node.limit else None,
        clause("OFFSET", node.offset),
        *(to_sql(part) for part in (node.using, node.contract, node.into) if part),
    )


@to_sql.register
def _(node: Cte) -> str:
    hint = None if node.materialized is None else "MATERIALIZED" if node.materialized else "NOT MATERIALIZED"
    return words(
        quote_name(node.name) + (f"({names(node.columns)})" if node.columns else ""),
        f"USING KEY ({names(node.using_key)})" if node.using_key else None,
        "AS",
        hint,
        f"({to_sql(node.query)})",
    )


@to_sql.register
def _(node: Limit) -> str:
    return f"LIMIT {to_sql(node.count)}{'%' if node.percent else ''}"


@to_sql.register
def _(node: Island) -> str:
    return node.text


@to_sql.register
def _(node: NestedQuery) -> str:
    return f"({to_sql(node.query)})"


@to_sql.register
def _(node: SetOperation) -> str:
    intersects = node.operators[0].startswith("INTERSECT")
    parts = [_branch(node.branches[0], intersects)]
    for operator, branch in zip(node.operators, node.branches[1:], strict=True):
        parts += [operator, _branch(branch, intersects)]
    return " ".join(parts)


def _branch(node: QueryBody, intersects: bool) -> str:
    looser = isinstance(node, Island) or (
        isinstance(node, SetOperation) and (intersects or not node.operators[0].startswith("INTERSECT"))
    )
    return f"({to_sql(node)})" if looser else to_sql(node)


@to_sql.register
def _(node: Values) -> str:
    return "VALUES " + ", ".join([f"({join(row.items)})" for row in node.rows])


@to_sql.register
def _(node: Select) -> str:
    return words("SELECT", to_sql(node.distinct) if node.distinct else None, join(node.items), _tail(node))


@to_sql.register
def _(node: VerbQuery) -> str:
    return words(node.verb, ", ".join([_verb_item(node.verb, item) for item in node.items]), _tail(node))


def _tail(node: Block) -> str:
    return words(
        f"FROM {join(node.from_)}" if node.from_ else None,
        clause("WHERE", node.where),
        to_sql(node.group_by) if node.group_by else None,
        clause("HAVING", node.having),
        f"WINDOW {join(node.windows)}" if node.windows else None,
        clause("QUALIFY", node.qualify),
        clause("USING SAMPLE", node.sample),
    )


def _verb_item(verb: str, item: VerbItem) -> str:
    value = operand(item.input, OPERATOR) if verb in ("CLASSIFY", "SCORE") else to_sql(item.input)
    labels = f"IN {operand(item.labels, OPERATOR)}" if item.labels else None
    scale = None
    if item.low and item.high:
        scale = f"BETWEEN {operand(item.low, OPERATOR)} AND {operand(item.high, OPERATOR)}"
    alias = f"AS {quote_name(item.alias)}" if item.alias else None
    return words(value, labels, scale, clause("RETURNING", item.type), alias)


@to_sql.register
def _(node: VerbItem) -> str:
    return _verb_item("CLASSIFY" if node.labels else "SCORE" if node.low else "GENERATE", node)


@to_sql.register
def _(node: SelectItem) -> str:
    return words(to_sql(node.expr), f"AS {quote_name(node.alias)}" if node.alias else None)


@to_sql.register
def _(node: Distinct) -> str:
    return f"DISTINCT ON ({join(node.on)})" if node.on else "DISTINCT"


@to_sql.register
def _(node: GroupBy) -> str:
    return f"GROUP BY {join(node.items) or 'ALL'}"


@to_sql.register
def _(node: GroupingSets) -> str:
    return f"GROUPING SETS ({join(node.sets)})"


@to_sql.register
def _(node: NamedWindow) -> str:
    return f"{quote_name(node.name)} AS {to_sql(node.spec)}"


@to_sql.register
def _(node: TableRef) -> str:
    return path(node.name) + _named(node)


@to_sql.register
def _(node: FileRef) -> str:
    return to_sql(node.path) + _named(node)


@to_sql.register
def _(node: TableFunction) -> str:
    source = words(
        "LATERAL" if node.lateral else None, to_sql(node.call), "WITH ORDINALITY" if node.ordinality else None
    )
    return source + _named(node)


@to_sql.register
def _(node: DerivedTable) -> str:
    return f"{'LATERAL ' if node.lateral else ''}({to_sql(node.query)}){_named(node)}"


@to_sql.register
def _(node: ParenTable) -> str:
    return f"({to_sql(node.table)}){_named(node)}"


def _named(node: NamedTable) -> str:
    columns = f"({names(node.columns)})" if node.columns else ""
    alias = f" AS {quote_name(node.alias)}{columns}" if node.alias else ""
    return alias + (f" TABLESAMPLE {to_sql(node.sample)}" if node.sample else "")


@to_sql.register
def _(node: Sample) -> str:
    amount = words(to_sql(node.size), node.unit)
    if node.seed is not None:
        return f"{quote_name(node.method or '')}({amount}) REPEATABLE ({to_sql(node.seed)})".removeprefix('""')
    return f"{quote_name(node.method)}({amount})" if node.method else amount


@to_sql.register
def _(node: JoinChain) -> str:
    return f"{to_sql(node.first)} {join(node.joins, ' ')}"


@to_sql.register
def _(node: Join) -> str:
    kind = " ".join(word for word in node.kind.split() if word != "INNER")
    using = f"USING ({names(node.using)})" if node.using else None
    return words(kind, "JOIN", to_sql(node.table), clause("ON", node.on), using)
