"""Printers of USING, WITH bounds, INTO and options."""

from dql.grammar.ast import (
    AnyModel,
    Bound,
    CascadeModel,
    Contract,
    Into,
    ModelRef,
    Objective,
    Option,
    Quantity,
    RowModel,
    Setting,
    SettingList,
    SingleModel,
    Subquery,
    Using,
    Word,
)
from dql.grammar.literals import is_plain, quote_name, quote_string, quoted
from dql.grammar.unparse.core import clause, join, names, path, to_sql, words

_TIGHT_UNITS = frozenset(("us", "ms", "s", "min", "h", "kib", "mib", "gib", "tib", "%"))


@to_sql.register
def _(node: Using) -> str:
    return f"USING {to_sql(node.model)}"


@to_sql.register
def _(node: ModelRef) -> str:
    return quote_string(node.name) if node.literal else quote_name(node.name)


@to_sql.register
def _(node: RowModel) -> str:
    return to_sql(node.expr) if isinstance(node.expr, Subquery) else f"({to_sql(node.expr)})"


@to_sql.register
def _(node: SingleModel) -> str:
    return words(to_sql(node.model), clause("ADAPTER", node.adapter), clause("DRAFT", node.draft))


@to_sql.register
def _(node: AnyModel) -> str:
    return f"ANY ({join(node.models)})"


@to_sql.register
def _(node: CascadeModel) -> str:
    return f"CASCADE ({join(node.models)})"


@to_sql.register
def _(node: Contract) -> str:
    return f"WITH {join(node.items)}"


@to_sql.register
def _(node: Bound) -> str:
    qualifier = to_sql(node.qualifier) if node.qualifier else None
    of, confidence = clause("OF", node.of), clause("CONFIDENCE", node.confidence)
    return words(to_sql(node.name), qualifier, node.op, to_sql(node.value), of, confidence)


@to_sql.register
def _(node: Objective) -> str:
    return f"{node.direction} {to_sql(node.name)}"


@to_sql.register
def _(node: Setting) -> str:
    return f"{to_sql(node.name)} = {to_sql(node.value)}"


@to_sql.register
def _(node: Quantity) -> str:
    if node.unit is None:
        return node.number
    unit = node.unit.text
    if unit.lower() in _TIGHT_UNITS:
        return node.number + unit
    return f"{node.number} {'/'.join(part if is_plain(part) else quoted(part) for part in unit.split('/'))}"


@to_sql.register
def _(node: SettingList) -> str:
    return f"[{join(node.items)}]"


@to_sql.register
def _(node: Word) -> str:
    return quote_name(node.text)


@to_sql.register
def _(node: Option) -> str:
    return words(to_sql(node.name), to_sql(node.value) if node.value else None)


@to_sql.register
def _(node: Into) -> str:
    if node.path is None:
        return f"INTO {path(node.table)}"
    return words(
        f"INTO {to_sql(node.path)}",
        f"PARTITION BY ({names(node.partition_by)})" if node.partition_by else None,
        options(node.options),
    )


def options(given: tuple[Option, ...]) -> str | None:
    """`(FORMAT parquet, HEADER)`, or nothing."""
    return f"({join(given)})" if given else None
