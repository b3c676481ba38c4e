"""Builders of scalar expressions; each takes the children of its rule and their span."""

from dql.errors import ParseError
from dql.grammar.ast import (
    And,
    ArraySubquery,
    AtTimeZone,
    Between,
    Case,
    Cast,
    Collate,
    Column,
    Comparison,
    Comprehension,
    Constant,
    Entry,
    Exists,
    Expr,
    FieldAccess,
    In,
    Interval,
    Is,
    IsDistinct,
    Lambda,
    Like,
    ListExpr,
    Not,
    Number,
    Operation,
    Or,
    Param,
    Paren,
    Positional,
    Quantified,
    Query,
    Row,
    Slice,
    Span,
    String,
    StructExpr,
    Subquery,
    Subscript,
    TypedLiteral,
    Unary,
    When,
)
from dql.grammar.builders.parts import Builder, Children, after, clause, exprs, keywords, nodes, span_of, token_names
from dql.grammar.lexer import Token
from dql.grammar.literals import name_value, string_value


def string(children: Children, span: Span) -> String:
    raw = children[0].text
    return String(string_value(raw), raw, span=span)


def param(children: Children, span: Span) -> Param:
    text = children[0].text
    return Param(text[1:] or "?", span=span)


def typed_literal(children: Children, span: Span) -> TypedLiteral:
    name, literal = children
    return TypedLiteral(name_value(name.text), string([literal], span_of(literal)), span=span)


def interval(children: Children, span: Span) -> Interval:
    first, last = children[1], children[-1]
    value: Expr
    if first.type == "LPAR":
        value = Paren(children[2], span=(first.start, span_of(children[3])[1]))
    elif first.type == "STRING":
        value = string([first], span_of(first))
    else:
        value = Number(first.text, span=span_of(first))
    unit = last.text.upper() if last.type == "INTERVAL_UNIT" else None
    return Interval(value, unit, span=span)


def field(children: Children, span: Span) -> Expr:
    target, name = children[0], name_value(children[2].text)
    if isinstance(target, Column):
        return Column((*target.path, name), span=span)
    return FieldAccess(target, name, span=span)


def operation(children: Children, span: Span) -> Operation:
    return Operation(tuple(children[::2]), tuple(token.text for token in children[1::2]), span=span)


def comparison(children: Children, span: Span) -> Comparison:
    if len(children) > 3:
        hint = "join them with AND: a < b AND b < c"
        raise ParseError("comparisons cannot be chained", span=span_of(children[3]), hint=hint)
    left, operator, right = children
    return Comparison(left, operator.text, right, span=span)


def quantified(children: Children, span: Span) -> Quantified:
    word = "ALL" if children[0].type == "ALL" else "ANY"
    return Quantified(word, next(c for c in children if isinstance(c, Expr | Query)), span=span)


def is_(children: Children, span: Span) -> Is:
    words = keywords(children)
    if words & {"ISNULL", "NOTNULL"}:
        return Is(children[0], "NULL", "NOTNULL" in words, span=span)
    return Is(children[0], children[-1].type, "NOT" in words, span=span)


def is_distinct(children: Children, span: Span) -> IsDistinct:
    return IsDistinct(children[0], children[-1], "NOT" in keywords(children), span=span)


def in_(children: Children, span: Span) -> In:
    return In(children[0], children[-1], "NOT" in keywords(children), span=span)


def between(children: Children, span: Span) -> Between:
    value, low, high = exprs(children)
    return Between(value, low, high, "NOT" in keywords(children), span=span)


def like(children: Children, span: Span) -> Like:
    words = keywords(children)
    operand, pattern, *escape = exprs(children)
    return Like(operand, like_word(words), pattern, escape[0] if escape else None, "NOT" in words, span=span)


def like_word(words: set[str]) -> str:
    """Which of the four kinds of pattern the keywords name."""
    return "SIMILAR TO" if "SIMILAR" in words else next(word for word in ("LIKE", "ILIKE", "GLOB") if word in words)


def collate(children: Children, span: Span) -> Collate:
    return Collate(children[0], clause(children, "path"), span=span)


def cast(children: Children, span: Span) -> Cast:
    return Cast(children[0], children[2], "::", span=span)


def cast_call(children: Children, span: Span) -> Cast:
    return Cast(children[2], children[4], children[0].type, span=span)


def slice_(children: Children, span: Span) -> Slice:
    bounds: list[Expr | None] = [None, None, None]
    position = 0
    for child in children[2:-1]:
        if isinstance(child, Token):
            position += len(child.text)  # "::" is two colons
        else:
            bounds[position] = child
    return Slice(children[0], *bounds, span=span)


def comprehension(children: Children, span: Span) -> Comprehension:
    item, source, *condition = exprs(children)
    return Comprehension(item, clause(children, "names"), source, condition[0] if condition else None, span=span)


def struct(children: Children, span: Span) -> StructExpr:
    return StructExpr(nodes(children, Entry), "MAP" in keywords(children), span=span)


def case(children: Children, span: Span) -> Case:
    operand = children[1] if isinstance(children[1], Expr) else None
    return Case(operand, nodes(children, When), after(children, "ELSE"), span=span)


EXPRESSIONS: dict[str, Builder] = {
    "array_subquery": lambda c, span: ArraySubquery(c[1], span=span),
    "arrow": operation,
    "at_time_zone": lambda c, span: AtTimeZone(c[0], c[-1], span=span),
    "between": between,
    "case": case,
    "cast": cast,
    "cast_call": cast_call,
    "collate": collate,
    "column": lambda c, span: Column(token_names(c), span=span),
    "comparison": comparison,
    "comprehension": comprehension,
    "conjunction": lambda c, span: And(exprs(c), span=span),
    "constant": lambda c, span: Constant(c[0].type, span=span),
    "disjunction": lambda c, span: Or(exprs(c), span=span),
    "entry": lambda c, span: Entry(c[0], c[2], span=span),
    "exists": lambda c, span: Exists(c[1], span=span),
    "field": field,
    "hole": lambda c, span: c[0],
    "in_": in_,
    "interval": interval,
    "is_": is_,
    "is_distinct": is_distinct,
    "lambda_": lambda c, span: Lambda(clause(c, "names"), c[-1], span=span),
    "like": like,
    "list_": lambda c, span: ListExpr(exprs(c), span=span),
    "not_": lambda c, span: Not(c[1], span=span),
    "number": lambda c, span: Number(c[0].text, span=span),
    "operand": operation,
    "param": param,
    "paren": lambda c, span: Paren(c[1], span=span),
    "positional": lambda c, span: Positional(int(c[0].text[1:]), span=span),
    "power": operation,
    "product": operation,
    "quantified": quantified,
    "row": lambda c, span: Row(exprs(c), span=span),
    "slice": slice_,
    "string": string,
    "struct": struct,
    "subquery": lambda c, span: Subquery(c[0], span=span),
    "subscript": lambda c, span: Subscript(c[0], c[2], span=span),
    "sum": operation,
    "typed_literal": typed_literal,
    "unary": lambda c, span: Unary(c[0].text, c[1], span=span),
    "when": lambda c, span: When(c[1], c[3], span=span),
}
