"""Folders of safetensors and the files beside them: what is honest opens, what lies or reaches out is refused."""

import json
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file

from dql.errors import ConfigError, UnsupportedError
from dql.models import open_model
from dql.models.checkpoint import check_safetensors, weight_files
from tests.models.vocabularies import json_tokenizers

CONFIG: dict[str, Any] = {
    "model_type": "llama",
    "num_hidden_layers": 1,
    "hidden_size": 8,
    "num_attention_heads": 2,
    "intermediate_size": 16,
    "vocab_size": 300,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
}


def checkpoint(folder: Path, *, shards: int = 1) -> Path:
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(CONFIG))
    (folder / "tokenizer.json").write_text(json.dumps(json_tokenizers()["byte-level"]))
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"eos_token": "</s>", "chat_template": "{{ messages[0]['content'] }}</s>"})
    )
    names = [f"model-{n}.safetensors" for n in range(shards)] if shards > 1 else ["model.safetensors"]
    for n, name in enumerate(names):
        save_file({f"t{n}": np.ones((2, 3), np.float32)}, folder / name)
    if shards > 1:
        index = {"weight_map": {f"t{n}": name for n, name in enumerate(names)}}
        (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    return folder


@pytest.mark.parametrize("shards", [1, 3])
def test_an_honest_folder_opens(tmp_path: Path, shards: int) -> None:
    model = open_model(checkpoint(tmp_path / "m", shards=shards), name="m", uri="./m")
    assert (model.format, len(model.files), model.shape.head_dim) == ("safetensors", shards, 4)
    assert not model.is_base and not model.is_encoder
    pieces = model.tokenizer.vocabulary.pieces
    assert {pieces[id] for id in model.tokenizer.eos_ids} == {"</s>", "<|im_end|>", "<end_of_turn>"}
    first = model.digest
    assert first == model.digest and len(first) == 64
    assert open_model(model.path, name="m", uri="./m").digest == first, "the note beside the file is trusted"
    save_file({"t0": np.zeros((2, 3), np.float32)}, model.files[0])
    assert open_model(model.path, name="m", uri="./m").digest != first


def test_context_length_and_template_can_be_replaced(tmp_path: Path) -> None:
    folder = checkpoint(tmp_path / "m")
    model = open_model(folder, name="m", uri="m", context_length=32, template="{{ messages[0].content }}!")
    assert model.shape.context_length == 32
    assert model.chat_template is not None and model.chat_template.parts(["user"]) == [0, "!"]
    with pytest.raises(ConfigError, match="between 1 and the trained 64"):
        open_model(folder, name="m", uri="m", context_length=65)


def set_index(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {"t": name}}))

    return change


def link_out(folder: Path) -> None:
    outside = folder.parent / "outside.safetensors"
    (folder / "model.safetensors").rename(outside)
    (folder / "model.safetensors").symlink_to(outside)


def only_pickle(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")


def own_code(folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps({**CONFIG, "auto_map": {"AutoModel": "modeling.Evil"}}))


def bad_json(folder: Path) -> None:
    (folder / "config.json").write_text("[" * 100_000)


HOSTILE: dict[str, tuple[Callable[[Path], object], str]] = {
    "parent path": (set_index("../../x.safetensors"), "not the name of a safetensors file"),
    "absolute path": (set_index("/etc/passwd"), "not the name of a safetensors file"),
    "other suffix": (set_index("weights.bin"), "not the name of a safetensors file"),
    "missing shard": (set_index("gone.safetensors"), "missing"),
    "link out": (link_out, "outside the model's folder"),
    "pickle": (only_pickle, "pickle"),
    "own code": (own_code, "Python code"),
    "deep json": (bad_json, "config.json"),
    "no weights": (lambda folder: (folder / "model.safetensors").unlink(), "no model.safetensors"),
    "no config": (lambda folder: (folder / "config.json").unlink(), "config.json"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_folder_is_refused(tmp_path: Path, name: str) -> None:
    change, reason = HOSTILE[name]
    folder = checkpoint(tmp_path / "m")
    change(folder)
    with pytest.raises((ConfigError, UnsupportedError), match=reason):
        open_model(folder, name="m", uri="./m")


def test_a_folder_without_a_tokenizer_says_so_when_text_is_read(tmp_path: Path) -> None:
    (checkpoint(tmp_path / "m") / "tokenizer.json").unlink()
    model = open_model(tmp_path / "m", name="m", uri="./m")
    with pytest.raises(ConfigError, match=r"it has no tokenizer\.json") as caught:
        model.tokenizer.encode_data(["text"])
    assert "save_pretrained" in (caught.value.hint or "")


@pytest.mark.parametrize("name", ["model.bin", "model.pt", "weights.pth", "model.ckpt", "m.pkl", "m.safetensors"])
def test_single_files_that_are_not_gguf(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_bytes(b"\x80\x04.")
    with pytest.raises(ConfigError, match=r"pickle|name the folder"):
        open_model(tmp_path / name, name="m", uri=name)


def header(**tensors: dict[str, object]) -> bytes:
    text = json.dumps(tensors).encode()
    return struct.pack("<Q", len(text)) + text


def entry(shape: list[int], start: int, end: int, dtype: str = "F32") -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


LIES = {
    "short": b"\x01\x02",
    "long header": struct.pack("<Q", 1 << 62) + bytes(100),
    "100 MB header": struct.pack("<Q", 100 << 20) + bytes(100),
    "no json": struct.pack("<Q", 4) + b"\xff\xfe{]",
    "not an object": struct.pack("<Q", 2) + b"[]",
    "outside": header(t=entry([4], 0, 16)) + bytes(8),
    "overlap": header(a=entry([4], 0, 16), b=entry([4], 8, 24)) + bytes(32),
    "huge shape": header(t=entry([1 << 62, 1 << 62], 0, 16)) + bytes(16),
    "past 63 bits": header(t=entry([1 << 64], 0, 16)) + bytes(16),
    "negative": header(t=entry([-4], 0, 16)) + bytes(16),
    "wrong size": header(t=entry([5], 0, 16)) + bytes(16),
    "type": header(t=entry([4], 0, 16, "PICKLE")) + bytes(16),
    "no place": header(t={"dtype": "F32", "shape": [4]}) + bytes(16),
    "text": header(t="x") + bytes(16),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", LIES)
def test_a_lying_header_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "lying.safetensors"
    path.write_bytes(LIES[name])
    with pytest.raises(ConfigError, match=r"lying\.safetensors"):
        check_safetensors(path)


def test_links_may_stay_inside_a_wider_root(tmp_path: Path) -> None:
    """The Hugging Face cache links each snapshot's files to blobs beside it."""
    folder = checkpoint(tmp_path / "repo" / "snapshots" / "abc")
    blob = tmp_path / "repo" / "blobs" / ("a" * 64)
    blob.parent.mkdir()
    (folder / "model.safetensors").rename(blob)
    (folder / "model.safetensors").symlink_to(blob)
    assert weight_files(folder, root=tmp_path / "repo") == (folder / "model.safetensors",)
    with pytest.raises(ConfigError, match="outside"):
        weight_files(folder)
