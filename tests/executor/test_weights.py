"""Tensors by role: names, shapes and layouts of both formats, and errors that name the tensor and the file."""

import json
from dataclasses import replace
from pathlib import Path

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from dql.errors import ConfigError, ExecutionError
from dql.executor.weights import open_weights, split_halves
from dql.models import open_model
from tests.models.tiny import TinySizes, tiny_model, vocabulary, weights

SIZES = TinySizes()


def open_file(path: Path):  # type: ignore[no-untyped-def]
    return open_weights(open_model(path, name="m", uri="m"))


def test_gguf_tensors_come_by_role(tmp_path: Path) -> None:
    written = weights(SIZES, len(vocabulary()[0]))
    read = open_file(tiny_model(tmp_path, SIZES))
    for role, name in (("o", "attn_output"), ("mlp_norm", "ffn_norm"), ("down", "ffn_down")):
        np.testing.assert_array_equal(read.get(role, 1), written[f"blk.1.{name}.weight"])
    np.testing.assert_array_equal(read.get("embedding"), written["token_embd.weight"])
    assert not read.has("head") and read.optional("q_bias", 0) is None


def test_adjacent_rotary_pairs_become_halves() -> None:
    """llama.cpp permutes each head's rows when it converts; reading undoes it."""
    original = torch.arange(2 * 8 * 3.0).view(16, 3)
    converted = original.view(2, 2, 4, 3).transpose(1, 2).reshape(16, 3)
    torch.testing.assert_close(split_halves(converted, head_dim=8, rotary_dim=8), original)
    half = original.view(2, 8, 3).clone()
    half[:, :4] = original.view(2, 8, 3)[:, :4].view(2, 2, 2, 3).transpose(1, 2).reshape(2, 4, 3)
    torch.testing.assert_close(split_halves(half.view(16, 3), head_dim=8, rotary_dim=4), original)


def test_a_tensor_of_the_wrong_shape_is_named(tmp_path: Path) -> None:
    model = open_model(tiny_model(tmp_path), name="m", uri="m")
    wider = replace(model, shape=replace(model.shape, intermediate_size=80))
    with pytest.raises(ConfigError, match=r"'blk.0.ffn_gate.weight' has shape \(64, 32\), expected \(80, 32\)"):
        open_weights(wider).get("gate", 0)
    deeper = replace(model, shape=replace(model.shape, num_layers=3))
    with pytest.raises(ConfigError, match=r"lacks the tensor 'blk.2.attn_q.weight'"):
        open_weights(deeper).get("q", 2)


def test_a_type_that_cannot_be_read_is_named_with_its_file(tmp_path: Path) -> None:
    path = tmp_path / "odd.gguf"
    writer = gguf.GGUFWriter(path, "llama")
    writer.add_block_count(1)
    writer.add_context_length(8)
    writer.add_embedding_length(256)
    writer.add_feed_forward_length(256)
    writer.add_head_count(4)
    writer.add_layer_norm_rms_eps(1e-5)
    kind = gguf.GGMLQuantizationType.IQ4_XS
    writer.add_tensor("token_embd.weight", np.zeros((4, 136), np.uint8), raw_shape=(4, 136), raw_dtype=kind)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    with pytest.raises(
        ExecutionError, match=r"odd\.gguf: tensor 'token_embd.weight': tensors of type IQ4_XS"
    ) as caught:
        open_file(path).get("embedding")
    assert "Q4_K" in (caught.value.hint or "")


def checkpoint(folder: Path, dtype: torch.dtype = torch.float32) -> dict[str, torch.Tensor]:
    """A one-layer Llama folder of two shards; returns what was written."""
    config = {
        "model_type": "llama",
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "hidden_size": 8,
        "num_hidden_layers": 1,
        "intermediate_size": 12,
        "vocab_size": 5,
        "max_position_embeddings": 16,
        "tie_word_embeddings": True,
    }
    (folder / "config.json").write_text(json.dumps(config))
    first = {"model.embed_tokens.weight": torch.randn(5, 8).to(dtype), "model.norm.weight": torch.ones(8, dtype=dtype)}
    second = {"model.layers.0.mlp.up_proj.weight": torch.randn(12, 8).to(dtype)}
    shards = {"a-1.safetensors": first, "a-2.safetensors": second}
    for name, tensors in shards.items():
        save_file(tensors, folder / name)
    index = {tensor: name for name, tensors in shards.items() for tensor in tensors}
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": index}))
    return first | second


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_shards_of_safetensors_are_one_checkpoint(tmp_path: Path, dtype: torch.dtype) -> None:
    written = checkpoint(tmp_path, dtype)
    read = open_file(tmp_path)
    for role, layer, name in (("embedding", None, "model.embed_tokens"), ("up", 0, "model.layers.0.mlp.up_proj")):
        torch.testing.assert_close(read.get(role, layer), written[f"{name}.weight"].float(), rtol=0, atol=0)
    with pytest.raises(ConfigError, match=r"lacks the tensor 'model.layers.0.mlp.gate_proj.weight'"):
        read.get("gate", 0)


def test_weights_that_are_no_floats_are_refused(tmp_path: Path) -> None:
    checkpoint(tmp_path)
    tensors = load_file(tmp_path / "a-2.safetensors")
    save_file({name: tensor.to(torch.int8) for name, tensor in tensors.items()}, tmp_path / "a-2.safetensors")
    with pytest.raises(ExecutionError, match=r"a-2\.safetensors: tensor .*up_proj.weight' is stored as torch.int8"):
        open_file(tmp_path).get("up", 0)


def test_a_folder_that_is_no_decoder_is_refused(tmp_path: Path) -> None:
    checkpoint(tmp_path)
    (tmp_path / "model.safetensors.index.json").unlink()
    save_file({"something": torch.ones(2)}, tmp_path / "model.safetensors")
    with pytest.raises(ConfigError, match=r"no tensor is named …embed_tokens\.weight"):
        open_file(tmp_path)
