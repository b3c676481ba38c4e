"""Builders of calls, their arguments and windows, and of types."""

from dataclasses import replace
from typing import Any

from dql.errors import ParseError
from dql.grammar.ast import (
    Argument,
    Call,
    Column,
    Expr,
    Frame,
    FrameBound,
    FromArg,
    MethodCall,
    NamedArg,
    Number,
    OrderItem,
    ReturningArg,
    SelectItem,
    Span,
    Star,
    StarPattern,
    StarRename,
    String,
    StructField,
    TypeArg,
    TypeName,
    WindowSpec,
)
from dql.grammar.builders.expressions import like_word
from dql.grammar.builders.parts import (
    Builder,
    Children,
    Part,
    after,
    clause,
    exprs,
    keywords,
    make_part,
    nodes,
    only,
    order,
    span_of,
    token_names,
)
from dql.grammar.lexer import Token
from dql.grammar.literals import name_value, string_value


def call(children: Children, span: Span) -> Call:
    return make_call((_function(children[0]),), children[1:], span)


def method(children: Children, span: Span) -> Expr:
    target, name, rest = children[0], _function(children[2]), children[3:]
    if isinstance(target, Column):
        return make_call((*target.path, name), rest, span)
    return MethodCall(target, make_call((name,), rest, (span_of(children[2])[0], span[1])), span=span)


def extract_call(children: Children, span: Span) -> Call:
    found = make_call((_function(children[0]),), children[1:], span)
    if len(found.args) == 1 and isinstance(found.args[0], Expr):
        hint = "say what to extract: AI_EXTRACT(body, STRUCT(product VARCHAR, price DOUBLE))"
        raise ParseError(f"{found.name[0]} needs a type", span=span, hint=hint)
    return found


def _function(token: Token) -> str:
    if token.text[0] not in '"`' and "." in token.text:  # AI . IF
        return "".join(token.text.split())
    return name_value(token.text)


def make_call(name: tuple[str, ...], children: Children, span: Span) -> Call:
    return Call(
        name,
        args=tuple(_part_named(name, child) for child in children if isinstance(child, Argument)),
        distinct="DISTINCT" in keywords(children),
        order_by=order(children),
        nulls=clause(children, "nulls"),
        within_group=clause(children, "within_group", ()),
        filter=clause(children, "filter"),
        over=clause(children, "over"),
        span=span,
    )


def _part_named(name: tuple[str, ...], arg: Argument) -> Argument:
    """`EXTRACT(year FROM d)`: the part of a date is a word, no column."""
    if name[-1].upper() != "EXTRACT" or not isinstance(arg, FromArg) or not isinstance(arg.subject, Column):
        return arg
    return replace(arg, subject=String(arg.subject.path[-1], span=arg.subject.span))


def named_arg(children: Children, span: Span) -> NamedArg:
    return NamedArg(name_value(children[0].text), children[2], span=span)


def from_arg(children: Children, span: Span) -> FromArg:
    return FromArg(children[0], children[2], length=after(children, "FOR"), span=span)


def placing_arg(children: Children, span: Span) -> FromArg:
    return FromArg(children[0], children[4], placing=children[2], length=after(children, "FOR"), span=span)


def side_arg(children: Children, span: Span) -> FromArg:
    subject = children[1] if isinstance(children[1], Expr) else None
    return FromArg(subject, children[-1], side=children[0].type, span=span)


def star(children: Children, span: Span) -> Star:
    target = children[0]
    if not isinstance(target, Token | Column):
        hint = "name the table or struct column before .*"
        raise ParseError("only a name can stand before .*", span=span_of(target), hint=hint)
    options: dict[str, Any] = {}
    for part in children:
        if isinstance(part, Part):
            if part.name in options:
                raise ParseError(f"{part.name.upper()} is given twice", span=part.span, hint="keep one of them")
            options[part.name] = part.value
    return Star(target.path if isinstance(target, Column) else (), **options, span=span)


def star_as(children: Children, span: Span) -> SelectItem:
    return SelectItem(children[0], token_names(children[2:])[0], span=span)


def star_rename(children: Children, span: Span) -> Part:
    renames = []
    for item in nodes(children, SelectItem):
        if not isinstance(item.expr, Column) or item.alias is None:
            raise ParseError("RENAME takes a column's name", span=item.span, hint="write RENAME (old AS new)")
        renames.append(StarRename(item.expr.path, item.alias, span=item.span))
    return Part("rename", tuple(renames), span)


def star_like(children: Children, span: Span) -> Part:
    words = keywords(children)
    pattern = StarPattern(like_word(words), string_value(children[-1].text), "NOT" in words, span=span)
    return Part("like", pattern, span)


def order_item(children: Children, span: Span) -> OrderItem:
    words = keywords(children[1:])
    nulls = next((word for word in ("FIRST", "LAST") if word in words), None)
    descending = "DESC" in words if words & {"ASC", "DESC"} else None
    return OrderItem(children[0] if isinstance(children[0], Expr) else None, descending, nulls, span=span)


def window_spec(children: Children, span: Span) -> WindowSpec:
    base = next(iter(token_names(children)), None)
    return WindowSpec(base, clause(children, "partition", ()), order(children), only(children, Frame), span=span)


def frame(children: Children, span: Span) -> Frame:
    start, *end = nodes(children, FrameBound)
    return Frame(children[0].type, start, end[0] if end else None, clause(children, "exclude"), span=span)


def frame_bound(children: Children, span: Span) -> FrameBound:
    if isinstance(children[0], Expr):
        return FrameBound(children[1].type, children[0], span=span)
    return FrameBound(f"{children[0].type} {children[1].type}", span=span)


def over(children: Children, span: Span) -> Part:
    target = children[1]
    return Part("over", name_value(target.text) if isinstance(target, Token) else target, span)


def type_(children: Children, span: Span) -> TypeName:
    base, dimensions = children[0], children[1:]
    sized = [part for i, part in enumerate(dimensions) if part.value != "ARRAY" or i == len(dimensions) - 1]
    sizes = tuple(None if part.value == "ARRAY" else part.value for part in sized)
    return TypeName(base.name, base.args, sizes, span=span)


def dimension(children: Children, span: Span) -> Part:
    number = next((child for child in children if child.type == "NUMBER"), None)
    if number is not None and not number.text.isdecimal():
        raise ParseError("a list's size is a whole number", span=span_of(number), hint="write INT[3], or INT[]")
    size = "ARRAY" if children[0].type == "ARRAY" else int(number.text) if number else None
    return Part("dimension", size, span)


def type_name(children: Children, span: Span) -> TypeName:
    path, words = clause(children, "path"), keywords(children)
    args = tuple(child for child in children if isinstance(child, Number | String | TypeName | StructField))
    untyped = next((arg for arg in args if not isinstance(arg, StructField)), None)
    if untyped is not None and path[-1].upper() in ("STRUCT", "ROW", "UNION"):
        hint = f"write {path[-1].upper()}(name VARCHAR, …)"
        raise ParseError(f"every field of {path[-1].upper()} needs a name and a type", span=untyped.span, hint=hint)
    if "PRECISION" in words:
        path = ("DOUBLE",)
    elif "VARYING" in words:
        path = ("VARCHAR",)
    if "WITH_LA" in words:
        path = (f"{path[-1].upper()}TZ",)
    return TypeName(path, args, span=span)


def struct_field(children: Children, span: Span) -> StructField:
    name, kind, *rules = children
    given: dict[str, Any] = {}
    for rule in rules:
        if rule.name in given:
            raise ParseError(f"{rule.name.upper()} is given twice", span=rule.span, hint="keep one of them")
        given[rule.name] = rule.value
    return StructField(name_value(name.text), kind, **given, span=span)


def field_rule(children: Children, span: Span) -> Part:
    word = children[0].type
    if word == "CHECK":
        return Part("check", children[2], span)
    return Part(word.lower(), string_value(children[1].text) if word == "DESCRIPTION" else True, span)


def _excluded(children: Children) -> str:
    words = [child.type for child in children[1:]]
    return " ".join(words)


CALLS: dict[str, Builder] = {
    "call": call,
    "dimension": dimension,
    "extract_call": extract_call,
    "field_rule": field_rule,
    "filter": make_part("filter", lambda c: exprs(c)[0]),
    "frame": frame,
    "frame_bound": frame_bound,
    "frame_exclude": make_part("exclude", _excluded),
    "from_arg": from_arg,
    "method": method,
    "named_arg": named_arg,
    "nulls": make_part("nulls", lambda c: c[0].type),
    "order_by": make_part("order_by", lambda c: nodes(c, OrderItem)),
    "order_item": order_item,
    "over": over,
    "partition": make_part("partition", exprs),
    "placing_arg": placing_arg,
    "returning_arg": lambda c, span: ReturningArg(c[0], c[2], span=span),
    "side_arg": side_arg,
    "star": star,
    "star_as": star_as,
    "star_exclude": make_part("exclude", lambda c: tuple(part.value for part in c if isinstance(part, Part))),
    "star_like": star_like,
    "star_name": make_part("star_name", lambda c: c[0].value),
    "star_rename": star_rename,
    "star_replace": make_part("replace", lambda c: nodes(c, SelectItem)),
    "struct_field": struct_field,
    "type": type_,
    "type_arg": lambda c, span: TypeArg(c[0], span=span),
    "type_name": type_name,
    "window_spec": window_spec,
    "within_group": make_part("within_group", order),
}
