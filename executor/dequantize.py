"""GGUF tensor blocks to float32, bit for bit what ggml computes, vectorised over blocks.

Layouts: ggml-common.h and ggml-quants.c of https://github.com/ggml-org/ggml. A block holds 32 values (256 for the
K types): half-precision scales, packed low bits, packed high bits. Every function takes uint8 [blocks, bytes per block]
and fills float32 [blocks, values per block].
"""

from collections.abc import Callable, Mapping

import numpy as np
from numpy.typing import NDArray

from dql.errors import ExecutionError
from dql.models.gguf import BLOCKS, GgmlType

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]

_CHUNK = 1 << 20  # values decoded at once, so that the intermediate arrays stay in cache


def dequantize(data: Bytes, kind: GgmlType, out: Floats) -> None:
    """Decode the raw bytes of one tensor into `out`, contiguous float32 of as many values.

    Raises ExecutionError for block types that this version does not decode.
    """
    values, size = BLOCKS[kind]
    flat = out.reshape(-1)
    if kind in _PLAIN:
        flat[:] = _PLAIN[kind](data)
        return
    decode = _BLOCKS.get(kind)
    if decode is None:
        known = ", ".join(sorted(kind.name for kind in (*_PLAIN, *_BLOCKS)))
        raise ExecutionError(f"tensors of type {kind.name} cannot be read", hint=f"readable types: {known}")
    blocks, target = data.reshape(-1, size), flat.reshape(-1, values)
    step = max(1, _CHUNK // values)
    for at in range(0, len(blocks), step):
        decode(np.ascontiguousarray(blocks[at : at + step]), target[at : at + step])


def _bf16(data: Bytes) -> Floats:
    return (data.view("<u2").astype(np.uint32) << 16).view(np.float32)


_PLAIN: Mapping[GgmlType, Callable[[Bytes], NDArray[np.floating]]] = {
    GgmlType.F32: lambda data: data.view("<f4"),
    GgmlType.F16: lambda data: data.view("<f2"),
    GgmlType.BF16: _bf16,
}


def _half(blocks: Bytes, at: int) -> Floats:
    """The half-precision number at byte `at` of every block, [blocks, 1]."""
    return np.ascontiguousarray(blocks[:, at : at + 2]).view("<f2").astype(np.float32)


def _nibbles(packed: Bytes, out: Floats) -> None:
    """Low halves of the bytes, then their high halves: [blocks, n] bytes → [blocks, 2n] values."""
    half = packed.shape[1]
    out[:, :half] = packed & 15
    out[:, half:] = packed >> 4


def _fifth_bits(packed: Bytes) -> Bytes:
    """Bit i of a little-endian 32-bit word, moved to bit 4: [blocks, 4] bytes → [blocks, 32]."""
    return np.unpackbits(packed, axis=1, bitorder="little") << np.uint8(4)


def _q4_0(blocks: Bytes, out: Floats) -> None:
    _nibbles(blocks[:, 2:], out)
    out -= 8
    out *= _half(blocks, 0)


def _q4_1(blocks: Bytes, out: Floats) -> None:
    _nibbles(blocks[:, 4:], out)
    out *= _half(blocks, 0)
    out += _half(blocks, 2)


def _q5_0(blocks: Bytes, out: Floats) -> None:
    _nibbles(blocks[:, 6:], out)
    out += _fifth_bits(blocks[:, 2:6])
    out -= 16
    out *= _half(blocks, 0)


def _q5_1(blocks: Bytes, out: Floats) -> None:
    _nibbles(blocks[:, 8:], out)
    out += _fifth_bits(blocks[:, 4:8])
    out *= _half(blocks, 0)
    out += _half(blocks, 2)


def _q8_0(blocks: Bytes, out: Floats) -> None:
    out[:] = blocks[:, 2:].view(np.int8)
    out *= _half(blocks, 0)


def _k_scales(packed: Bytes) -> tuple[Bytes, Bytes]:
    """The eight 6-bit scales and eight 6-bit minima of a K block from their 12 bytes, [blocks, 8] each."""
    low, high, rest = packed[:, :4], packed[:, 4:8], packed[:, 8:]
    scales = np.concatenate((low & 63, (rest & 15) | (low >> 2 & 48)), axis=1)
    minima = np.concatenate((high & 63, (rest >> 4) | (high >> 2 & 48)), axis=1)
    return scales, minima


def _scaled_groups(blocks: Bytes, out: Floats) -> None:
    """out [blocks, 256] = scale · out − minimum by groups of 32, scales and minima from the head of the block."""
    scales, minima = _k_scales(blocks[:, 4:16])
    groups = out.reshape(len(out), 8, 32)
    groups *= (_half(blocks, 0) * scales.astype(np.float32))[..., None]
    groups -= (_half(blocks, 2) * minima.astype(np.float32))[..., None]


def _low_nibbles(packed: Bytes, out: Floats) -> None:
    """Each run of 32 bytes holds 32 low halves and then 32 high halves of the values: [blocks, 128] → [blocks, 256]."""
    runs, target = packed.reshape(len(packed), 4, 32), out.reshape(len(out), 4, 2, 32)
    target[:, :, 0] = runs & 15
    target[:, :, 1] = runs >> 4


def _q4_k(blocks: Bytes, out: Floats) -> None:
    _low_nibbles(blocks[:, 16:], out)
    _scaled_groups(blocks, out)


def _q5_k(blocks: Bytes, out: Floats) -> None:
    _low_nibbles(blocks[:, 48:], out)
    high, groups = blocks[:, 16:48], out.reshape(len(out), 8, 32)
    for group in range(8):
        groups[:, group] += (high >> group & 1) << 4
    _scaled_groups(blocks, out)


def _q6_k(blocks: Bytes, out: Floats) -> None:
    low, high = blocks[:, :128].reshape(-1, 2, 64), blocks[:, 128:192].reshape(-1, 2, 32)
    target = out.reshape(len(out), 2, 4, 32)
    for part in range(4):
        nibbles = low[:, :, 32 * (part % 2) : 32 * (part % 2) + 32] >> 4 * (part // 2) & 15
        target[:, :, part] = nibbles | (high >> 2 * part & 3) << 4
    out -= 32
    scales = blocks[:, 192:208].view(np.int8).astype(np.float32) * _half(blocks, 208)
    out.reshape(len(out), 16, 16)[:] *= scales[..., None]


_BLOCKS: Mapping[GgmlType, Callable[[Bytes, Floats], None]] = {
    GgmlType.Q4_0: _q4_0,
    GgmlType.Q4_1: _q4_1,
    GgmlType.Q5_0: _q5_0,
    GgmlType.Q5_1: _q5_1,
    GgmlType.Q8_0: _q8_0,
    GgmlType.Q4_K: _q4_k,
    GgmlType.Q5_K: _q5_k,
    GgmlType.Q6_K: _q6_k,
}
