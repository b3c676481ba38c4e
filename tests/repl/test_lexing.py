"""Unfinished text as tokens, and when Enter runs a statement."""

from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dql.repl.lexing import is_complete, pieces


def kinds(text: str) -> list[tuple[str, str, bool]]:
    return [(piece.kind, piece.text, piece.closed) for piece in pieces(text)]


@pytest.mark.parametrize(
    ("text", "kind", "closed"),
    [
        ("'it''s'", "string", True),
        ("'it''", "string", False),
        ("'", "string", False),
        (r"e'a\'b'", "string", True),
        (r"e'a\'", "string", False),
        ('"two ""words"""', "quoted", True),
        ('"open', "quoted", False),
        ("$$a 'b' $$", "string", True),
        ("$tag$ a $$", "string", False),
        ("/* a /* b */ c */", "comment", True),
        ("/* a /* b */", "comment", False),
        ("-- to the end", "comment", False),
        ("$name", "param", True),
        ("1_000.5e-3", "number", True),
        ("größe", "word", True),
    ],
)
def test_one_piece(text: str, kind: str, closed: bool) -> None:
    assert kinds(text) == [(kind, text, closed)]


@settings(deadline=None)
@given(st.text(alphabet=st.sampled_from("ab1 '\"$-/*;\n.\\e{}é")))
def test_pieces_cover_all_but_white_space(text: str) -> None:
    seen = list(pieces(text))
    covered = "".join(piece.text for piece in seen)
    gaps = [text[a.end : b.start] for a, b in pairwise(seen)]
    assert all(not gap.strip() for gap in gaps)
    assert len(covered) + sum(map(len, gaps)) <= len(text)


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("SELECT 1;", True),
        ("SELECT 1; ", True),
        ("SELECT 1; -- done", True),
        ("SELECT 1; /* done */", True),
        ("SELECT 1; /* done", False),
        ("SELECT ';", False),
        ("SELECT 1", False),
        ("SELECT 1; SELECT 2", False),
        ("/* ; */", False),
        ("", False),
    ],
)
def test_a_statement_ends_with_a_semicolon(text: str, complete: bool) -> None:
    assert is_complete(text) is complete
