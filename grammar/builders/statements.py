"""Builders of statements."""

from typing import Any

from dql.errors import ParseError
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
    Expr,
    Insert,
    ModelRef,
    Parameter,
    Quantity,
    Query,
    QueryStatement,
    ResetSetting,
    SetSetting,
    Show,
    Span,
    String,
    SummarizeQuery,
    Word,
)
from dql.grammar.builders.expressions import string
from dql.grammar.builders.parts import (
    Builder,
    Children,
    Part,
    after,
    clause,
    keywords,
    make_part,
    nodes,
    only,
    span_of,
    token_names,
)
from dql.grammar.builders.queries import island, star_of
from dql.grammar.lexer import Token
from dql.grammar.literals import name_value


def explain(children: Children, span: Span) -> Explain:
    given: dict[str, Any] = {}
    for part in (child for child in children if isinstance(child, Part)):
        name, value = part.value
        if name in given:
            raise ParseError(f"{name.upper()} is given twice", span=part.span, hint="keep one of them")
        given[name] = value
    if "ANALYZE" in keywords(children):
        given["analyze"] = True
    return Explain(children[-1], **given, span=span)


def _explain_option(children: Children) -> tuple[str, Any]:
    kind = children[0].type
    if kind == "FORMAT":
        return "format", children[1]
    if kind == "ON":
        return "on", string(children[1:], span_of(children[1]))
    if kind == "ROWS":
        return "rows", Quantity(children[1].text, span=span_of(children[1]))
    return kind.lower(), True


def evaluate(children: Children, span: Span) -> Evaluate:
    against = after(children, "AGAINST")
    gold = against if isinstance(against, Query) else Column(against.value, span=against.span)
    return Evaluate(children[1], gold, nodes(children, Word), span=span)


def _flags(children: Children) -> dict[str, bool]:
    words = keywords(children)
    return {"or_replace": "REPLACE" in words, "if_not_exists": "EXISTS" in words}


def _temporary(children: Children) -> bool:
    return bool(keywords(children) & {"TEMP", "TEMPORARY"})


def _source(children: Children) -> String:
    token = after(children, "FROM")
    return string([token], span_of(token))


def create_model(children: Children, span: Span) -> CreateModel:
    options = clause(children, "options", ())
    return CreateModel(token_names(children)[0], _source(children), options, **_flags(children), span=span)


def create_adapter(children: Children, span: Span) -> CreateAdapter:
    model = only(children, ModelRef)
    assert model is not None
    return CreateAdapter(token_names(children)[0], model, _source(children), **_flags(children), span=span)


def create_relation(children: Children, span: Span) -> CreateTable | CreateView:
    kind = CreateView if "VIEW" in keywords(children) else CreateTable
    path, columns = clause(children, "path"), clause(children, "names", ())
    return kind(path, children[-1], columns, temporary=_temporary(children), **_flags(children), span=span)


def create_function(children: Children, span: Span) -> CreateFunction:
    path, params = clause(children, "path"), nodes(children, Parameter)
    return CreateFunction(path, params, children[-1], temporary=_temporary(children), **_flags(children), span=span)


def parameter(children: Children, span: Span) -> Parameter:
    return Parameter(name_value(children[0].text), only(children, Expr), span=span)


def insert(children: Children, span: Span) -> Insert:
    by_name = "NAME_WORD" in keywords(children)
    return Insert(clause(children, "path"), children[-1], clause(children, "names", ()), by_name, span=span)


def _query_or_name(children: Children) -> Query:
    for child in children[1:]:
        if isinstance(child, Query):
            return child
        if isinstance(child, Part) and child.name == "path":
            return Query(star_of([child], child.span), span=child.span)
        if isinstance(child, Token) and child.type == "SUBQUERY":
            return island(child)
    raise AssertionError("the rule has a query or a name")


def copy(children: Children, span: Span) -> Copy:
    token = after(children, "TO")
    path = string([token], span_of(token))
    return Copy(_query_or_name(children), path, clause(children, "options", ()), span=span)


def drop(children: Children, span: Span) -> Drop:
    kind = "FUNCTION" if children[1].type == "MACRO" else children[1].type
    return Drop(kind, clause(children, "path"), "EXISTS" in keywords(children), span=span)


STATEMENTS: dict[str, Builder] = {
    "copy": copy,
    "create_adapter": create_adapter,
    "create_function": create_function,
    "create_model": create_model,
    "create_table": create_relation,
    "create_view": create_relation,
    "describe_model": lambda c, span: DescribeModel(c[2], span=span),
    "describe_query": lambda c, span: DescribeQuery(_query_or_name(c), span=span),
    "drop": drop,
    "evaluate": evaluate,
    "explain": explain,
    "explain_option": make_part("option", _explain_option),
    "insert": insert,
    "parameter": parameter,
    "query_statement": lambda c, span: QueryStatement(c[0], span=span),
    "reset": lambda c, span: ResetSetting(c[1], span=span),
    "set": lambda c, span: SetSetting(c[1], c[3], span=span),
    "show": lambda c, span: Show(c[1].type, span=span),
    "summarize_query": lambda c, span: SummarizeQuery(_query_or_name(c), span=span),
}
