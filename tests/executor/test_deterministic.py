"""`deterministic = true`: a row's answer is the same to the bit whatever runs beside it, in which order and steps."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from dql.config import Config
from dql.executor.engine import Engine
from dql.executor.options import EngineOptions
from dql.executor.requests import Answer, Generate, Request, Sampling, Score, Task, Tokens
from dql.models import Model, open_model
from dql.session import Session
from tests.executor.checkpoints import VOCABULARY, checkpoint
from tests.models.real import real_model

LABELS = ((5, 2), (6, 7, 2), (6, 8, 2), (9,))
SAMPLED = Sampling(temperature=0.9, top_k=40, top_p=0.95, seed=5)
TASKS: Sequence[Task] = (Generate(5), Generate(7, sampling=SAMPLED), Score(LABELS))
Sizes = tuple[int, int, int]  # step_tokens, max_rows, window
SIZES = st.tuples(st.integers(9, 200), st.integers(1, 9), st.integers(1, 20))
ENGINE = settings(
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)


def requests(rows: int, vocabulary: int, tasks: Sequence[Task] = TASKS) -> list[Request]:
    """Rows that share 90 tokens, 70 in groups, or nothing, so that blocks of keys are cut every way by sharing."""
    draw = np.random.default_rng(7)
    shared = draw.integers(3, vocabulary, 90)
    groups = [np.concatenate((shared[:50], draw.integers(3, vocabulary, 20))) for _ in range(2)]
    heads = (shared, groups[0], groups[1], shared[:0], shared[:3])

    def tokens(row: int) -> Tokens:
        own = draw.integers(3, vocabulary, draw.choice([1, 5, 17, 60, 130]))
        return np.concatenate((heads[row % len(heads)], own), dtype=np.int32)

    return [Request(row, tokens(row), tasks[row % len(tasks)]) for row in range(rows)]


def answers(engine: Engine, asked: Sequence[Request], sizes: Sizes) -> dict[int, Answer]:
    """From an engine that keeps no prefix of earlier runs but what this one pulls window by window."""
    engine.pool.clear()
    engine.options = replace(engine.options, step_tokens=sizes[0], max_rows=sizes[1], window=sizes[2])
    running = engine.run(asked, deterministic=True)
    return {answer.id: answer for answer in running}


def assert_equal_bits(left: Answer, right: Answer) -> None:
    assert (left.tokens.tolist(), left.finish, left.failure) == (right.tokens.tolist(), right.finish, None)
    assert left.logprobs.tobytes() == right.logprobs.tobytes()


@pytest.fixture(scope="module")
def tiny(model_file: Path) -> Engine:
    return load(open_model(model_file, name="tiny", uri="tiny"))


def load(model: Model) -> Engine:
    return Engine.load(model, EngineOptions(kv_bytes=1 << 23))


@pytest.fixture(scope="module")
def expected(tiny: Engine) -> dict[int, Answer]:
    return answers(tiny, requests(24, 250), (1024, 256, 4096))


@settings(ENGINE, max_examples=8)
@given(SIZES, st.permutations(range(24)), st.integers(1, 24))
def test_batch_order_chunks_and_subsets_change_no_bit(
    tiny: Engine, expected: dict[int, Answer], sizes: Sizes, order: list[int], kept: int
) -> None:
    asked = requests(24, 250)
    for id, answer in answers(tiny, [asked[row] for row in order[:kept]], sizes).items():
        assert_equal_bits(answer, expected[id])
    assert tiny.free_slots == tiny.pool.slots


def test_prefixes_that_ordinary_runs_left_are_not_read(tiny: Engine) -> None:
    asked = [request for request in requests(60, 250) if request.id % 5 == 0]  # they share 90 tokens
    expected = answers(tiny, asked, (1024, 256, 4096))
    tiny.pool.clear()
    assert len(list(tiny.run(asked))) == len(asked) and tiny.pool.residents
    for answer in tiny.run(asked, deterministic=True):
        assert_equal_bits(answer, expected[answer.id])


@pytest.mark.slow
@pytest.mark.parametrize("family", ["gemma2", "gemma3", "qwen2, sliding"])
def test_sliding_windows_and_capped_scores_too(family: str, tmp_path: Path) -> None:
    engine = load(checkpoint(tmp_path, family).model)
    asked = requests(12, VOCABULARY)
    expected = answers(engine, asked, (1024, 256, 4096))
    for sizes in ((30, 2, 3), (70, 9, 12)):
        for id, answer in answers(engine, asked[::-1], sizes).items():
            assert_equal_bits(answer, expected[id])


@pytest.mark.slow
@pytest.mark.model
def test_the_real_model_too() -> None:
    engine = Engine.load(real_model("smollm2"), EngineOptions(kv_bytes=1 << 28))
    asked = requests(8, 40_000)
    expected = answers(engine, asked, (1024, 256, 4096))
    for id, answer in answers(engine, asked[:1:-1], (150, 2, 3)).items():
        assert_equal_bits(answer, expected[id])


def test_a_query_asks_for_it(model_file: Path, tmp_path: Path) -> None:
    query = """
        SELECT AI_GENERATE('Say more: {x}', max_tokens => 6, details => true).confidence AS sure, AI_SCORE('{x}!') AS s
        FROM (SELECT repeat('no ', i % 50) || i AS x FROM range(40) AS t(i)) WITH deterministic = true"""
    with Session(config=Config(home=tmp_path, model=str(model_file), threads=1)) as session:
        by_batch = [session.query(f"{query}, batch_size = {rows}").arrow() for rows in (1, 7, 256)]
    assert by_batch[0].equals(by_batch[1]) and by_batch[0].equals(by_batch[2])
