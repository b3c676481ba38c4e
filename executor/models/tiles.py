"""Row-wise work in tiles of a fixed number of rows, so that a row's result does not depend on how many there are.

A matrix product picks its blocking by its number of rows, and a vectorised loop treats its tail apart: the same row
comes out a rounding error apart in batches of another size. In tiles of one shape every row is worked on alike.
"""

from collections.abc import Callable

import torch

TILE = 32  # rows: a fifth slower than products of 256 rows on AVX-512, and as fast a pass for one row as for 32


def rowwise(
    work: Callable[..., tuple[torch.Tensor, ...]], tile: int | None, *inputs: torch.Tensor
) -> tuple[torch.Tensor, ...]:
    """work(*inputs), tile by tile; inputs and results are [rows, …], and a row's result reads that row alone.

    The last tile is filled up with copies of its last row. tile None: all rows at once.
    """
    rows = len(inputs[0])
    if tile is None or not rows:
        return work(*inputs)
    done = [work(*(_filled(x[start : start + tile], tile) for x in inputs)) for start in range(0, rows, tile)]
    return tuple(torch.cat(parts)[:rows] for parts in zip(*done, strict=True))


def _filled(x: torch.Tensor, tile: int) -> torch.Tensor:
    return x if len(x) == tile else torch.cat((x, x[-1:].expand(tile - len(x), *x.shape[1:])))
