"""The built-in embedding model equals the reference: sentence-transformers' maths over BertModel, same weights."""

import json
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from dql.executor.engine import Engine
from dql.executor.requests import Embed, Request
from tests.models.real import real_model

TEXTS = (
    "A refund was promised and never came.",
    "The money I was told I would get back has not arrived.",
    "Berlin is the capital of Germany.",
    "naïve café — ½ 中文 🙂",
    "x",
    "a long text " * 30,
)


@pytest.mark.model
def test_vectors_are_those_of_sentence_transformers() -> None:
    from transformers import BertConfig, BertModel

    model = real_model("minilm")
    config = BertConfig(**json.loads((model.path / "config.json").read_text()))
    oracle: Any = BertModel(config, add_pooling_layer=False)
    oracle.eval()
    state = {name.removeprefix("bert."): values for name, values in load_file(model.files[0]).items()}
    missing, _ = oracle.load_state_dict(state, strict=False)
    assert not missing
    ids, offsets = model.tokenizer.encode_data(TEXTS)
    frame = model.tokenizer.encode_control
    rows = [np.concatenate((frame("[CLS]"), part, frame("[SEP]"))) for part in np.split(ids, offsets[1:-1])]
    engine = Engine.load(model)
    found = {answer.id: answer.vector for answer in engine.run(Request(i, row, Embed()) for i, row in enumerate(rows))}
    vectors = []
    for i, row in enumerate(rows):
        with torch.no_grad():
            hidden = oracle(input_ids=torch.from_numpy(row.astype(np.int64))[None]).last_hidden_state[0]
        vectors.append(torch.nn.functional.normalize(hidden.mean(0), dim=0).numpy())
        assert found[i] is not None and float(vectors[-1] @ found[i]) >= 0.9999
    assert vectors[0] @ vectors[1] > vectors[0] @ vectors[2] + 0.3
