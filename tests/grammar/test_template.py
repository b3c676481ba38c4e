"""Templates: what is text, what is a hole, and where in the statement it stands."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dql.errors import ParseError
from dql.grammar import ast
from dql.grammar.parser import parse, parse_expression
from dql.grammar.template import parse_template, substitute
from dql.grammar.unparse import to_sql
from dql.grammar.walk import walk


def literal(text: str) -> ast.String:
    return next(node for statement in parse(text) for node in walk(statement) if isinstance(node, ast.String))


def shown(template: str) -> list[str]:
    return [part if isinstance(part, str) else f"<{to_sql(part)}>" for part in parse_template(ast.String(template))]


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("plain", ["plain"]),
        ("", []),
        ("{a}", ["<a>"]),
        ("Hi {t.name}, {b + 1}!", ["Hi ", "<t.name>", ", ", "<b + 1>", "!"]),
        ("{{a}} {b} }}", ["{a} ", "<b>", " }"]),
        ("{ {'k': {'x': 1}}.k }", ["<{'k': {'x': 1}}.k>"]),
        ("{a::DECIMAL(10, 2)}", ["<a::DECIMAL(10, 2)>"]),
        ("{'}' || \"}\"}", ["<'}' || \"}\">"]),
        ("{(SELECT max(x) FROM u WHERE u.a = t.a)}", ["<(SELECT max(x) FROM u WHERE u.a = t.a)>"]),
        ("{CASE WHEN a THEN 'x' END /* } */}", ["<CASE WHEN a THEN 'x' END>"]),
        ("{*} {t.*} {* EXCLUDE (a)}", ["<*>", " ", "<t.*>", " ", "<* EXCLUDE (a)>"]),
        ("{AI_GENERATE('of {x}')}", ["<AI_GENERATE('of {x}')>"]),
        ("{$name} {0}", ["<$name>", " ", "<0>"]),
        ("it's {a}'s", ["it's ", "<a>", "'s"]),
    ],
)
def test_text_and_holes(template: str, expected: list[str]) -> None:
    assert shown(template) == expected


@pytest.mark.parametrize(
    "text",
    [
        "GENERATE 'it''s {body} and {b || ''x''} end'",
        "GENERATE $$it's {body} and {b || 'x'} end$$",
        "GENERATE $tag$it's {body} and {b || 'x'} end$tag$",
        "GENERATE E'it\\'s\\n{body} and {b || \\'x\\'} end'",
        "GENERATE\n  'line\n  {body} and {b || ''x''}'",
    ],
)
def test_spans_of_holes_are_places_in_the_statement(text: str) -> None:
    holes = [part for part in parse_template(literal(text), text) if not isinstance(part, str)]
    assert text[slice(*holes[0].span)] == "body"
    assert text[slice(*holes[1].span)].startswith("b || ")
    last = next(node for node in walk(holes[1]) if isinstance(node, ast.String))
    assert "x" in text[slice(*last.span)]


@pytest.mark.parametrize(
    ("text", "blamed", "message"),
    [
        ("GENERATE 'it''s {a and b'", "{", "not closed"),
        ("GENERATE 'it''s {a +} b'", "}", "too early"),
        ("GENERATE 'x {} b'", "{}", "empty"),
        ("GENERATE 'x } b'", "}", "closes no hole"),
        ("GENERATE '{\"a\": 1}'", ":", "unexpected ':'"),
        ("GENERATE 'it''s {a bb c}'", "bb", "unexpected 'bb'"),
        ("GENERATE E'it\\'s {a bb c}'", "bb", "unexpected 'bb'"),
        ("GENERATE $$x {a bb}$$", "bb", "unexpected 'bb'"),
        ("GENERATE 'x {(SELECT AI_FILTER(1) FORM t)}'", "FORM", "unexpected 'FORM'"),
        ("GENERATE 'x {a, b}'", ",", "unexpected ','"),
        ("GENERATE 'x {''a}'", "{", "not closed"),
    ],
)
def test_errors_in_holes_stand_at_their_place(text: str, blamed: str, message: str) -> None:
    with pytest.raises(ParseError, match=message) as caught:
        parse_template(literal(text), text)
    assert caught.value.text == text and caught.value.hint is not None and "{{" in caught.value.hint
    span = caught.value.span
    assert span is not None and text[slice(*span)] == blamed


@settings(deadline=None)
@given(st.text(st.sampled_from("{}'ab \"$/*-"), max_size=12))
def test_any_text_is_a_template_or_a_parse_error(text: str) -> None:
    whole = to_sql(ast.String(text))
    try:
        parts = parse_template(literal(f"GENERATE {whole}"), f"GENERATE {whole}")
    except ParseError as error:
        assert error.span is not None and 9 <= error.span[0] < error.span[1] <= 9 + len(whole)
    else:
        assert all(parts)


@given(st.text(st.sampled_from("{}ab"), max_size=12))
def test_doubled_braces_are_text(text: str) -> None:
    assert shown(text.replace("{", "{{").replace("}", "}}")) == ([text] if text else [])


def test_substitution_reaches_holes_and_spares_bound_names() -> None:
    body = parse_expression(
        "AI_FILTER('{{x}} {x} {y}') AND x > 1 AND list_filter(l, lambda x: x > y) AND [x FOR x IN z] = X AND t.x"
    )
    value = ast.Paren(parse_expression("a || 'it''s'"))
    assert to_sql(substitute(body, {"x": value, "z": value})) == (
        "AI_FILTER('{{x}} {(a || ''it''''s'')} {y}') AND (a || 'it''s') > 1 AND list_filter(l, lambda x: x > y)"
        " AND [x FOR x IN (a || 'it''s')] = (a || 'it''s') AND t.x"
    )


def test_substitution_leaves_what_it_does_not_touch() -> None:
    body = parse_expression("AI_CLASSIFY('{a}', ['{', 'x']) = b")
    assert substitute(body, {"q": ast.Number("1")}) is body


def test_a_struct_in_a_hole_keeps_its_braces_apart() -> None:
    filled = substitute(parse_expression("AI_FILTER('{x}')"), {"x": parse_expression("{'a': 1}")})
    assert isinstance(filled, ast.Call) and filled.args[0] == ast.String("{ {'a': 1} }")
