"""What is offered at the cursor: by clause, never inside plain strings and comments."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dql.grammar import complete as grammar
from dql.repl.command_completion import complete_command
from dql.repl.completion import Named, Names, complete

TICKETS = [Named("id", "BIGINT"), Named("body", "VARCHAR"), Named("Due Date", "DATE")]
NAMES = Names(
    tables={"tickets": TICKETS, "orders": [Named("order_id", "BIGINT"), Named("total", "DOUBLE")]},
    models=[Named("smollm2", "small"), Named("gemma3-270m", "base")],
    functions=[Named("AI_CLASSIFY(", "AI_CLASSIFY(text, labels)"), Named("AI.IF(", ""), Named("count(", "count(x)")],
    settings=[Named("max_tokens", "tokens"), Named("latency", "ms s")],
    file_columns=lambda path: [Named("doc", "VARCHAR")] if path == "docs.parquet" else (),
    paths=lambda prefix: [Named(p) for p in ("data/", "docs.parquet") if p.startswith(prefix)],
)


def offered(marked: str) -> list[str]:
    """Candidates at the `|` in the text."""
    before, _, after = marked.partition("|")
    return [candidate.text for candidate in complete(before, after, NAMES, grammar)]


@pytest.mark.parametrize(
    ("marked", "first"),
    [
        ("SELECT * FROM |", ["tickets", "orders"]),
        ("SELECT * FROM tickets, ord|", ["orders"]),
        ("SELECT | FROM tickets", ["id", "body", '"Due Date"']),
        ("FROM 'docs.parquet' SELECT |", ["doc"]),
        ("SELECT b| FROM tickets", ["body"]),
        ("SELECT t.| FROM tickets AS t", ["id", "body", '"Due Date"']),
        ("SELECT o.to| FROM tickets t JOIN orders o", ["total"]),
        ("SELECT tickets.| FROM tickets", ["id", "body", '"Due Date"']),
        ("SELECT AI_C|", ["AI_CLASSIFY("]),
        ("SELECT AI.|", ["IF("]),
        ("SELECT count(ord| FROM orders", ["order_id"]),
        ("SELECT id FROM tickets WHERE bo|", ["body"]),
        ("SELECT id FROM tickets USING |", ["smollm2", '"gemma3-270m"']),
        ("SELECT id FROM tickets USING ANY (smollm2, |", ["smollm2", '"gemma3-270m"']),
        ("SELECT 1 FROM tickets JOIN orders USING (|", ["id", "body", '"Due Date"', "order_id", "total"]),
        ("SELECT id FROM tickets WITH max|", ["max_tokens"]),
        ("SELECT id FROM tickets WITH latency < 1s, |", ["max_tokens", "latency"]),
        ("SET max|", ["max_tokens"]),
        ("DESCRIBE MODEL sm|", ["smollm2"]),
        ("SELECT * FROM 'do|'", ["docs.parquet"]),
        ("SELECT 1 INTO '|", ["data/", "docs.parquet"]),
        ("GENERATE 'Sum up {bo|}' FROM tickets", ["body"]),
        ("GENERATE 'Sum up {upper(bo|)}' FROM tickets", ["body"]),
        ('SELECT "Du| FROM tickets', ['"Due Date"']),
        ("sel|", ["select"]),
        ("SELECT 1; SELECT * FROM ti|", ["tickets"]),
    ],
)
def test_names_that_fit_the_clause_come_first(marked: str, first: list[str]) -> None:
    assert offered(marked)[: len(first)] == first


@pytest.mark.parametrize(
    "marked",
    [
        "SELECT 'fro| ",
        "SELECT 1 -- fro|",
        "SELECT /* fro|",
        "SELECT $$ fro|",
        "GENERATE 'a {{bo|}}' FROM tickets",
        "GENERATE 'a {body} bo|' FROM tickets",
        "SELECT 'it''s fro|",
    ],
)
def test_nothing_inside_strings_and_comments(marked: str) -> None:
    assert offered(marked) == []


@pytest.mark.parametrize("marked", ["SELECT id |", "SELECT id FROM tickets |", "SELECT count(*) |", "CLASSIFY body |"])
def test_only_keywords_after_an_operand(marked: str) -> None:
    assert set(offered(marked)) <= grammar.keywords() | {"USING SAMPLE"}


def test_keywords_follow_the_case_of_the_user() -> None:
    assert offered("select id from tickets wh|") == ["where"]
    assert offered("SELECT id FROM tickets wh|") == ["where"], "the word itself is typed so"
    assert "where" in offered("select id from tickets |") and "WHERE" in offered("SELECT id FROM tickets |")


def test_what_the_grammar_leaves_to_duckdb_still_completes() -> None:
    assert offered("INSERT INTO ti|")[0] == "tickets"
    assert offered("ATTACH 'x' A|")


def test_a_candidate_replaces_what_was_typed() -> None:
    (candidate, *_) = complete("SELECT * FROM tick", "", NAMES, grammar)
    assert (candidate.text, candidate.replaces, candidate.detail) == ("tickets", 4, "3 columns")


@settings(deadline=None)
@given(st.text(alphabet=st.sampled_from("aS '\"$-/*;\n.{}(),|e"), max_size=40))
def test_no_text_breaks_completion(text: str) -> None:
    before, _, after = text.partition("|")
    for candidate in complete(before, after, NAMES, grammar):
        assert 0 <= candidate.replaces <= len(before)


@pytest.mark.parametrize(
    ("line", "first"),
    [
        (".mo", ["mode", "models"]),
        (".mode js", ["json", "jsonl"]),
        (".schema ti", ["tickets"]),
        (".read do", ["docs.parquet"]),
        (".once 'do", ["docs.parquet"]),
        (".timer o", ["on", "off"]),
        (".help pa", ["pager"]),
        (".nothing x", []),
        (".exit 1", []),
    ],
)
def test_dot_commands_complete_from_their_table(line: str, first: list[str]) -> None:
    assert [candidate.text for candidate in complete_command(line, NAMES)] == first
