"""Encoders: vectors equal those of transformers' BERT with mean pooling, whatever the batch."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import BertConfig, BertModel

from dql.executor.engine import Engine
from dql.executor.options import EngineOptions
from dql.executor.requests import Embed, Generate, Request, Tokens
from dql.models import open_model

VOCABULARY = 90


def texts(count: int) -> list[Tokens]:
    draw = np.random.default_rng(5)
    return [draw.integers(0, VOCABULARY, length).astype(np.int32) for length in draw.integers(1, 40, count)]


@pytest.mark.slow
def test_vectors_equal_those_of_transformers(tmp_path: Path) -> None:
    config = BertConfig(
        vocab_size=VOCABULARY,
        hidden_size=32,
        num_hidden_layers=3,
        num_attention_heads=4,
        intermediate_size=64,
        max_position_embeddings=64,
    )
    torch.manual_seed(1)
    oracle: Any = BertModel(config, add_pooling_layer=False)
    for parameter in oracle.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    oracle.eval().save_pretrained(tmp_path)
    engine = Engine.load(open_model(tmp_path, name="bert", uri="bert"), EngineOptions(step_tokens=70, window=8))

    rows = texts(20)
    requests = [Request(i, rows[i % 20], Embed()) for i in range(24)]
    requests += [Request(24, rows[0], Generate(3)), Request(25, np.zeros(65, np.int32), Embed())]
    found = {answer.id: answer for answer in engine.run(requests)}
    for i in range(24):
        with torch.no_grad():
            hidden = oracle(input_ids=torch.from_numpy(rows[i % 20].astype(np.int64))[None]).last_hidden_state[0]
        expected = torch.nn.functional.normalize(hidden.mean(0), dim=0)
        vector = found[i].vector
        assert vector is not None
        np.testing.assert_allclose(vector, expected, atol=1e-5)
    assert [answer.failure.kind for id in (24, 25) if (answer := found[id]).failure] == ["engine", "too_long"]
    assert engine.counters.failed == 2 and engine.counters.rows == 26
