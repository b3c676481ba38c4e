"""Precisions of weights and keys: answers near those of fp32, one engine each, refused where the machine lacks them."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from dql.config import Config
from dql.errors import UnsupportedError
from dql.executor.engine import Engine
from dql.executor.options import EngineOptions
from dql.executor.requests import Generate, Request, Score, Tokens
from dql.models import Model, open_model
from dql.planner import hardware
from dql.session import Session

LABELS = ((5, 2), (6, 7, 2), (9,))
OFFERED = hardware.cpu_precisions()
LOSSY = {
    "bf16": 0.05,
    "int8": 0.1,
}  # log-probabilities of the tiny model, whose logits are some ten times as wide as a real one's


def prompts(count: int) -> list[Tokens]:
    draw = np.random.default_rng(5)
    shared = draw.integers(3, 250, 40)
    return [np.concatenate((shared, draw.integers(3, 250, 3 + i))).astype(np.int32) for i in range(count)]


@pytest.fixture(scope="module")
def model(model_file: Path) -> Model:
    return open_model(model_file, name="tiny", uri="tiny")


def scores(model: Model, **precisions: str) -> np.ndarray:
    engine = Engine.load(model, EngineOptions(kv_bytes=1 << 20, **precisions))  # type: ignore[arg-type]
    found = {a.id: a.logprobs for a in engine.run(Request(i, p, Score(LABELS)) for i, p in enumerate(prompts(9)))}
    generated = list(engine.run(Request(i, p, Generate(4)) for i, p in enumerate(prompts(9))))
    assert all(answer.failure is None and len(answer.tokens) for answer in generated)
    return np.stack([found[i] for i in range(9)])


@pytest.mark.parametrize("weights", [p for p in LOSSY if p in OFFERED])
def test_scores_are_near_those_of_fp32(model: Model, weights: str) -> None:
    exact, near = scores(model), scores(model, weights=weights)
    off = np.abs(exact - near).mean() / np.abs(exact).mean()
    assert 0 < off < LOSSY[weights]


@pytest.mark.skipif("bf16" not in OFFERED, reason="torch's fused attention in bf16 is slow without the instructions")
def test_keys_in_bf16_take_half_the_memory(model: Model) -> None:
    exact, near = scores(model), scores(model, kv_cache="bf16")
    assert 0 < np.abs(exact - near).mean() / np.abs(exact).mean() < 0.02
    whole, half = (
        Engine.load(model, EngineOptions(kv_bytes=1 << 20, kv_cache=precision)).pool for precision in ("fp32", "bf16")
    )
    assert half.slots == 2 * whole.slots
    assert 2 * half.caches[0].k[0].nbytes == whole.caches[0].k[0].nbytes


def test_a_precision_that_the_processor_lacks_is_refused(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hardware, "_CPUINFO", Path("/nowhere"))
    for weights in ("bf16", "fp8", "int4"):
        with pytest.raises(UnsupportedError, match=f"quantization = {weights} does not run on this processor"):
            Engine.load(model, EngineOptions(weights=weights))
    with pytest.raises(UnsupportedError, match="kv_cache = fp8"):
        Engine.load(model, EngineOptions(kv_cache="fp8"))


@pytest.mark.skipif("bf16" not in OFFERED, reason="the processor has no bf16")
def test_a_pinned_precision_runs_and_is_shown(tmp_path: Path, model_file: Path) -> None:
    tables = {"t": pa.table({"body": [f"text number {i}" for i in range(8)]})}
    query = "GENERATE 'Say {body}' AS said FROM t"
    lossy = "WITH quantization = 'bf16', kv_cache = 'bf16', max_tokens = 3"
    with Session(config=Config(home=tmp_path, model=str(model_file))) as session:
        plan = session.query(f"EXPLAIN {query} {lossy}", tables=tables).arrow().column(0).to_pylist()
        assert any("bf16 (pinned) weights · bf16 (pinned) KV" in line for line in plan)
        assert len(session.query(f"{query} {lossy}")) == len(session.query(f"{query} WITH max_tokens = 3")) == 8
        engines = session.runtime._engines
        assert [key[1:] for key in engines] == [("cpu", "bf16", "bf16"), ("cpu", "fp32", "fp32")]
