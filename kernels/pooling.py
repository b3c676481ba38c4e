"""One vector per row from packed hidden states: the mean, first or last token, at unit length if wished."""

from __future__ import annotations

from typing import Literal

import torch

from dql.kernels.layout import FLOATS, INTEGERS, check

Pooling = Literal["mean", "first", "last"]


def pool(hidden: torch.Tensor, offsets: torch.Tensor, pooling: Pooling, *, normalize: bool = False) -> torch.Tensor:
    """hidden [tokens, width], row r = tokens offsets[r]…offsets[r+1], none empty → [rows, width] float32.

    normalize divides each vector by its Euclidean length (at least 1e-12).
    """
    check("hidden", hidden, (None, None), dtypes=FLOATS)
    check("offsets", offsets, (None,), dtypes=INTEGERS, like=hidden)
    return _cpu(hidden, offsets, pooling, normalize)


def _cpu(hidden: torch.Tensor, offsets: torch.Tensor, pooling: Pooling, normalize: bool) -> torch.Tensor:
    starts, ends = offsets[:-1].long(), offsets[1:].long()
    if pooling == "mean":
        vectors = torch.segment_reduce(hidden.float(), "mean", lengths=ends - starts, axis=0)
    else:
        vectors = hidden[starts if pooling == "first" else ends - 1].float()
    return torch.nn.functional.normalize(vectors, dim=-1) if normalize else vectors
