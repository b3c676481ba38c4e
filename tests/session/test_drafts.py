"""USING large DRAFT small: refused where the small model's tokens are others, and off where it has no memory."""

import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from dql.config import Config
from dql.errors import UnsupportedError
from dql.executor import engine as engine_module
from dql.executor.draft import DraftModel
from dql.models.tokenizer import Tokenizer
from dql.session import Session
from tests.fake_session import FakeSession
from tests.models.tiny import TinySizes, tiny_model

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


ASKED = (
    "SELECT AI_GENERATE('tell {i}') AS g FROM range(12) r(i) USING main DRAFT other WITH max_tokens = 12, memory <= "
)
TIGHT, ROOMY = "100 MiB", "200 MiB"


def test_explain_says_that_a_draft_does_not_fit_and_why(named: FakeSession) -> None:
    tight, roomy = (str(named.query(f"EXPLAIN {ASKED}{bound}")) for bound in (TIGHT, ROOMY))
    why = r"no speculation from draft other · with it the plan takes [\d.]+ MiB, and the bound is memory <= 100 MiB"
    assert re.search(why, tight) is not None
    assert "speculation from draft other · a guess pays where it is right in" in roomy


@pytest.fixture
def loaded(tmp_path: Path, model_file: Path) -> Iterator[Session]:
    """A session of real engines."""
    small = tiny_model(tmp_path, TinySizes(layers=1))
    with Session(config=Config(home=tmp_path / "home", model=str(model_file), threads=1)) as session:
        session.query(f"CREATE MODEL main FROM '{model_file}'")
        session.query(f"CREATE MODEL other FROM '{small}'")
        yield session


def test_a_run_under_a_tight_bound_leaves_the_draft_unloaded(loaded: Session, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_module, "DraftModel", lambda draft, cost, slots: DraftModel(draft, 0.0, slots))
    tight = loaded.query(ASKED + TIGHT)
    assert len(tight) == 12
    assert {name for name, *_ in loaded.runtime._engines} == {"main"}
    roomy = loaded.query(ASKED + ROOMY)
    assert roomy.arrow() == tight.arrow()
    assert {name for name, *_ in loaded.runtime._engines} == {"main", "other"}
    assert roomy.stats().tokens_proposed > 0
