"""Printers of calls, windows and types."""

from dql.grammar.ast import (
    Call,
    Frame,
    FrameBound,
    FromArg,
    MethodCall,
    NamedArg,
    OrderItem,
    ReturningArg,
    Star,
    StarPattern,
    StarRename,
    StructField,
    TypeArg,
    TypeName,
    WindowSpec,
)
from dql.grammar.literals import is_plain, quote_name, quote_string, quoted
from dql.grammar.names import INFERENCE_NAMES, RESERVED
from dql.grammar.unparse.core import clause, join, path, to_sql, words
from dql.grammar.unparse.expressions import OPERATOR, POSTFIX, negation, operand

# Before a bracket these words mean something else; all others that DuckDB does not reserve are a function's name.
_NOT_CALLED = RESERVED | {"CURRENT", "EXISTS", "INTERVAL", "TRY_CAST", "UNBOUNDED", "VALUES"}


def function_name(name: tuple[str, ...]) -> str:
    """A function's name; keywords that are no keyword before a bracket stay bare, as DuckDB wants some of them."""
    *schema, last = name
    bare = last.upper() in INFERENCE_NAMES or (is_plain(last) and last.upper() not in _NOT_CALLED)
    return ".".join([*(quote_name(part) for part in schema), last if bare else quoted(last)])


@to_sql.register
def _(node: Call) -> str:
    inner = words(
        "DISTINCT" if node.distinct else None,
        join(node.args),
        f"ORDER BY {join(node.order_by)}" if node.order_by else None,
        f"{node.nulls} NULLS" if node.nulls else None,
    )
    over = quote_name(node.over) if isinstance(node.over, str) else to_sql(node.over) if node.over else None
    return words(
        f"{function_name(node.name)}({inner})",
        f"WITHIN GROUP (ORDER BY {join(node.within_group)})" if node.within_group else None,
        f"FILTER (WHERE {to_sql(node.filter)})" if node.filter else None,
        f"OVER {over}" if over else None,
    )


@to_sql.register
def _(node: MethodCall) -> str:
    return f"{operand(node.target, POSTFIX)}.{to_sql(node.call)}"


@to_sql.register
def _(node: NamedArg) -> str:
    return f"{quote_name(node.name)} => {to_sql(node.value)}"


@to_sql.register
def _(node: ReturningArg) -> str:
    return f"{to_sql(node.expr)} RETURNING {to_sql(node.type)}"


@to_sql.register
def _(node: TypeArg) -> str:
    return to_sql(node.type)


@to_sql.register
def _(node: FromArg) -> str:
    subject = to_sql(node.subject) if node.subject else None
    placing, length = clause("PLACING", node.placing), clause("FOR", node.length)
    return words(node.side, subject, placing, f"FROM {to_sql(node.source)}", length)


@to_sql.register
def _(node: Star) -> str:
    return words(
        f"{path(node.qualifier)}.*" if node.qualifier else "*",
        f"EXCLUDE ({', '.join(path(column) for column in node.exclude)})" if node.exclude else None,
        f"REPLACE ({join(node.replace)})" if node.replace else None,
        f"RENAME ({join(node.rename)})" if node.rename else None,
        to_sql(node.like) if node.like else None,
    )


@to_sql.register
def _(node: StarPattern) -> str:
    return words(negation(node.negated), node.word, quote_string(node.pattern))


@to_sql.register
def _(node: StarRename) -> str:
    return f"{path(node.column)} AS {quote_name(node.name)}"


@to_sql.register
def _(node: OrderItem) -> str:
    value = to_sql(node.expr) if node.expr else "ALL"
    direction = None if node.descending is None else "DESC" if node.descending else "ASC"
    return words(value, direction, f"NULLS {node.nulls}" if node.nulls else None)


@to_sql.register
def _(node: WindowSpec) -> str:
    inner = words(
        quote_name(node.base) if node.base else None,
        f"PARTITION BY {join(node.partition_by)}" if node.partition_by else None,
        f"ORDER BY {join(node.order_by)}" if node.order_by else None,
        to_sql(node.frame) if node.frame else None,
    )
    return f"({inner})"


@to_sql.register
def _(node: Frame) -> str:
    extent = f"BETWEEN {to_sql(node.start)} AND {to_sql(node.end)}" if node.end else to_sql(node.start)
    return words(node.unit, extent, f"EXCLUDE {node.exclude}" if node.exclude else None)


@to_sql.register
def _(node: FrameBound) -> str:
    return words(operand(node.expr, OPERATOR) if node.expr else None, node.kind)


@to_sql.register
def _(node: TypeName) -> str:
    *schema, last = node.name
    bare = is_plain(last) and (last.upper() not in RESERVED or (last.upper() == "UNION" and node.args))
    name = ".".join([*(quote_name(part) for part in schema), last if bare else quoted(last)])
    args = f"({join(node.args)})" if node.args else ""
    return name + args + "".join("[]" if size is None else f"[{size}]" for size in node.dimensions)


@to_sql.register
def _(node: StructField) -> str:
    return words(
        quote_name(node.name),
        to_sql(node.type),
        f"CHECK ({to_sql(node.check)})" if node.check else None,
        "VERBATIM" if node.verbatim else None,
        f"DESCRIPTION {quote_string(node.description)}" if node.description is not None else None,
    )
