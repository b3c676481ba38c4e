"""Builders of USING, WITH bounds, INTO and options. Names and units are the planner's to check."""

from dql.grammar.ast import (
    AnyModel,
    Bound,
    CascadeModel,
    Constant,
    Contract,
    Into,
    ModelRef,
    Objective,
    Option,
    Quantity,
    RowModel,
    Setting,
    SettingList,
    SettingValue,
    SingleModel,
    Span,
    String,
    Subquery,
    Using,
    Word,
)
from dql.grammar.builders.parts import Builder, Children, after, clause, make_part, nodes, only, token_names
from dql.grammar.lexer import Token
from dql.grammar.literals import name_value, string_value


def word(children: Children, span: Span) -> Word:
    return Word(name_value(children[0].text), span=span)


def setting_name(children: Children, span: Span) -> Word:
    return Word(".".join(token_names(children)), span=span)


def setting_word(children: Children, span: Span) -> SettingValue:
    token = children[0]
    return Word(name_value(token.text), span=span) if token.type in ("NAME", "ON") else Constant(token.type, span=span)


def setting_list(children: Children, span: Span) -> SettingList:
    return SettingList(tuple(child for child in children if not isinstance(child, Token)), span=span)


def quantity(children: Children, span: Span) -> Quantity:
    number = "".join(child.text for child in children if isinstance(child, Token) and child.text != "+")
    return Quantity(number, only(children, Word), span=span)


def unit(children: Children, span: Span) -> Word:
    return Word("".join(name_value(child.text) for child in children), span=span)


def bound(children: Children, span: Span) -> Bound:
    name, *qualifier = nodes(children, Word)[:2] if isinstance(children[1], Word) else [children[0]]
    operator = next(i for i, child in enumerate(children) if isinstance(child, Token))
    return Bound(
        name,
        children[operator].text,
        children[operator + 1],
        qualifier[0] if qualifier else None,
        after(children, "OF"),
        after(children, "CONFIDENCE"),
        span=span,
    )


def model_ref(children: Children, span: Span) -> ModelRef:
    token = children[0]
    if token.type == "STRING":
        return ModelRef(string_value(token.text), literal=True, span=span)
    return ModelRef(name_value(token.text), span=span)


def single_model(children: Children, span: Span) -> SingleModel:
    return SingleModel(children[0], after(children, "ADAPTER"), after(children, "DRAFT"), span=span)


def row_model(children: Children, span: Span) -> RowModel:
    expr = children[1] if len(children) > 1 else Subquery(children[0], span=span)
    return RowModel(expr, span=span)


def into(children: Children, span: Span) -> Into:
    options, columns = clause(children, "options", ()), clause(children, "partition_by", ())
    return Into(only(children, String), clause(children, "path", ()), columns, options, span=span)


def option(children: Children, span: Span) -> Option:
    value = children[-1]
    return Option(children[0], None if len(children) == 1 or isinstance(value, Token) else value, span=span)


CLAUSES: dict[str, Builder] = {
    "any_model": lambda c, span: AnyModel(nodes(c, SingleModel), span=span),
    "bound": bound,
    "cascade_model": lambda c, span: CascadeModel(nodes(c, SingleModel), span=span),
    "contract": lambda c, span: Contract(tuple(x for x in c if not isinstance(x, Token)), span=span),
    "into": into,
    "model_ref": model_ref,
    "objective": lambda c, span: Objective(c[0].type, c[1], span=span),
    "option": option,
    "option_list": setting_list,
    "options": make_part("options", lambda c: nodes(c, Option)),
    "partition_by": make_part("partition_by", lambda c: clause(c, "names")),
    "quantity": quantity,
    "row_model": row_model,
    "setting": lambda c, span: Setting(c[0], c[2], span=span),
    "setting_list": setting_list,
    "setting_name": setting_name,
    "setting_word": setting_word,
    "single_model": single_model,
    "unit": unit,
    "using": lambda c, span: Using(c[1], span=span),
    "word": word,
}
