"""Given tokens judged in one pass: what a request for each token would say, and what transformers' logits say."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dql.executor.engine import Engine
from dql.executor.options import EngineOptions
from dql.executor.requests import Answer, Follow, Generate, Request, Score, Task, Tokens
from dql.models import Model, open_model
from tests.executor.checkpoints import checkpoint

SHARED = np.arange(40, 80, dtype=np.int32)


@pytest.fixture(scope="module")
def model(model_file: Path) -> Model:
    return open_model(model_file, name="tiny", uri="tiny")


@pytest.fixture(scope="module")
def engine(model: Model) -> Engine:
    """Steps and windows so small that given tokens are cut between them."""
    return load(model, step_tokens=24, window=7)


def load(model: Model, *, step_tokens: int = 1024, window: int = 4096) -> Engine:
    return Engine.load(model, EngineOptions(kv_bytes=1 << 21, step_tokens=step_tokens, max_rows=5, window=window))


def text(seed: int, length: int, shared: int = 0) -> Tokens:
    own = np.random.default_rng(seed).integers(3, 250, length)
    return np.concatenate((SHARED[:shared], own)).astype(np.int32)


def answers(engine: Engine, requests: list[Request], *, deterministic: bool = False) -> dict[int, Answer]:
    return {answer.id: answer for answer in engine.run(requests, deterministic=deterministic)}


def one_by_one(engine: Engine, prompt: Tokens, tokens: tuple[int, ...]) -> tuple[list[int], list[float]]:
    """The same by a request for each token: its best continuation, and the given one's score among all."""
    vocabulary = tuple((token,) for token in range(engine.model.shape.vocab_size))
    texts = [np.concatenate((prompt, np.array(tokens[:place], np.int32))) for place in range(len(tokens))]
    best = answers(engine, [Request(place, each, Generate(1)) for place, each in enumerate(texts)])
    scores = answers(engine, [Request(place, each, Score(vocabulary)) for place, each in enumerate(texts)])
    places = range(len(tokens))
    return [int(best[p].tokens[0]) for p in places], [float(scores[p].logprobs[tokens[p]]) for p in places]


def assert_ranked(found: Answer, best: list[int], liked: list[float]) -> None:
    assert found.failure is None and len(found.tokens) == len(best)
    np.testing.assert_allclose(found.logprobs, liked, atol=1e-4)
    for place in np.flatnonzero(found.tokens != np.array(best)).tolist():
        assert found.distributions is not None, "a tie that rounding decides"
        row = found.distributions[place]
        assert abs(row[found.tokens[place]] - row[best[place]]) < 1e-5


prompts = st.builds(text, st.integers(0, 3), st.sampled_from([1, 3, 17, 60]), st.sampled_from([0, 3, 40]))
continuations = st.lists(st.integers(3, 250), min_size=1, max_size=40).map(tuple)


@settings(deadline=None, max_examples=15)
@given(st.lists(st.tuples(prompts, continuations), min_size=1, max_size=9))
def test_one_pass_says_what_a_request_for_each_token_says(
    engine: Engine, work: list[tuple[Tokens, tuple[int, ...]]]
) -> None:
    asked = [Request(i, prompt, Follow(tokens, whole=i % 3 == 0)) for i, (prompt, tokens) in enumerate(work)]
    found = answers(engine, asked)
    assert found.keys() == set(range(len(work)))
    for number, (_, tokens) in enumerate(work):
        whole = found[number].distributions
        assert (whole is not None) == (number % 3 == 0)
        if whole is not None:
            assert whole.shape == (len(tokens), engine.model.shape.vocab_size)
            np.testing.assert_allclose(np.exp(whole).sum(axis=1), 1, atol=1e-4)
            np.testing.assert_allclose(whole[np.arange(len(tokens)), tokens], found[number].logprobs, atol=1e-6)
    assert_ranked(found[0], *one_by_one(engine, *work[0]))
    assert engine.free_slots == engine.pool.slots - sum(r.block.length for r in engine.pool.residents)


def test_a_model_ranks_its_own_answer_first(engine: Engine) -> None:
    asked = [Request(i, text(i, 9, 40), Generate(20)) for i in range(6)]
    told = answers(engine, asked)
    given = [Request(r.id, r.tokens, Follow(tuple(told[r.id].tokens.tolist()))) for r in asked]
    for number, found in answers(engine, given).items():
        assert found.tokens.tolist() == told[number].tokens.tolist()
        np.testing.assert_allclose(found.logprobs, told[number].logprobs, atol=1e-4)


def test_a_row_is_read_once_and_equal_ones_together(model: Model) -> None:
    engine, prompt = load(model), text(0, 30)
    found = answers(engine, [Request(i, prompt, Follow((5, 6, 7))) for i in range(3)])
    assert engine.counters.prefilled == 32 and engine.counters.steps == 1 and engine.counters.duplicates == 2
    assert [(a.prompt_tokens, a.cached_tokens) for a in found.values()] == [(32, 0), (32, 32), (32, 32)]


def test_it_mixes_with_other_tasks_and_leaves_them_as_they_are(engine: Engine) -> None:
    tasks: list[Task] = [Generate(6), Score(((5, 2), (6, 7, 2), (9,))), Follow((5, 6, 7, 8)), Follow((9,), whole=True)]
    asked = [Request(i, text(i // 4, 12, 40), tasks[i % 4]) for i in range(24)]
    together = answers(engine, asked)
    for request in asked:
        alone = answers(engine, [request])[request.id]
        assert together[request.id].tokens.tolist() == alone.tokens.tolist()
        np.testing.assert_allclose(together[request.id].logprobs, alone.logprobs, atol=1e-4)


def test_deterministic_runs_are_the_same_to_the_bit(model: Model) -> None:
    asked = [Request(i, text(i % 3, 20, 40), Follow(tuple(range(5, 15 + i)), whole=i == 2)) for i in range(8)]
    wide, narrow = load(model), load(model, step_tokens=24, window=3)
    one = answers(wide, asked, deterministic=True)
    other = answers(narrow, asked[::-1], deterministic=True)
    for number, found in one.items():
        assert np.array_equal(found.tokens, other[number].tokens)
        assert np.array_equal(found.logprobs, other[number].logprobs)
    assert np.array_equal(one[2].distributions, other[2].distributions)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tokens", "kind"), [(tuple(range(3, 250)) * 3, "too_long"), ((70000,), "engine"), ((-1, 5), "engine")]
)
def test_what_cannot_follow_is_refused(engine: Engine, tokens: tuple[int, ...], kind: str) -> None:
    found = answers(engine, [Request(0, text(0, 3), Follow(tokens))])[0]
    assert found.failure is not None and found.failure.kind == kind


def test_nothing_given_is_nothing_judged(engine: Engine) -> None:
    found = answers(engine, [Request(0, text(0, 3), Follow(()))])[0]
    assert found.failure is None and not len(found.tokens)


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gemma2", "qwen3"])
def test_log_probabilities_are_those_of_transformers(family: str, tmp_path: Path) -> None:
    made = checkpoint(tmp_path, family)
    prompt, tokens = np.arange(5, 25, dtype=np.int32), (7, 9, 30, 31, 8)
    engine = Engine.load(made.model, EngineOptions(kv_bytes=1 << 21))
    found = answers(engine, [Request(0, prompt, Follow(tokens, whole=True))])[0]
    assert found.distributions is not None
    expected = made.log_probs(prompt, tokens).numpy()
    np.testing.assert_allclose(found.distributions, expected, atol=1e-4)
    np.testing.assert_allclose(found.logprobs, expected[np.arange(len(tokens)), tokens], atol=1e-4)
