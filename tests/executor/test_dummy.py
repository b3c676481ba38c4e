"""Random weights in place of a checkpoint: every family's shape loads and runs, from a header or a config alone."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from dql.errors import ConfigError
from dql.executor.engine import Engine
from dql.executor.options import EngineOptions
from dql.executor.requests import Embed, Generate, Request, Score
from dql.executor.weights import dummy_weights, open_weights
from dql.models import open_model
from dql.models.shape import ModelShape

SIZES: dict[str, Any] = {
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 16,
    "intermediate_size": 96,
    "vocab_size": 300,
    "max_position_embeddings": 128,
}


@pytest.mark.parametrize("family", ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3_text", "smollm3"])
def test_a_config_alone_runs_with_random_weights(tmp_path: Path, family: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**SIZES, "model_type": family, "attention_bias": family == "llama"}))
    model = open_model(path, name="shape", uri=str(path))
    assert len(model.digest) == 64 and model.weight_bytes == 0
    with pytest.raises(ConfigError, match=r"config\.json: it describes a model whose weights are not at hand"):
        Engine.load(model, EngineOptions(kv_bytes=1 << 20))
    engine = Engine.load(model, EngineOptions(kv_bytes=1 << 20, load_format="dummy"))
    prompts = np.random.default_rng(0).integers(0, 300, (4, 20)).astype(np.int32)
    work = [Request(i, prompt, task) for i, prompt in enumerate(prompts) for task in (Generate(5), Score(((1,), (2,))))]
    found = list(engine.run(work))
    assert all(answer.failure is None and np.isfinite(answer.logprobs).all() for answer in found)
    assert len({answer.tokens.tobytes() for answer in found if len(answer.tokens)}) == len(prompts)


def test_an_encoder_runs_with_random_weights(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({**SIZES, "model_type": "bert", "num_key_value_heads": 4}))
    model = open_model(tmp_path / "config.json", name="shape", uri="shape")
    engine = Engine.load(model, EngineOptions(load_format="dummy"))
    [answer] = engine.run([Request(0, np.arange(9, dtype=np.int32), Embed())])
    assert answer.vector is not None and np.isclose(np.linalg.norm(answer.vector), 1)


def test_random_weights_are_the_same_everywhere_and_keep_activations_in_size() -> None:
    shape = ModelShape.from_hf_config({**SIZES, "model_type": "gemma3_text"})
    weights = dummy_weights(shape)
    gate = weights.get("gate", 1)
    torch.testing.assert_close(gate, dummy_weights(shape).get("gate", 1), atol=0, rtol=0)
    assert 0.9 < float(gate.std()) * 64**0.5 < 1.1 and not torch.equal(gate, weights.get("up", 1))
    assert abs(float(weights.get("attention_norm", 0).mean())) < 0.02, "Gemma adds one to norm weights"
    assert not weights.has("head") and not weights.has("q_bias", 0) and weights.has("q_norm", 0)


def test_a_model_at_hand_is_not_read_either(model_file: Path) -> None:
    model = open_model(model_file, name="tiny", uri="tiny")
    real, random = open_weights(model).get("q", 0), open_weights(model, "dummy").get("q", 0)
    assert real.shape == random.shape and not torch.equal(real, random)
    with pytest.raises(ConfigError, match="load_format is 'random'"):
        EngineOptions(load_format="random")  # type: ignore[arg-type]
