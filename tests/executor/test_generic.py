"""Families that transformers' modules run: what dql's attention cannot do is refused by name, before any row."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch

from dql.errors import ConfigError, DqlError, UnsupportedError
from dql.executor.engine import Engine
from dql.executor.options import EngineOptions
from dql.models import open_model
from tests.executor.checkpoints import checkpoint

TINY: Mapping[str, Any] = {
    "vocab_size": 64,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
}
EXPERTS = {"num_local_experts": 4, "num_experts_per_tok": 2}
REFUSED: Mapping[str, tuple[Mapping[str, Any], str]] = {
    "gpt_oss": ({**EXPERTS, "head_dim": 8}, "'gpt_oss' need attention sinks"),
    "doge": ({}, "'doge' need attention masks of their own"),
    "roberta": ({}, "'roberta' need attention to later tokens"),
    "bloom": ({}, "'bloom' cannot run with dql's attention"),
    "nemotron": ({}, "'nemotron' keep from their attention"),
    "llama4_text": ({"attention_chunk_size": 64}, r"'llama4_text' have layers of kinds that dql lacks: \['chunked_"),
    "lfm2": ({"layer_types": ["conv", "full_attention"]}, r"lacks: \['conv'\]"),
    "bart": ({"is_encoder_decoder": True}, "'bart' have an encoder and a decoder"),
    "olmo2": ({"quantization_config": {"quant_method": "gptq"}}, "'olmo2' is stored quantised"),
    "electra": ({"architectures": ["ElectraForMaskedLM"]}, "ElectraForMaskedLM is no decoder"),
    "never-heard-of": ({}, "'never-heard-of' are unknown to transformers 5"),
    "mystery": ({"text_config": {**TINY, "model_type": "olmo2"}}, "reads more than text around .* 'olmo2'"),
    "phimoe": ({"auto_map": {"AutoModel": "evil.Model"}}, "brings its own Python code"),
}


def load(folder: Path, family: str, changes: Mapping[str, Any]) -> Engine:
    path = folder / "config.json"
    path.write_text(json.dumps({**TINY, "model_type": family, **changes}))
    model = open_model(path, name=family, uri=family)
    return Engine.load(model, EngineOptions(kv_bytes=1 << 20, load_format="dummy"))


@pytest.mark.slow
@pytest.mark.parametrize("family", REFUSED)
def test_what_attention_cannot_do_is_refused_by_name(tmp_path: Path, family: str) -> None:
    changes, reason = REFUSED[family]
    with pytest.raises(UnsupportedError, match=reason):
        load(tmp_path, family, changes)


@pytest.mark.slow
def test_a_family_that_mixes_tokens_outside_attention_is_found_out(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from transformers.models.olmo2 import modeling_olmo2

    original: Any = modeling_olmo2.Olmo2MLP.forward
    monkeypatch.setattr(
        modeling_olmo2.Olmo2MLP, "forward", lambda self, x: original(self, x + torch.roll(x, 1, dims=1))
    )
    with pytest.raises(UnsupportedError, match=r"'olmo2' mix tokens in ways that .*logits differ"):
        load(tmp_path, "olmo2", {})


@pytest.mark.slow
def test_what_the_family_cannot_be_is_an_error_of_the_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"config\.json: transformers cannot build the model: .*no-such-function"):
        load(tmp_path, "olmo2", {"hidden_act": "no-such-function"})


@pytest.mark.slow
def test_rotary_scaling_by_length_keeps_to_the_trained_context(tmp_path: Path) -> None:
    factors = {"short_factor": [1.0] * 4, "long_factor": [2.0] * 4}
    scaling = {"rope_type": "longrope", **factors, "original_max_position_embeddings": 64, "rope_theta": 10_000.0}
    engine = load(tmp_path, "phi3", {"rope_parameters": scaling, "pad_token_id": 0})
    assert engine.model.shape.context_length == 64


@pytest.mark.slow
def test_a_checkpoint_that_lacks_a_tensor_is_named(tmp_path: Path) -> None:
    model = checkpoint(tmp_path, "olmo2").model
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "num_hidden_layers": 5}))
    with pytest.raises(DqlError, match=r"lacks the tensor 'model\.layers\.4\."):
        Engine.load(open_model(tmp_path, name="m", uri="m"), EngineOptions(kv_bytes=1 << 20))
    assert model.shape.generic
