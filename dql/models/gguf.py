"""GGUF v2 and v3 headers, read from a memory map without trusting a single length in them.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md. Tensor bytes are handed out as views of the map;
turning them into numbers is the executor's work.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum
from itertools import pairwise
from math import prod
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from dql.errors import ConfigError

_MAX_PAIRS = 65_536
_MAX_TENSORS = 65_536
_MAX_STRING = 4 << 20  # bytes: the longest honest string is a chat template of some 20 kB
_MAX_ARRAY = 4 << 20  # elements
_MAX_STRINGS = 1 << 20  # of one array: merges of the largest vocabularies stay under 600,000
_MAX_DIMENSIONS = 4
_STRING, _ARRAY, _BOOL = 8, 9, 7
_SCALARS = {0: "<B", 1: "<b", 2: "<H", 3: "<h", 4: "<I", 5: "<i", 6: "<f", _BOOL: "<?", 10: "<Q", 11: "<q", 12: "<d"}

Value = int | float | bool | str | list[str] | NDArray[np.generic]


class GgmlType(IntEnum):
    """How a tensor's numbers are stored; values are those of ggml.h."""

    F32 = 0
    F16 = 1
    Q4_0 = 2
    Q4_1 = 3
    Q5_0 = 6
    Q5_1 = 7
    Q8_0 = 8
    Q8_1 = 9
    Q2_K = 10
    Q3_K = 11
    Q4_K = 12
    Q5_K = 13
    Q6_K = 14
    Q8_K = 15
    IQ2_XXS = 16
    IQ2_XS = 17
    IQ3_XXS = 18
    IQ1_S = 19
    IQ4_NL = 20
    IQ3_S = 21
    IQ2_S = 22
    IQ4_XS = 23
    I8 = 24
    I16 = 25
    I32 = 26
    I64 = 27
    F64 = 28
    IQ1_M = 29
    BF16 = 30
    TQ1_0 = 34
    TQ2_0 = 35
    MXFP4 = 39


# type: (values per block, bytes per block)
BLOCKS: Mapping[GgmlType, tuple[int, int]] = {
    GgmlType.F32: (1, 4),
    GgmlType.F16: (1, 2),
    GgmlType.Q4_0: (32, 18),
    GgmlType.Q4_1: (32, 20),
    GgmlType.Q5_0: (32, 22),
    GgmlType.Q5_1: (32, 24),
    GgmlType.Q8_0: (32, 34),
    GgmlType.Q8_1: (32, 40),
    GgmlType.Q2_K: (256, 84),
    GgmlType.Q3_K: (256, 110),
    GgmlType.Q4_K: (256, 144),
    GgmlType.Q5_K: (256, 176),
    GgmlType.Q6_K: (256, 210),
    GgmlType.Q8_K: (256, 292),
    GgmlType.IQ2_XXS: (256, 66),
    GgmlType.IQ2_XS: (256, 74),
    GgmlType.IQ3_XXS: (256, 98),
    GgmlType.IQ1_S: (256, 50),
    GgmlType.IQ4_NL: (32, 18),
    GgmlType.IQ3_S: (256, 110),
    GgmlType.IQ2_S: (256, 82),
    GgmlType.IQ4_XS: (256, 136),
    GgmlType.I8: (1, 1),
    GgmlType.I16: (1, 2),
    GgmlType.I32: (1, 4),
    GgmlType.I64: (1, 8),
    GgmlType.F64: (1, 8),
    GgmlType.IQ1_M: (256, 56),
    GgmlType.BF16: (1, 2),
    GgmlType.TQ1_0: (256, 54),
    GgmlType.TQ2_0: (256, 66),
    GgmlType.MXFP4: (32, 17),
}


@dataclass(frozen=True, slots=True)
class TensorInfo:
    """Where one tensor lies. `shape` is row-major (outermost first), `offset` counts bytes from the file's start."""

    name: str
    shape: tuple[int, ...]
    type: GgmlType
    offset: int
    nbytes: int


@dataclass(frozen=True, slots=True)
class GgufFile:
    """A checked header over a memory-mapped file; every tensor is known to lie inside it, apart from the others."""

    path: Path
    version: int
    metadata: Mapping[str, Value]
    tensors: Mapping[str, TensorInfo]
    _map: NDArray[np.uint8]

    def data(self, name: str) -> NDArray[np.uint8]:
        """The raw bytes of a tensor, uint8[nbytes], as a read-only view of the file."""
        if name not in self.tensors:
            raise ConfigError(f"{self.path}: no tensor named {name!r}")
        info = self.tensors[name]
        return self._map[info.offset : info.offset + info.nbytes]


def read_gguf(path: Path) -> GgufFile:
    """Map `path` and check its header. Raises ConfigError naming the file for anything that is not sound GGUF."""
    try:
        mapped = np.memmap(path, dtype=np.uint8, mode="r")
    except (OSError, ValueError) as error:  # ValueError: an empty file cannot be mapped
        raise ConfigError(f"{path}: cannot be read as a GGUF file: {error}") from error
    cursor = _Cursor(path, mapped.data)
    version, num_tensors, num_pairs = _read_preamble(cursor)
    metadata: dict[str, Value] = {}
    for _ in range(num_pairs):
        key = cursor.string()
        if key in metadata:
            raise cursor.broken(f"metadata key {key!r} occurs twice")
        metadata[key] = cursor.value(cursor.scalar("<I"))
    entries = [_read_entry(cursor) for _ in range(num_tensors)]
    return GgufFile(path, version, metadata, _place(cursor, entries, metadata), mapped)


def _read_preamble(cursor: "_Cursor") -> tuple[int, int, int]:
    if cursor.take(4) != b"GGUF":
        raise ConfigError(f"{cursor.path}: not a GGUF file (it does not start with 'GGUF')")
    version = cursor.scalar("<I")
    if version not in (2, 3):
        swapped = int.from_bytes(version.to_bytes(4, "little"), "big") in (2, 3)
        raise cursor.broken("it is big-endian" if swapped else f"GGUF version {version} is not 2 or 3")
    num_tensors, num_pairs = cursor.scalar("<Q"), cursor.scalar("<Q")
    if num_tensors > _MAX_TENSORS or num_pairs > _MAX_PAIRS:
        raise cursor.broken(f"its header claims {num_tensors} tensors and {num_pairs} metadata keys")
    return version, num_tensors, num_pairs


def _read_entry(cursor: "_Cursor") -> tuple[str, tuple[int, ...], int, int]:
    """Name, row-major shape, type number and offset within the data section."""
    name = cursor.string()
    num_dimensions = cursor.scalar("<I")
    if not 1 <= num_dimensions <= _MAX_DIMENSIONS:
        raise cursor.broken(f"tensor {name!r} has {num_dimensions} dimensions")
    dimensions = [cursor.scalar("<Q") for _ in range(num_dimensions)]
    return name, tuple(reversed(dimensions)), cursor.scalar("<I"), cursor.scalar("<Q")


def _place(
    cursor: "_Cursor", entries: list[tuple[str, tuple[int, ...], int, int]], metadata: Mapping[str, Value]
) -> dict[str, TensorInfo]:
    alignment = metadata.get("general.alignment", 32)
    if not isinstance(alignment, int) or not 0 < alignment <= 1 << 20 or alignment & (alignment - 1):
        raise cursor.broken(f"alignment {alignment!r} is not a power of two")
    base = -(-cursor.position // alignment) * alignment
    tensors: dict[str, TensorInfo] = {}
    for name, shape, type_number, offset in entries:
        if name in tensors:
            raise cursor.broken(f"tensor {name!r} occurs twice")
        if type_number not in BLOCKS:
            raise cursor.broken(f"tensor {name!r} has the unknown type {type_number}")
        kind = GgmlType(type_number)
        values, size = BLOCKS[kind]
        if shape[-1] % values or 0 in shape:
            raise cursor.broken(f"tensor {name!r} of shape {shape} does not fill whole {kind.name} blocks of {values}")
        nbytes = prod(shape) // values * size
        if offset % alignment or base + offset + nbytes > cursor.size:
            raise cursor.broken(f"tensor {name!r} ({nbytes} bytes at {base + offset}) lies outside the file")
        tensors[name] = TensorInfo(name, shape, kind, base + offset, nbytes)
    in_order = sorted(tensors.values(), key=lambda tensor: tensor.offset)
    for left, right in pairwise(in_order):
        if left.offset + left.nbytes > right.offset:
            raise cursor.broken(f"tensors {left.name!r} and {right.name!r} overlap")
    return tensors


class _Cursor:
    """Reads forward through the header; every read is checked against the size of the file."""

    def __init__(self, path: Path, view: memoryview) -> None:
        self.path = path
        self.size = len(view)
        self.position = 0
        self._view = view

    def broken(self, reason: str) -> ConfigError:
        return ConfigError(f"{self.path}: the GGUF file cannot be used: {reason}", hint="download the file again")

    def take(self, length: int) -> bytes:
        return bytes(self._view[self._advance(length) : self.position])

    def scalar(self, code: str) -> int:
        at = self._advance(struct.calcsize(code))
        value: int = struct.unpack_from(code, self._view, at)[0]
        return value

    def string(self) -> str:
        length = self.scalar("<Q")
        if length > _MAX_STRING:
            raise self.broken(f"a string of {length} bytes at byte {self.position - 8}")
        try:
            return self.take(length).decode()
        except UnicodeDecodeError as error:
            raise self.broken(f"a string that is not UTF-8 at byte {self.position - length}") from error

    def value(self, kind: int) -> Value:
        if kind == _STRING:
            return self.string()
        if kind == _ARRAY:
            return self._array(self.scalar("<I"))
        if kind not in _SCALARS:
            raise self.broken(f"unknown metadata type {kind} at byte {self.position - 4}")
        return self.scalar(_SCALARS[kind])

    def _array(self, kind: int) -> Value:
        length = self.scalar("<Q")
        if length > (_MAX_STRINGS if kind == _STRING else _MAX_ARRAY):
            raise self.broken(f"an array of {length} elements at byte {self.position - 8}")
        if kind == _STRING:
            return self._strings(length)
        if kind not in _SCALARS:
            raise self.broken(f"an array of the unknown or nested type {kind} at byte {self.position - 12}")
        dtype = np.dtype(_SCALARS[kind])
        at = self._advance(dtype.itemsize * length)
        return np.frombuffer(self._view, dtype=dtype, count=length, offset=at).copy()

    def _strings(self, count: int) -> list[str]:
        """`string()` in one loop: vocabularies are nearly all of the time it takes to open a model."""
        view, size, at, unpack = self._view, self.size, self.position, struct.Struct("<Q").unpack_from
        strings: list[str] = []
        for _ in range(count):
            self.position = at
            start = at + 8
            length = unpack(view, at)[0] if start <= size else size
            at = start + length
            if length > _MAX_STRING or at > size:
                self.string()
            try:
                strings.append(str(view[start:at], "utf-8"))
            except UnicodeDecodeError:
                self.string()
        self.position = at
        return strings

    def _advance(self, length: int) -> int:
        start = self.position
        if length > self.size - start:
            raise self.broken(f"it ends at byte {self.size}, {length} bytes were expected at byte {start}")
        self.position = start + length
        return start
