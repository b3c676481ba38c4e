"""Builders of FROM, SELECT, the verbs and whole queries."""

from dataclasses import replace
from typing import Any

from dql.errors import ParseError
from dql.grammar.ast import (
    Contract,
    Cte,
    DerivedTable,
    Distinct,
    Expr,
    FileRef,
    GroupBy,
    GroupingSets,
    Into,
    Island,
    Join,
    JoinChain,
    Limit,
    NamedTable,
    NamedWindow,
    NestedQuery,
    Node,
    Number,
    ParenTable,
    Query,
    QueryBody,
    Row,
    Sample,
    Select,
    SelectItem,
    SetOperation,
    Span,
    Star,
    Table,
    TableFunction,
    TableRef,
    TypeName,
    Using,
    Values,
    VerbItem,
    VerbQuery,
)
from dql.grammar.builders.calls import make_call
from dql.grammar.builders.expressions import string
from dql.grammar.builders.parts import (
    Builder,
    Children,
    Part,
    clause,
    exprs,
    keywords,
    label,
    make_part,
    nodes,
    only,
    order,
    span_of,
    token_names,
)
from dql.grammar.lexer import Token
from dql.grammar.literals import name_value

_TAIL = ("where", "group_by", "having", "windows", "qualify", "sample")


def island(token: Token) -> Query:
    """A query of DuckDB's own."""
    span = token.text_start, token.text_start + len(token.text)
    return Query(Island(token.text, span=span), span=span)


def parenthesized(children: Children, span: Span) -> Query:
    if len(children) == 1:
        return island(children[0])
    query: Query = children[1]
    using = only(children, Using)
    return replace(query, using=using, span=(query.span[0], using.span[1])) if using else query


def query(children: Children, span: Span) -> Query:
    ctes = clause(children, "ctes", ((), False))
    body = only(children, QueryBody)
    assert body is not None
    return Query(
        body,
        ctes=ctes[0],
        recursive=ctes[1],
        order_by=order(children),
        limit=only(children, Limit),
        offset=clause(children, "offset"),
        span=span,
    )


def full_query(children: Children, span: Span) -> Query:
    """A query with its trailing clauses, each given once."""
    given: dict[str, Any] = {}
    names: dict[type[Node], str] = {Using: "using", Contract: "contract", Into: "into"}
    words = {"using": "USING", "contract": "WITH", "into": "INTO"}
    for part in children[1:]:
        name = names[type(part)]
        if name in given:
            start = part.span[0]
            hint = "write all bounds and settings in one WITH" if name == "contract" else f"keep one {words[name]}"
            raise ParseError(f"{words[name]} is given twice", span=(start, start + len(words[name])), hint=hint)
        given[name] = part
    whole: Query = children[0]
    return replace(whole, **given, span=span)


def cte(children: Children, span: Span) -> Cte:
    words = keywords(children)
    materialized = "NOT" not in words if "MATERIALIZED" in words else None
    body = only(children, Query)
    assert body is not None
    columns, key = clause(children, "names", ()), clause(children, "using_key", ())
    return Cte(token_names(children)[0], body, columns, materialized, key, span=span)


def limit(children: Children, span: Span) -> Limit:
    return Limit(children[1], "PERCENT_WORD" in keywords(children), span=span)


def set_operation(children: Children, span: Span) -> SetOperation:
    operators = tuple(part.value for part in children if isinstance(part, Part))
    return SetOperation(nodes(children, QueryBody), operators, span=span)


def _set_word(children: Children) -> str:
    words = [child.type for child in children if child.type != "DISTINCT"]
    return " ".join("NAME" if word == "NAME_WORD" else word for word in words)


def select(children: Children, span: Span) -> Select:
    items = nodes(children, SelectItem) or (SelectItem(Star()),)
    return Select(items, only(children, Distinct), **_clauses(children), span=span)


def star_of(children: Children, span: Span) -> Select:
    """`TABLE t`, or a name that stands for all of its rows."""
    path = next(child for child in children if isinstance(child, Part))
    table = TableRef(path.value, span=path.span)
    return Select((SelectItem(Star(span=path.span), span=path.span),), from_=(table,), span=span)


def verb_query(children: Children, span: Span) -> VerbQuery:
    verb, items = clause(children, "verb")
    return VerbQuery(verb, items, **_clauses(children), span=span)


def _clauses(children: Children) -> dict[str, Any]:
    found = {name: clause(children, name) for name in _TAIL}
    return {"from_": clause(children, "from", ()), **{k: v for k, v in found.items() if v is not None}}


def select_item(children: Children, span: Span) -> SelectItem:
    if isinstance(children[0], Token):  # name: expr
        return SelectItem(children[2], name_value(children[0].text), span=span)
    if len(children) == 2:
        return SelectItem(children[0], name_value(children[1].text), span=span)
    return SelectItem(children[0], label(children), span=span)


def classify_item(children: Children, span: Span) -> VerbItem:
    return VerbItem(children[0], labels=children[2], alias=label(children), span=span)


def score_item(children: Children, span: Span) -> VerbItem:
    value, low, high = exprs(children)
    return VerbItem(value, low=low, high=high, alias=label(children), span=span)


def plain_item(children: Children, span: Span) -> VerbItem:
    return VerbItem(children[0], type=only(children, TypeName), alias=label(children), span=span)


def _verb(children: Children) -> tuple[str, tuple[VerbItem, ...]]:
    return children[0].type, nodes(children, VerbItem)


def table(children: Children, span: Span) -> JoinChain:
    first, *joins = children
    return JoinChain(first, tuple(joins), span=span)


def join(children: Children, span: Span) -> Join:
    words = [child.type for child in children if isinstance(child, Token) and child.type not in ("JOIN", "OUTER")]
    if words in ([], ["ASOF"], ["NATURAL"]):
        words.append("INNER")
    right = only(children, Table)
    assert right is not None
    on, using = clause(children, "condition", (None, ()))
    return Join(" ".join(words), right, on, using, span=span)


def _condition(children: Children) -> tuple[Expr | None, tuple[str, ...]]:
    return (children[1], ()) if children[0].type == "ON" else (None, clause(children, "names"))


def named_table(children: Children, span: Span) -> Table:
    source = only(children, NamedTable)
    assert source is not None
    alias, columns = clause(children, "alias", (None, ()))
    if isinstance(children[0], Token):  # name: table
        alias = name_value(children[0].text)
    sample = clause(children, "tablesample")
    return replace(source, alias=alias, columns=columns, sample=sample, span=span)


def _alias(children: Children) -> tuple[str, tuple[str, ...]]:
    return token_names(children)[0], clause(children, "names", ())


def derived_table(children: Children, span: Span) -> DerivedTable:
    return DerivedTable(children[-1], "LATERAL" in keywords(children), span=span)


def table_function(children: Children, span: Span) -> TableFunction:
    words = keywords(children)
    path = next(child for child in children if isinstance(child, Part) and child.name == "path")
    rest = children[children.index(path) + 1 :]
    call = make_call(path.value, rest, (path.span[0], span[1]))
    return TableFunction(call, "LATERAL" in words, "ORDINALITY" in words, span=span)


def sample_amount(children: Children, span: Span) -> Sample:
    size = Number(children[0].text, span=span_of(children[0]))
    words = keywords(children)
    unit = "ROWS" if "ROWS" in words else "PERCENT" if len(children) > 1 else None
    return Sample(size, unit, span=span)


def sample_method(children: Children, span: Span) -> Sample:
    amount = only(children, Sample)
    assert amount is not None
    names = token_names(children)
    return replace(amount, method=names[0] if names else None, seed=_seed(children), span=span)


def _seed(children: Children) -> Number | None:
    numbers = [child for child in children if isinstance(child, Token) and child.type == "NUMBER"]
    return Number(numbers[0].text, span=span_of(numbers[0])) if numbers else None


def group_by(children: Children, span: Span) -> Part:
    items = tuple(child for child in children if isinstance(child, Expr | GroupingSets))
    return Part("group_by", GroupBy(items, span=span), span)


QUERIES: dict[str, Builder] = {
    "classify_item": classify_item,
    "cte": cte,
    "ctes": make_part("ctes", lambda c: (nodes(c, Cte), "RECURSIVE" in keywords(c))),
    "derived_table": derived_table,
    "distinct": lambda c, span: Distinct(exprs(c), span=span),
    "embed_item": plain_item,
    "extract_item": plain_item,
    "file_ref": lambda c, span: FileRef(string(c, span), span=span),
    "from": make_part("from", lambda c: nodes(c, Table)),
    "full_query": full_query,
    "generate_item": plain_item,
    "group_by": group_by,
    "grouping_sets": lambda c, span: GroupingSets(exprs(c), span=span),
    "having": make_part("having", lambda c: c[1]),
    "intersect_operator": make_part("operator", _set_word),
    "island": lambda c, span: island(c[0]),
    "join": join,
    "join_condition": make_part("condition", _condition),
    "limit": limit,
    "named_table": named_table,
    "named_window": lambda c, span: NamedWindow(name_value(c[0].text), c[2], span=span),
    "names": make_part("names", token_names),
    "name_path": make_part("path", token_names),
    "nested_query": lambda c, span: NestedQuery(c[0], span=span),
    "offset": make_part("offset", lambda c: c[1]),
    "paren_table": lambda c, span: ParenTable(c[1], span=span),
    "parenthesized": parenthesized,
    "qualify": make_part("qualify", lambda c: c[1]),
    "query": query,
    "row_values": lambda c, span: Row(exprs(c), span=span),
    "sample_amount": sample_amount,
    "sample_by": sample_method,
    "sample_clause": make_part("sample", lambda c: only(c, Sample)),
    "sample_method": sample_method,
    "score_item": score_item,
    "select": select,
    "select_item": select_item,
    "set_intersection": set_operation,
    "set_operation": set_operation,
    "set_operator": make_part("operator", _set_word),
    "table": table,
    "table_alias": make_part("alias", _alias),
    "table_function": table_function,
    "table_ref": lambda c, span: TableRef(c[0].value, span=span),
    "table_query": star_of,
    "tablesample": make_part("tablesample", lambda c: only(c, Sample)),
    "using_key": make_part("using_key", lambda c: clause(c, "names")),
    "values": lambda c, span: Values(nodes(c, Row), span=span),
    "verb": make_part("verb", _verb),
    "verb_query": verb_query,
    "where": make_part("where", lambda c: c[1]),
    "window": make_part("windows", lambda c: nodes(c, NamedWindow)),
}
