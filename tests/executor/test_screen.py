"""Greedy tokens by a first pass in bf16: the same as in fp32, whatever the weights; log-probabilities on request."""

from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from dql.config import Config
from dql.executor.engine import Engine
from dql.executor.models.head import Head
from dql.executor.models.screen import Screen, screen_of
from dql.executor.options import EngineOptions
from dql.executor.quantize import layout
from dql.executor.requests import Generate, Request
from dql.models import Model, open_model
from dql.planner.hardware import cpu_precisions
from dql.session import Session

CPU = torch.device("cpu")
pytestmark = pytest.mark.skipif("bf16" not in cpu_precisions(), reason="the first pass needs bf16 in the processor")


def refused(hidden: torch.Tensor) -> torch.Tensor:
    raise AssertionError(f"{len(hidden)} rows were left to fp32")


@given(
    seed=st.integers(0, 10_000),
    vocabulary=st.sampled_from([3, 250, 4096, 4097, 9000]),
    width=st.sampled_from([8, 64, 100]),
    spread=st.sampled_from([0.0, 1.0, 3.0]),
)
def test_the_tokens_are_those_of_fp32(seed: int, vocabulary: int, width: int, spread: float) -> None:
    """spread: of the logarithm of the tokens' norms."""
    draw = torch.Generator().manual_seed(seed)
    weight = torch.randn(vocabulary, width, generator=draw)
    weight *= torch.exp(spread * torch.randn(vocabulary, 1, generator=draw))
    hidden = torch.randn(5, width, generator=draw)
    exact = hidden.double() @ weight.double().T
    found = Screen(weight).tokens(hidden, lambda rows: Head(weight, None, layout("fp32", CPU)).best(rows)[0])
    least = exact.amax(1) - 1e-5 * hidden.norm(dim=1) * weight.norm(dim=1).max()
    assert (exact.gather(1, found[:, None])[:, 0] >= least).all()


def test_what_bf16_cannot_tell_apart_fp32_decides() -> None:
    weight = torch.zeros(9000, 16)
    weight[[7, 5000, 8999], 0] = torch.tensor([1.0, 1.0001, 1.00005])
    assert Screen(weight).tokens(torch.eye(16)[:1], refused).tolist() == [5000]


def test_of_equal_tokens_the_lowest_id_wins() -> None:
    weight = torch.zeros(9000, 16)
    weight[[8999, 300, 44, 4096 + 44], 0] = 1.0
    assert Screen(weight).tokens(torch.eye(16)[:1], refused).tolist() == [44]


def test_rows_with_too_many_candidates_are_left_to_fp32() -> None:
    weight, asked = torch.ones(9000, 16), []

    def exact(hidden: torch.Tensor) -> torch.Tensor:
        asked.append(hidden)
        return torch.full((len(hidden),), 3)

    hidden = torch.ones(2, 16)
    hidden[1] = torch.nan
    assert Screen(weight).tokens(hidden, exact).tolist() == [3, 3]
    assert len(asked) == 1 and len(asked[0]) == 2


def test_capped_and_narrow_heads_have_no_first_pass() -> None:
    assert screen_of(torch.ones(4, 4), 30.0) is None
    assert screen_of(torch.ones(4, 4, dtype=torch.bfloat16), None) is None


@pytest.fixture(scope="module")
def model(model_file: Path) -> Model:
    return open_model(model_file, name="tiny", uri="tiny")


def test_runs_without_log_probabilities_draw_the_same(model: Model) -> None:
    engine = Engine.load(model, EngineOptions(kv_bytes=1 << 20))
    prompts = np.random.default_rng(1).integers(3, 250, (12, 9)).astype(np.int32)
    with_them, without = (
        {a.id: a for a in engine.run((Request(i, p, Generate(8)) for i, p in enumerate(prompts)), logprobs=wanted)}
        for wanted in (True, False)
    )
    for number, answer in with_them.items():
        assert without[number].tokens.tolist() == answer.tokens.tolist()
        assert np.isfinite(answer.logprobs).all() and np.isnan(without[number].logprobs).all()


def test_details_ask_again_where_an_answer_has_no_confidence(model_file: Path, tmp_path: Path) -> None:
    query = """
        SELECT AI_GENERATE('Go on: {x}', max_tokens => 4, details => true).confidence AS sure
        FROM (VALUES ('a'), ('b')) t(x) WHERE AI_GENERATE('Go on: {x}', max_tokens => 4) <> 'never'
    """
    with Session(config=Config(home=tmp_path, model=str(model_file))) as session:
        sure = session.query(query).arrow().column("sure").to_pylist()
    assert len(sure) == 2 and all(0 < value <= 1 for value in sure)
