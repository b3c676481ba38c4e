"""Caps, hostile nesting and mutated texts: a ParseError with its place, never anything else."""

import random

import pytest

from dql.errors import ParseError
from dql.grammar.driver import MAX_DEPTH
from dql.grammar.lexer import MAX_TOKENS
from dql.grammar.parser import parse
from dql.grammar.scanner import MAX_BRACKETS, MAX_CHARACTERS
from dql.grammar.unparse import to_sql
from dql.grammar.walk import transform
from tests.grammar.mutate import mutants

NESTED = {
    "brackets": ("(", "AI_FILTER('x')", ")"),
    "calls": ("f(", "AI_FILTER('x')", ")"),
    "cases": ("CASE WHEN a THEN ", "AI_FILTER('x')", " END"),
    "queries": ("(SELECT ", "AI_FILTER('x')", ")"),
    "lists": ("[", "AI_FILTER('x')", "]"),
    "windows": ("sum(1) OVER (ORDER BY ", "AI_FILTER('x')", ")"),
    "not": ("NOT ", "AI_FILTER('x')", ""),
    "minus": ("- ", "AI_FILTER('x')", ""),
    "casts": ("", "AI_FILTER('x')", "::INT"),
    "subscripts": ("", "AI_FILTER('x')", "[1]"),
    "types": ("", "AI_FILTER('x')::" + "STRUCT(a " * 60 + "INT" + ")" * 60, ""),
    "exists": ("a AND EXISTS (SELECT b OR ", "AI_FILTER('x')", ")"),
}


@pytest.mark.parametrize("shape", NESTED)
def test_nesting_up_to_the_cap_works_and_past_it_is_refused(shape: str) -> None:
    before, inner, after = NESTED[shape]
    deepest = None
    for depth in (1, 20, 45, 90, MAX_DEPTH - 10, MAX_DEPTH + 1, 900):
        try:
            (statement,) = parse("SELECT " + before * depth + inner + after * depth)
        except ParseError as error:
            assert "deeper" in error.message and error.span is not None
            break
        deepest = statement
    assert deepest is not None
    assert parse(to_sql(deepest)) == (deepest,)
    assert hash(deepest) == hash(transform(deepest, lambda node: node)) and repr(deepest)


HOSTILE = ["(" * 5_000, "SELECT AI_FILTER(" + "[" * (MAX_BRACKETS + 1), "SELECT " + "NOT " * 3_000 + "AI_FILTER('x')"]


@pytest.mark.parametrize("text", HOSTILE, ids=["brackets", "lists", "not"])
def test_hostile_nesting_is_refused(text: str) -> None:
    with pytest.raises(ParseError):
        parse(text)


def test_a_text_beyond_the_cap_is_refused_at_once() -> None:
    with pytest.raises(ParseError, match="1,000,001 characters"):
        parse("x" * (MAX_CHARACTERS + 1))


def test_a_million_characters_in_a_string_or_an_island_are_fine() -> None:
    big = "x" * (MAX_CHARACTERS - 100)
    assert parse(f"GENERATE '{big}'")
    assert parse(f"SELECT AI_FILTER('x') FROM (SELECT '{big}')")


@pytest.mark.slow
def test_structured_tokens_are_capped_and_islands_do_not_count() -> None:
    values = ", ".join(["1"] * (MAX_TOKENS // 2))
    with pytest.raises(ParseError, match="more than 50,000"):
        parse(f"SELECT AI_FILTER('x'), {values}")
    assert parse(f"SELECT AI_FILTER('x') FROM (SELECT {values})")


def test_mutated_texts_give_parse_errors_with_places() -> None:
    for text in mutants(random.Random(1), 1_000):
        try:
            parse(text)
        except ParseError as error:
            assert error.span is not None and error.text == text
            assert 0 <= error.span[0] <= len(text) and error.line and error.column
            assert str(error)
