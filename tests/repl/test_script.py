"""Scripts: statements, with dot commands on lines of their own between them."""

from dql.repl.script import Segment, segments


def test_dot_commands_stand_between_statements() -> None:
    text = ".mode csv\nSELECT 1;\nSELECT '\n.not a command';\n.timer on\n\nSELECT 2"
    assert list(segments(text)) == [
        Segment(".mode csv", True),
        Segment("\nSELECT 1;\nSELECT '\n.not a command';", False),
        Segment(".timer on", True),
        Segment("\n\n\n\n\n\nSELECT 2", False),
    ]


def test_a_number_that_begins_with_a_dot_is_no_command() -> None:
    assert list(segments("SELECT\n.5")) == [Segment("SELECT\n.5", False)]
    assert list(segments(".5")) == [Segment(".5", False)]


def test_nothing_is_nothing() -> None:
    assert list(segments(" \n\n-- a word\n/* or two */")) == []


def test_comments_are_no_statement_begun() -> None:
    assert list(segments("-- a job\n.mode csv\n/* and\n.not this\n*/ SELECT 1 -- so\n.mode json")) == [
        Segment(".mode csv", True),
        Segment("\n\n/* and\n.not this\n*/ SELECT 1 -- so\n.mode json", False),
    ]
