"""Speculation changes no token: guesses are kept only where they are what the model draws, greedily or sampled."""

from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from dql.errors import UnsupportedError
from dql.executor import engine as engine_module
from dql.executor.block_pool import Block
from dql.executor.draft import DraftModel
from dql.executor.engine import Engine
from dql.executor.options import EngineOptions
from dql.executor.own_text import OwnText, continued
from dql.executor.requests import Answer, Generate, Request, Sampling, Task, Tokens
from dql.executor.slab import Lanes, Slab
from dql.executor.speculate import Matrix, Speculation
from dql.executor.step import Step
from dql.models import Model, open_model
from dql.models.drafts import check_draft
from dql.models.tokenizer import Tokenizer
from dql.planner.speculation import MOST, draft_width
from tests.models.tiny import TinySizes, tiny_model

PATTERN = np.random.default_rng(1).integers(3, 250, 9).astype(np.int32)


@pytest.fixture(scope="module")
def model(model_file: Path) -> Model:
    return open_model(model_file, name="tiny", uri="tiny")


@pytest.fixture(scope="module")
def plain(model: Model) -> Engine:
    return load(model, speculate=False)


@pytest.fixture(scope="module")
def guessing(model: Model) -> Engine:
    return load(model)


@pytest.fixture(scope="module")
def twin(model: Model) -> Engine:
    return load(model)


@pytest.fixture(scope="module")
def stranger(tmp_path_factory: pytest.TempPathFactory) -> Engine:
    """A model of other weights, which guesses badly."""
    path = tiny_model(tmp_path_factory.mktemp("stranger"), TinySizes(layers=1, seed=4))
    return load(open_model(path, name="stranger", uri="stranger"))


@pytest.fixture(scope="module")
def cheap() -> Iterator[None]:
    """Drafts are taken to cost nothing, so that models of one size may draft for each other."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine_module, "DraftModel", lambda draft, cost, slots: DraftModel(draft, 0.0, slots))
        yield


def load(model: Model, *, speculate: bool = True, max_rows: int = 8, step_tokens: int = 96) -> Engine:
    options = EngineOptions(kv_bytes=1 << 23, max_rows=max_rows, step_tokens=step_tokens, speculate=speculate)
    return Engine.load(model, options)


def prompt(seed: int, length: int) -> Tokens:
    """A text that repeats itself, with some noise of its own."""
    own = np.random.default_rng(seed).integers(3, 250, length)
    return np.concatenate((np.tile(PATTERN, 3), own, PATTERN[: 3 + seed % 4]), dtype=np.int32)


def answers(engine: Engine, asked: Sequence[Request], draft: Engine | None = None) -> dict[int, Answer]:
    return {answer.id: answer for answer in engine.run(asked, draft=draft)}


def assert_same(left: Answer, right: Answer) -> None:
    """The same answer, but for what follows a tie that rounding decides: two tokens as likely as each other."""
    apart = np.flatnonzero(left.tokens[: len(right.tokens)] != right.tokens[: len(left.tokens)])[:1]
    if len(apart) and abs(left.logprobs[apart[0]] - right.logprobs[apart[0]]) < 1e-5:
        return
    assert (left.tokens.tolist(), left.finish, left.failure) == (right.tokens.tolist(), right.finish, None)
    np.testing.assert_allclose(left.logprobs, right.logprobs, atol=1e-4)


tasks: st.SearchStrategy[Task] = st.one_of(
    st.integers(1, 40).map(Generate),
    st.builds(Generate, st.integers(1, 40), st.just(frozenset(range(0, 250, 17)))),
    st.builds(Generate, st.integers(1, 40), stop_texts=st.just(("a", "the"))),
    st.builds(Generate, st.integers(1, 40), sampling=st.builds(Sampling, st.just(0.7), seed=st.integers(0, 3))),
)


@settings(deadline=None, max_examples=12)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30), tasks), min_size=1, max_size=12))
def test_answers_are_those_of_a_run_without_guesses(
    plain: Engine, guessing: Engine, work: list[tuple[int, int, Task]]
) -> None:
    asked = [Request(i, prompt(seed, length), task) for i, (seed, length, task) in enumerate(work)]
    expected = answers(plain, asked)
    for id, answer in answers(guessing, asked).items():
        assert_same(answer, expected[id])
    assert guessing.free_slots == guessing.pool.slots


@pytest.mark.slow
@pytest.mark.usefixtures("cheap")
@settings(deadline=None, max_examples=20)
@given(st.lists(st.tuples(st.integers(0, 9), st.integers(0, 30), tasks), min_size=1, max_size=12), st.booleans())
def test_a_draft_model_changes_no_answer(
    plain: Engine, guessing: Engine, twin: Engine, stranger: Engine, work: list[tuple[int, int, Task]], good: bool
) -> None:
    asked = [Request(i, prompt(seed, length), task) for i, (seed, length, task) in enumerate(work)]
    expected = answers(plain, asked)
    draft = twin if good else stranger
    for id, answer in answers(guessing, asked, draft).items():
        assert_same(answer, expected[id])
    assert draft.free_slots == draft.pool.slots and guessing.free_slots == guessing.pool.slots


@pytest.mark.usefixtures("cheap")
@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=0.8, seed=3)])
def test_a_model_that_drafts_for_itself_is_always_right(model: Model, twin: Engine, sampling: Sampling) -> None:
    engine = load(model)
    asked = [Request(i, prompt(i, 10), Generate(40, sampling=sampling)) for i in range(2)]
    assert len(answers(engine, asked, twin)) == 2
    counters = engine.counters
    assert counters.accepted == counters.proposed > 50
    assert counters.steps < 20


def test_a_draft_is_opened_once(twin: Engine) -> None:
    assert twin.as_draft().backend is twin.as_draft().backend is twin.backend


@pytest.mark.usefixtures("cheap")
def test_a_draft_reads_texts_once_and_not_in_every_step(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows of several windows, which decode in slabs of their own, keep their lanes beside each other, and what these
    hold when more rows come or longer ones than any before."""
    engine, draft = Engine.load(model, EngineOptions(kv_bytes=1 << 23, window=3)), load(model)
    read: list[int] = []
    forward = draft.backend.forward

    def counted(step: Step, cancelled: Callable[[], bool]) -> torch.Tensor:
        read.append(len(step.ids))
        return forward(step, cancelled)

    monkeypatch.setattr(draft.backend, "forward", counted)
    asked = [Request(i, prompt(i, 20 + 9 * i), Generate(40)) for i in range(12)]
    assert len(answers(engine, asked, draft)) == len(asked)
    texts = sum(len(request.tokens) + 40 for request in asked)
    assert engine.counters.accepted == engine.counters.proposed > 100
    assert sum(read) <= texts


@pytest.mark.usefixtures("cheap")
def test_a_draft_takes_no_more_memory_than_it_may(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = [Request(i, prompt(i, 20), Generate(40)) for i in range(8)]
    enough = len(asked) * int(draft_width(max(len(request.tokens) for request in asked) + 40))
    draft = load(model)
    allocated: list[int] = []
    allocate = draft.pool.allocate

    def counted(length: int) -> Block | None:
        allocated.append(length)
        return allocate(length)

    monkeypatch.setattr(draft.pool, "allocate", counted)
    for slots, guesses in ((enough, True), (100, False)):
        engine = load(model)
        assert len(list(engine.run(asked, draft=draft, draft_slots=slots))) == len(asked)
        assert (engine.counters.proposed > 0) == guesses
    assert allocated == [enough]


def test_a_draft_has_the_same_vocabulary(model: Model) -> None:
    check_draft(model, model)
    vocabulary = model.tokenizer.vocabulary
    padded, other = (replace(model, name=name) for name in ("padded", "other"))
    padded.__dict__["tokenizer"] = Tokenizer(replace(vocabulary, pieces=[*vocabulary.pieces, "", ""]))
    other.__dict__["tokenizer"] = Tokenizer(replace(vocabulary, pieces=vocabulary.pieces[::-1]))
    check_draft(model, padded)
    with pytest.raises(UnsupportedError, match="other cannot draft for tiny"):
        check_draft(model, other)


class Always:
    """Guesses one token, always."""

    cost = 0.0

    def __init__(self, token: int) -> None:
        self._token = token

    def propose(self, slab: Slab, lanes: Lanes, most: int) -> Matrix:
        return np.full((len(lanes), most), self._token, np.int64)

    def close(self) -> None: ...


class Oracle:
    """Guesses the true answers of rows, every `wrong`-th guess changed; knows rows by their first token."""

    cost = 0.0

    def __init__(self, truth: Mapping[int, Tokens], wrong: int) -> None:
        self._truth, self._wrong = truth, wrong

    def propose(self, slab: Slab, lanes: Lanes, most: int) -> Matrix:
        found = np.full((len(lanes), most), -1, np.int64)
        for row, lane in enumerate(lanes.tolist()):
            owner = slab.rows[lane]
            assert owner is not None
            rest = self._truth[int(owner.tokens[0])][slab.produced[lane] :][:most]
            found[row, : len(rest)] = rest
        found[:, self._wrong - 1 :: self._wrong] += 1
        return found

    def close(self) -> None: ...


@pytest.mark.parametrize(("wrong", "steps"), [(MOST + 1, 6), (3, 17), (1, 42)])
def test_right_guesses_save_steps_and_wrong_ones_change_nothing(
    model: Model, plain: Engine, monkeypatch: pytest.MonkeyPatch, wrong: int, steps: int
) -> None:
    asked = [Request(i, np.array([i, 7, 9], np.int32), Generate(40)) for i in range(3, 6)]
    expected = answers(plain, asked)
    truth = {i: expected[i].tokens for i in range(3, 6)}
    monkeypatch.setattr(engine_module, "FREE", {"cpu": 16})
    monkeypatch.setattr(engine_module, "OwnText", lambda: Oracle(truth, wrong))
    engine = load(model)
    for id, answer in answers(engine, asked).items():
        assert_same(answer, expected[id])
    assert engine.counters.decoded == 120
    assert engine.counters.steps <= steps
    assert (engine.counters.accepted > 60) == (wrong > 1)
    assert engine.counters.accepted <= engine.counters.proposed


def test_a_text_that_repeats_itself_is_guessed(guessing: Engine) -> None:
    before = guessing.counters.proposed, guessing.counters.accepted
    answers(guessing, [Request(0, prompt(0, 0), Generate(60))])
    assert guessing.counters.proposed > before[0]
    assert guessing.counters.accepted > before[1]


@pytest.mark.slow
def test_sampled_tokens_have_the_model_s_distribution(
    model: Model, plain: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chi-square of answers drawn with a proposer that is often right and with none; about the 99.9 % bound."""
    task = Generate(3, sampling=Sampling(temperature=0.6, top_k=4))
    text = prompt(3, 4)
    asked = [Request(i, text, task) for i in range(3000)]
    usual = int(answers(plain, [Request(0, text, Generate(2))])[0].tokens[1])
    monkeypatch.setattr(engine_module, "FREE", {"cpu": 10**6})  # however many rows decode
    monkeypatch.setattr(engine_module, "OwnText", lambda: Always(usual))
    engine = load(model, max_rows=256, step_tokens=4096)
    counts = [Counter(tuple(a.tokens.tolist()) for a in answers(e, asked).values()) for e in (plain, engine)]
    assert engine.counters.proposed > 2000 and 0 < engine.counters.accepted < engine.counters.proposed
    cells = [(counts[0][key], counts[1][key]) for key in {**counts[0], **counts[1]}]
    common = np.array([cell for cell in cells if sum(cell) >= 20], np.float64)
    statistic = ((common[:, 0] - common[:, 1]) ** 2 / common.sum(axis=1)).sum()
    freedom = len(common)
    assert statistic < freedom + 3.1 * np.sqrt(2 * freedom) + 6


@pytest.mark.parametrize("rows", [1, 2, 8, 64])
def test_guesses_go_as_far_as_they_pay(rows: int) -> None:
    speculation = Speculation(OwnText(), 16)
    first = speculation.depth(rows)
    for _ in range(50):
        speculation.note(8, 8)
    assert speculation.depth(rows) >= first
    assert speculation.depth(rows) == MOST or rows > 16
    for _ in range(100):
        speculation.note(8, 0)
    assert speculation.depth(rows) == 0
    for _ in range(300):
        speculation.settle(tried=False, guessed=False)
    assert speculation.depth(rows) == first  # what was measured long ago is forgotten


def test_a_device_that_runs_ahead_is_rarely_held_up_in_vain() -> None:
    speculation = Speculation(OwnText(), 128, longest_wait=16)
    tries = 0
    for _ in range(200):
        tried = speculation.depth(1) > 0
        tries += tried
        speculation.settle(tried=tried, guessed=False)
    assert 10 <= tries <= 20


texts = st.lists(st.lists(st.integers(0, 3), min_size=1, max_size=12), min_size=1, max_size=6)


@settings(deadline=None, max_examples=100)
@given(texts, st.integers(1, 5))
def test_continuations_are_those_of_the_plain_search(found: list[list[int]], most: int) -> None:
    width = max(map(len, found)) + 2
    table = np.full((len(found), width), 1, np.int32)
    for row, text in enumerate(found):
        table[row, : len(text)] = text
    guesses = continued(table, np.array([len(text) for text in found]), most)
    for text, guess in zip(found, guesses.tolist(), strict=True):
        assert guess == plain_continuation(text, most)


def plain_continuation(text: list[int], most: int) -> list[int]:
    for length in (3, 2):
        for end in range(len(text) - 1, length - 1, -1):
            if len(text) > length and text[end - length : end] == text[-length:]:
                return [text[end + j % (len(text) - end)] for j in range(most)]
    return [-1] * most
