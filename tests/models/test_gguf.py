"""The GGUF header reader: right on honest files, a clean error on every lying one."""

import struct
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from dql.errors import ConfigError, UnsupportedError
from dql.models.gguf import GgmlType, read_gguf
from dql.models.shape import ModelShape
from tests.models.tiny import TinySizes, tiny_model, vocabulary, weights


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tiny_model(tmp_path_factory.mktemp("gguf"))


def test_header_equals_the_gguf_packages(tiny: Path) -> None:
    ours, theirs = read_gguf(tiny), GGUFReader(tiny)
    assert ours.metadata["tokenizer.ggml.tokens"] == vocabulary()[0]
    assert ours.metadata["llama.rope.freq_base"] == 10_000.0
    assert [
        (tensor.name, tensor.offset, tensor.nbytes, tensor.shape, tensor.type.name) for tensor in ours.tensors.values()
    ] == [
        (t.name, t.data_offset, t.n_bytes, tuple(int(n) for n in reversed(t.shape)), t.tensor_type.name)
        for t in theirs.tensors
    ]


def test_data_is_the_tensors_bytes(tiny: Path) -> None:
    file = read_gguf(tiny)
    for name, values in weights(TinySizes(), len(vocabulary()[0])).items():
        assert np.array_equal(file.data(name).view(np.float32).reshape(file.tensors[name].shape), values)
    with pytest.raises(ConfigError, match="no tensor named 'nope'"):
        file.data("nope")


def test_tiny_shape(tiny: Path) -> None:
    file = read_gguf(tiny)
    shape = ModelShape.from_gguf(file.metadata, file.tensors)
    assert (shape.num_layers, shape.head_dim, shape.vocab_size) == (2, 8, len(vocabulary()[0]))
    assert shape.rope_interleaved and shape.tie_embeddings and not shape.qk_norm
    assert shape.kv_bytes_per_token(4) == 2 * 2 * 2 * 8 * 4
    assert shape.parameters == sum(w.size for w in weights(TinySizes(), shape.vocab_size).values() if w.ndim == 2)


def text(value: str) -> bytes:
    return struct.pack("<Q", len(value)) + value.encode()


def tensor(name: str, shape: tuple[int, ...], offset: int, kind: int = GgmlType.F32) -> bytes:
    return text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, offset)


def gguf_bytes(
    *tensors: bytes, pairs: tuple[bytes, ...] = (), counts: tuple[int, int] | None = None, data: int = 64
) -> bytes:
    num_tensors, num_pairs = counts or (len(tensors), len(pairs))
    header = b"GGUF" + struct.pack("<IQQ", 3, num_tensors, num_pairs) + b"".join(pairs) + b"".join(tensors)
    return header + bytes(-len(header) % 32 + data)


LIES: dict[str, tuple[bytes, str]] = {
    "empty": (b"", "cannot be read"),
    "not gguf": (b"PK\x03\x04" + bytes(100), "not a GGUF file"),
    "version": (b"GGUF" + struct.pack("<IQQ", 9, 0, 0), "version 9"),
    "big-endian": (b"GGUF" + struct.pack(">IQQ", 3, 0, 0), "big-endian"),
    "tensor count": (gguf_bytes(counts=(1 << 63, 0)), "claims"),
    "pair count": (gguf_bytes(counts=(0, (1 << 64) - 1)), "claims"),
    "string length": (gguf_bytes(pairs=(struct.pack("<Q", 1 << 63),)), "a string of"),
    "string past the end": (gguf_bytes(pairs=(struct.pack("<Q", 1 << 20),)), "it ends at byte"),
    "not utf-8": (gguf_bytes(pairs=(struct.pack("<Q", 2) + b"\xff\xff",)), "not UTF-8"),
    "array length": (gguf_bytes(pairs=(text("k") + struct.pack("<IIQ", 9, 4, 1 << 62),)), "an array of"),
    "array past the end": (gguf_bytes(pairs=(text("k") + struct.pack("<IIQ", 9, 12, 1 << 20),)), "it ends at byte"),
    "nested array": (gguf_bytes(pairs=(text("k") + struct.pack("<IIQ", 9, 9, 1),)), "nested"),
    "unknown type": (gguf_bytes(pairs=(text("k") + struct.pack("<I", 77),)), "unknown metadata type 77"),
    "key twice": (gguf_bytes(pairs=(text("k") + struct.pack("<II", 4, 1),) * 2), "occurs twice"),
    "alignment": (gguf_bytes(pairs=(text("general.alignment") + struct.pack("<II", 4, 3),)), "power of two"),
    "dimensions": (gguf_bytes(text("t") + struct.pack("<I", 1 << 31)), "dimensions"),
    "huge shape": (gguf_bytes(tensor("t", (1 << 63, 1 << 63), 0)), "outside the file"),
    "zero dimension": (gguf_bytes(tensor("t", (0, 4), 0)), "whole F32 blocks"),
    "part of a block": (gguf_bytes(tensor("t", (31,), 0, GgmlType.Q8_0)), "whole Q8_0 blocks of 32"),
    "tensor type": (gguf_bytes(tensor("t", (4,), 0, 999)), "unknown type 999"),
    "offset": (gguf_bytes(tensor("t", (4,), 1 << 63)), "outside the file"),
    "misaligned": (gguf_bytes(tensor("t", (4,), 4)), "outside the file"),
    "truncated": (gguf_bytes(tensor("t", (17,), 0)), "outside the file"),
    "overlap": (gguf_bytes(tensor("a", (16,), 0), tensor("b", (8,), 32)), "'a' and 'b' overlap"),
    "tensor twice": (gguf_bytes(tensor("a", (4,), 0), tensor("a", (4,), 32)), "occurs twice"),
}


@pytest.mark.parametrize("name", LIES)
def test_a_lying_header_is_refused_with_its_reason(name: str, tmp_path: Path) -> None:
    content, reason = LIES[name]
    path = tmp_path / "lying.gguf"
    path.write_bytes(content)
    with pytest.raises(ConfigError, match=reason) as caught:
        read_gguf(path)
    assert "lying.gguf" in str(caught.value)


def test_missing_file_is_a_config_error(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="nowhere"):
        read_gguf(tmp_path / "nowhere.gguf")


def cut(content: bytes, at: int, value: int) -> bytes:
    return content[: at % len(content)]


def flip(content: bytes, at: int, value: int) -> bytes:
    at %= 8_000  # the header and its first tensors
    return content[:at] + bytes([value]) + content[at + 1 :]


@pytest.mark.parametrize("damage", [cut, flip])
@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(at=st.integers(0, 1 << 20), value=st.integers(0, 255))
def test_damage_is_refused_or_harmless(
    tiny: Path, tmp_path: Path, damage: Callable[[bytes, int, int], bytes], at: int, value: int
) -> None:
    path = tmp_path / "damaged.gguf"
    path.write_bytes(damage(tiny.read_bytes(), at, value))
    try:
        file = read_gguf(path)
        assert all(file.data(name).nbytes == info.nbytes for name, info in file.tensors.items())
        ModelShape.from_gguf(file.metadata, file.tensors)
    except (ConfigError, UnsupportedError) as error:
        assert error.message
