"""Sampled tokens have the model's distribution: rows without a seed draw afresh, rows with one by (seed, prompt)."""

from pathlib import Path

import numpy as np
import pytest

from dql.executor.engine import Engine
from dql.executor.options import EngineOptions
from dql.executor.requests import Answer, Generate, Request, Sampling, Score
from dql.executor.sampler import row_seed
from dql.models import open_model

ROWS = 4000
TEMPERATURE = 8.0
PROMPT = np.array([70, 80, 90, 75], np.int32)


@pytest.fixture(scope="module")
def engine(model_file: Path) -> Engine:
    return Engine.load(open_model(model_file, name="tiny", uri="tiny"), EngineOptions(kv_bytes=1 << 22))


def first_tokens(engine: Engine, sampling: Sampling, runs: int = 1) -> list[Answer]:
    asked = [Request(i, PROMPT, Generate(1, sampling=sampling)) for i in range(ROWS // runs)]
    return [answer for _ in range(runs) for answer in engine.run(asked)]


def test_rows_without_a_seed_draw_afresh_from_the_model_s_distribution(engine: Engine) -> None:
    """Chi-square of what equal rows draw against the model's probabilities of all tokens; the 99.99 % bound."""
    vocabulary = engine.model.shape.vocab_size
    everything = Score(tuple((token,) for token in range(vocabulary)))
    scores = next(engine.run([Request(0, PROMPT, everything)])).logprobs.astype(np.float64) / TEMPERATURE
    expected = ROWS * np.exp(scores) / np.exp(scores).sum()
    found = first_tokens(engine, Sampling(temperature=TEMPERATURE), runs=2)
    drawn = np.bincount([int(answer.tokens[0]) for answer in found], minlength=vocabulary)
    common = expected >= 5
    pairs = [(drawn[common], expected[common]), (drawn[~common].sum(), expected[~common].sum())]
    statistic = sum(float(np.sum((got - due) ** 2 / due)) for got, due in pairs)
    freedom = int(common.sum())
    assert freedom > 30
    assert statistic < freedom + 3.8 * np.sqrt(2 * freedom) + 9


def test_a_seed_makes_equal_rows_equal_and_different_prompts_independent(engine: Engine) -> None:
    seeded = Sampling(temperature=TEMPERATURE, seed=7)
    assert len({int(answer.tokens[0]) for answer in first_tokens(engine, seeded, runs=2)}) == 1
    streams = [row_seed(seeded, PROMPT + shift) for shift in range(512)]
    bits = (np.array(streams)[:, None] >> np.arange(63)) & 1
    assert len(set(streams)) == 512
    assert np.abs(bits.mean(axis=0) - 0.5).max() < 5 * 0.5 / np.sqrt(512)
    assert row_seed(seeded, PROMPT) == row_seed(Sampling(seed=7), PROMPT) != row_seed(Sampling(seed=8), PROMPT)
    assert row_seed(Sampling(), PROMPT) != row_seed(Sampling(), PROMPT)
