"""A model's tensors by role, read from a memory-mapped GGUF file or a folder of safetensors, as float32 on the CPU.

Nothing is decoded before it is asked for, so that a loading model holds one dense tensor at a time beside its result.
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Protocol

import numpy as np
import torch
from safetensors import SafetensorError, safe_open

from dql.errors import ConfigError, ExecutionError
from dql.executor.dequantize import dequantize
from dql.executor.dummy import DummySource
from dql.executor.models import names
from dql.executor.options import LoadFormat
from dql.models.gguf import GgufFile
from dql.models.model import Model
from dql.models.shape import ModelShape

_FLOATS = (torch.float32, torch.float16, torch.bfloat16)


class Source(Protocol):
    """Named tensors of a checkpoint."""

    def names(self) -> frozenset[str]: ...

    def read(self, name: str) -> torch.Tensor:
        """The tensor, float32, on the CPU, writable. Raises ConfigError naming tensor and file."""
        ...


class GgufSource:
    """Tensors of one GGUF file, dequantised as they are read."""

    def __init__(self, file: GgufFile) -> None:
        self._file = file

    def names(self) -> frozenset[str]:
        return frozenset(self._file.tensors)

    def read(self, name: str) -> torch.Tensor:
        info = self._file.tensors[name]
        out = np.empty(info.shape, np.float32)
        try:
            dequantize(self._file.data(name), info.type, out)
        except ExecutionError as error:
            raise ExecutionError(f"{self._file.path}: tensor {name!r}: {error.message}", hint=error.hint) from error
        return torch.from_numpy(out)


class SafetensorsSource:
    """Tensors of a checkpoint's safetensors files, one or many shards."""

    def __init__(self, files: Sequence[Path]) -> None:
        """Raises ConfigError naming the file that cannot be read, or a tensor that two files hold."""
        self._files: dict[str, Path] = {}
        for path in files:
            for name in _tensor_names(path):
                if name in self._files:
                    raise ConfigError(f"{path}: the tensor {name!r} is in {self._files[name].name} as well")
                self._files[name] = path

    def names(self) -> frozenset[str]:
        return frozenset(self._files)

    def read(self, name: str) -> torch.Tensor:
        path = self._files[name]
        try:
            with safe_open(path, framework="pt") as file:
                tensor: torch.Tensor = file.get_tensor(name)
        except (SafetensorError, OSError) as error:
            raise ConfigError(f"{path}: tensor {name!r} cannot be read: {error}") from error
        if tensor.dtype not in _FLOATS:
            raise ExecutionError(
                f"{path}: tensor {name!r} is stored as {tensor.dtype}, which dql does not read",
                hint="use the float checkpoint of this model; dql quantises by itself",
            )
        return tensor.float()


class Weights:
    """The tensors of a model of one shape by role ('q', 'mlp_norm', …), checked against that shape."""

    def __init__(self, source: Source, shape: ModelShape, table: names.NameTable) -> None:
        self._source = source
        self._shape = shape
        self._table = table
        self._names = source.names()
        self._expected = names.role_shapes(shape)

    def has(self, role: str, layer: int | None = None) -> bool:
        """Whether the checkpoint holds this role."""
        return self._table.name(role, layer) in self._names

    def get(self, role: str, layer: int | None = None) -> torch.Tensor:
        """One tensor, float32. Raises ConfigError where the checkpoint lacks it or its shape is another."""
        name = self._table.name(role, layer)
        if name is None or name not in self._names:
            raise ConfigError(f"the checkpoint lacks the tensor {name or role!r}", hint="download the model again")
        tensor = self._source.read(name)
        if tuple(tensor.shape) != self._expected[role]:
            raise ConfigError(f"the tensor {name!r} has shape {tuple(tensor.shape)}, expected {self._expected[role]}")
        if self._shape.rope_interleaved and role in ("q", "k", "q_bias", "k_bias"):
            return split_halves(tensor, self._shape.head_dim, self._shape.rotary_dim or self._shape.head_dim)
        return tensor

    def optional(self, role: str, layer: int | None = None) -> torch.Tensor | None:
        """`get`, or None where the checkpoint lacks the role."""
        return self.get(role, layer) if self.has(role, layer) else None

    def stacked(self, roles: tuple[str, ...], layer: int) -> torch.Tensor:
        """Tensors of several roles below each other, rows [sum of rows, …]."""
        return torch.cat([self.get(role, layer) for role in roles])


def dummy_weights(shape: ModelShape, device: torch.device | str = "cpu") -> Weights:
    """Random weights of this shape on a device, see DummySource."""
    table = names.GGUF if shape.causal else names.GGUF_BERT
    plain = replace(shape, rope_interleaved=False)  # random rows are in no order that would have to be undone
    return Weights(DummySource(plain, table, device), plain, table)


def open_weights(model: Model, load_format: LoadFormat = "auto") -> Weights:
    """The weights of a model whose headers have been checked. Raises ConfigError where they are another kind's."""
    if load_format == "dummy":
        return dummy_weights(model.shape)
    check_at_hand(model)
    if model.gguf is not None:
        return Weights(GgufSource(model.gguf), model.shape, names.GGUF if model.shape.causal else names.GGUF_BERT)
    source = SafetensorsSource(model.files)
    suffix = names.hf_embedding(model.shape)
    found = sorted(name for name in source.names() if name.endswith(suffix))
    if not found:
        kind = "decoder" if model.shape.causal else "encoder"
        raise ConfigError(f"{model.path}: no tensor is named …{suffix}, so this is not a {kind}'s checkpoint")
    return Weights(source, model.shape, names.hf_names(model.shape, found[0].removesuffix(suffix)))


def check_at_hand(model: Model) -> None:
    """Raises ConfigError where only a config.json was given."""
    if not model.files:
        raise ConfigError(
            f"{model.path}: it describes a model whose weights are not at hand",
            hint="name the checkpoint's folder; measurements may load random weights with load_format='dummy'",
        )


def split_halves(tensor: torch.Tensor, head_dim: int, rotary_dim: int) -> torch.Tensor:
    """Rows of each head from adjacent rotary pairs (0,1)(2,3)… to half-split pairs (0,d/2)(1,d/2+1)…

    llama.cpp rotates adjacent pairs for the Llama family and permutes the rows of q and k when it converts; dql rotates
    halves, as the original checkpoints do. tensor [heads·head_dim, …].
    """
    order = torch.arange(head_dim)
    order[:rotary_dim] = torch.arange(rotary_dim).view(-1, 2).t().reshape(-1)
    heads = tensor.view(-1, head_dim, *tensor.shape[1:])
    return heads[:, order].reshape(tensor.shape)


def _tensor_names(path: Path) -> frozenset[str]:
    try:
        with safe_open(path, framework="pt") as file:
            return frozenset(file.keys())
    except (SafetensorError, OSError) as error:
        raise ConfigError(f"{path}: cannot be read as safetensors: {error}") from error
