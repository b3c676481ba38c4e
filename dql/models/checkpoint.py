"""Folders of safetensors: which files hold the weights, checked before anything reads them."""

import json
import re
import struct
from collections.abc import Mapping
from itertools import pairwise
from math import prod
from pathlib import Path
from typing import Any

from dql.errors import ConfigError
from dql.models.vocabulary_json import read_json

_SHARD = re.compile(r"[\w.-]+\.safetensors")
INDEX = "model.safetensors.index.json"
_MAX_HEADER = 32 << 20  # bytes
_DTYPE_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64"), 8),
}
PICKLES = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl"})
PICKLE_HINT = "files that can run code when read are never opened; use the model's .safetensors or a GGUF file"


def weight_files(folder: Path, root: Path | None = None) -> tuple[Path, ...]:
    """The safetensors files of a checkpoint folder, headers checked.

    Every file must lie under `root` (the folder itself by default) once links are followed. Raises ConfigError.
    """
    root = (root or folder).resolve()
    files = tuple(_inside(folder / name, root) for name in _shard_names(folder, root))
    for file in files:
        check_safetensors(file)
    return files


def is_complete(folder: Path) -> bool:
    """Whether a folder, perhaps of a download that was cut off, holds its config and all of its weight files."""
    if not (folder / "config.json").exists():
        return False
    try:
        return all((folder / name).exists() for name in _shard_names(folder, snapshot_root(folder).resolve()))
    except ConfigError:
        return False


def snapshot_root(folder: Path) -> Path:
    """What links inside a checkpoint folder may point into: itself, or all of its repository in the hub's cache."""
    return folder.parent.parent if folder.parent.name == "snapshots" else folder


def check_safetensors(path: Path) -> None:
    """Check that a file's header describes exactly the bytes that follow it. Raises ConfigError naming the file."""
    try:
        size = path.stat().st_size
        with path.open("rb") as file:
            length = struct.unpack("<Q", file.read(8).ljust(8, b"\xff"))[0]
            if length > min(_MAX_HEADER, size - 8):
                raise ConfigError(f"{path}: its header claims {length} bytes of {size}")
            header = json.loads(file.read(length))
    except (OSError, ValueError, RecursionError) as error:
        if isinstance(error, ConfigError):
            raise
        raise ConfigError(f"{path}: cannot be read as safetensors: {error}") from error
    if not isinstance(header, dict):
        raise ConfigError(f"{path}: its header is not an object")
    header.pop("__metadata__", None)
    spans = sorted((*_span(path, name, entry), name) for name, entry in header.items())
    for (_, end, left), (start, _, right) in pairwise(spans):
        if start < end:
            raise ConfigError(f"{path}: tensors {left!r} and {right!r} overlap")
    if spans and spans[-1][1] > size - 8 - length:
        raise ConfigError(f"{path}: tensor {spans[-1][2]!r} lies outside the file")


def _span(path: Path, name: str, entry: object) -> tuple[int, int]:
    """Start and end of a tensor in the data section, if its shape fills it."""
    fields: Mapping[str, Any] = entry if isinstance(entry, Mapping) else {}
    shape, offsets, dtype = fields.get("shape"), fields.get("data_offsets"), fields.get("dtype")
    is_sound = isinstance(shape, list) and isinstance(offsets, list) and len(offsets) == 2
    if not is_sound or not all(type(n) is int and 0 <= n < 1 << 63 for n in [*(shape or ()), *(offsets or ())]):
        raise ConfigError(f"{path}: tensor {name!r} has no sound shape and place")
    if dtype not in _DTYPE_BYTES:
        raise ConfigError(f"{path}: tensor {name!r} has the unknown type {dtype!r}")
    start, end = offsets or (0, 0)
    if end - start != prod(shape or ()) * _DTYPE_BYTES[dtype]:
        raise ConfigError(f"{path}: tensor {name!r} of shape {shape} does not fill its {end - start} bytes")
    return start, end


def shards_of(index: Path) -> list[str]:
    """The weight files that an index names, all beside it. Raises ConfigError."""
    weight_map = read_json(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise ConfigError(f"{index}: it has no weight_map")
    names = sorted({str(name) for name in weight_map.values()})
    for name in names:
        if not _SHARD.fullmatch(name):
            raise ConfigError(f"{index}: {name!r} is not the name of a safetensors file in this folder")
    return names


def _shard_names(folder: Path, root: Path) -> list[str]:
    index = folder / INDEX
    if index.is_file():
        return shards_of(_inside(index, root))
    if (folder / "model.safetensors").is_file():
        return ["model.safetensors"]
    if any(file.suffix in PICKLES for file in folder.iterdir()):
        raise ConfigError(f"{folder}: its weights are pickle files", hint=PICKLE_HINT)
    raise ConfigError(f"{folder}: it holds no model.safetensors", hint="a checkpoint folder has config.json beside it")


def _inside(path: Path, root: Path) -> Path:
    resolved = path.resolve()
    if not resolved.is_relative_to(root):
        raise ConfigError(f"{path}: it points outside the model's folder, to {resolved}")
    if not resolved.is_file():
        raise ConfigError(f"{path}: the file is missing")
    return path
