"""USING large DRAFT small is refused where the small model's tokens are others, before anything is asked."""

from dataclasses import replace

import pytest

from dql.errors import UnsupportedError
from dql.models.tokenizer import Tokenizer
from tests.fake_session import FakeSession

QUERY = "SELECT AI_GENERATE('{i}') AS g FROM range(3) r(i) USING {model} DRAFT other"


@pytest.fixture
def named(session: FakeSession) -> FakeSession:
    session.query(f"CREATE MODEL main FROM '{session.model}'")
    return session


@pytest.mark.parametrize("statement", ["EXPLAIN ", ""])
@pytest.mark.parametrize("encoder", [False, True])
def test_a_draft_of_another_vocabulary_is_pointed_at(named: FakeSession, statement: str, encoder: bool) -> None:
    other = named.registry.resolve("other")
    vocabulary = other.tokenizer.vocabulary
    if encoder:
        other.__dict__["shape"] = replace(other.shape, causal=False)
    else:
        other.__dict__["tokenizer"] = Tokenizer(replace(vocabulary, pieces=vocabulary.pieces[::-1]))
    text = statement + QUERY.replace("{model}", "main")
    with pytest.raises(UnsupportedError, match="other cannot draft for main") as caught:
        named.query(text)
    assert caught.value.span is not None
    start, end = caught.value.span
    assert text[start:end] == "other" and named.asked == []
