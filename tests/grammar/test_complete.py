"""What can be typed next."""

import re

import pytest

from dql.errors import ParseError
from dql.grammar.complete import expected, keywords
from dql.grammar.parser import parse
from tests.grammar.test_roundtrip import fixture


@pytest.mark.parametrize(
    ("text", "words", "kinds"),
    [
        ("", {"SELECT", "GENERATE", "EXPLAIN", "CREATE"}, set()),
        ("SELECT 1; ", {"SELECT", "GENERATE"}, set()),
        ("SEL", {"SELECT"}, set()),
        ("SELECT ", {"CASE", "DISTINCT", "NOT"}, {"expression"}),
        ("SELECT a FR", {"FROM", "AS"}, {"name"}),
        ("SELECT a FROM ", {"LATERAL"}, {"table"}),
        ("SELECT a FROM t WHERE ", {"NOT", "EXISTS"}, {"expression"}),
        ("SELECT a FROM (SELECT b FROM u WH", {"WHERE"}, {"name"}),
        ("SELECT count(*) FILTER (", {"WHERE"}, {"expression"}),
        ("GENERATE 'x' USING ", {"ANY", "CASCADE"}, {"model"}),
        ("GENERATE 'x' WITH ", {"MINIMIZE", "MAXIMIZE"}, {"setting"}),
        ("CLASSIFY body ", {"IN"}, set()),
        ("SCORE body BETWEEN 1 ", {"AND"}, set()),
        ("EXTRACT body RETURNING ", set(), {"type"}),
        ("SELECT a::", set(), {"type"}),
        ("EXPLAIN (", {"CANDIDATES", "FORMAT", "REWRITES"}, set()),
        ("SHOW ", {"MODELS", "SETTINGS"}, set()),
        ("SET ", set(), {"setting"}),
        ("SELECT t.", set(), {"field"}),
        ("SELECT INTERVAL 1 ", {"DAY", "HOURS"}, set()),
        ("WITH a AS (SELECT 1) ", {"SELECT", "GENERATE"}, set()),
    ],
)
def test_words_and_kinds(text: str, words: set[str], kinds: set[str]) -> None:
    found = expected(text)
    assert words <= set(found.keywords) and kinds <= found.kinds
    assert re.fullmatch(r".*?(\w*)", text, re.DOTALL).group(1) in (found.prefix, "1")  # type: ignore[union-attr]


@pytest.mark.parametrize("text", ["SELECT 'abc", 'SELECT "ab', "SELECT 1 /* ab", "SELECT 1 -- ab", "GENERATE $$x "])
def test_nothing_inside_strings_and_comments(text: str) -> None:
    assert expected(text).keywords == () and not expected(text).kinds


def test_a_keyword_that_is_offered_never_ends_the_parse_at_itself() -> None:
    for before in ("SELECT a ", "SELECT a FROM t ", "SELECT AI_FILTER('x') FROM t WHERE a ", "GENERATE 'x' "):
        for word in expected(before).keywords:
            text = f"{before}{word}"
            try:
                parse(text)
            except ParseError as error:
                assert error.span is not None and error.span[0] >= len(text), text


def test_every_keyword_of_a_valid_statement_is_offered_before_it() -> None:
    for line in fixture("valid.sql")[:120:3]:
        for match in re.finditer(r"(?<![\w.'\"$])(FROM|WHERE|GROUP|ORDER|USING|INTO|RETURNING|LIMIT)(?= )", line):
            before = line[: match.start()]
            if before.strip() and before.count("'") % 2 == 0 and "$$" not in before:
                assert match.group() in {word.split()[0] for word in expected(before).keywords}, before


def test_keywords_for_highlighting() -> None:
    assert {"SELECT", "GENERATE", "USING", "CASCADE", "WITH"} <= keywords() and "NAME" in keywords()
