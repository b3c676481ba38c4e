"""One vector per row from packed hidden states: the mean, first or last token, at unit length if wished."""

from typing import Literal

import torch

from dql.kernels.configs import choose
from dql.kernels.language import Pointer, Scalar, constexpr, jit, power_of_two, tl, uses_triton
from dql.kernels.layout import FLOATS, INTEGERS, check

Pooling = Literal["mean", "first", "last"]


def pool(hidden: torch.Tensor, offsets: torch.Tensor, pooling: Pooling, *, normalize: bool = False) -> torch.Tensor:
    """hidden [tokens, width], row r = tokens offsets[r]…offsets[r+1], none empty → [rows, width] float32.

    normalize divides each vector by its Euclidean length (at least 1e-12).
    """
    check("hidden", hidden, (None, None), dtypes=FLOATS)
    check("offsets", offsets, (None,), dtypes=INTEGERS, like=hidden)
    if uses_triton(hidden):
        return _triton(hidden, offsets, pooling, normalize)
    return _cpu(hidden, offsets, pooling, normalize)


def _cpu(hidden: torch.Tensor, offsets: torch.Tensor, pooling: Pooling, normalize: bool) -> torch.Tensor:
    starts, ends = offsets[:-1].long(), offsets[1:].long()
    if pooling == "mean":
        vectors = torch.segment_reduce(hidden.float(), "mean", lengths=ends - starts, axis=0)
    else:
        vectors = hidden[starts if pooling == "first" else ends - 1].float()
    return torch.nn.functional.normalize(vectors, dim=-1) if normalize else vectors


def _triton(hidden: torch.Tensor, offsets: torch.Tensor, pooling: Pooling, normalize: bool) -> torch.Tensor:
    rows, width = offsets.shape[0] - 1, hidden.shape[1]
    out = torch.empty((rows, width), device=hidden.device)
    _kernel[(rows,)](
        hidden, offsets, out, width, POOLING=pooling, NORMALIZE=normalize, BLOCK=power_of_two(width),
        **choose("pool", "any").options(),
    )  # fmt: skip
    return out


@jit()
def _kernel(
    hidden: Pointer, offsets: Pointer, out: Pointer, width: Scalar,
    POOLING: constexpr, NORMALIZE: constexpr, BLOCK: constexpr, TOKENS: constexpr,
) -> None:  # fmt: skip
    row = tl.program_id(0).to(tl.int64)
    begin, end = tl.load(offsets + row).to(tl.int64), tl.load(offsets + row + 1).to(tl.int64)
    column = tl.arange(0, BLOCK)
    inside = column < width
    if POOLING == "mean":
        sums = tl.zeros((TOKENS, BLOCK), tl.float32)
        for start in range(begin, end, TOKENS):
            token = start + tl.arange(0, TOKENS)
            at = token[:, None] * width + column[None, :]
            sums += tl.load(hidden + at, mask=(token < end)[:, None] & inside[None, :], other=0.0).to(tl.float32)
        vector = tl.sum(sums, axis=0) / (end - begin).to(tl.float32)
    else:
        token = begin if POOLING == "first" else end - 1
        vector = tl.load(hidden + token * width + column, mask=inside, other=0.0).to(tl.float32)
    if NORMALIZE:
        vector /= tl.maximum(tl.sqrt(tl.sum(vector * vector)), 1e-12)
    tl.store(out + row * width + column, vector, mask=inside)
