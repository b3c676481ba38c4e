"""Splitting a skinny product over its inner dimension: how many ways, and the sum of the parts in a fixed order."""

import torch

from dql.kernels.configs import choose, processors
from dql.kernels.language import Pointer, Scalar, cdiv, constexpr, jit, tl

MAX_SPLITS = 16
MIN_BLOCKS = 4  # inner blocks a program should at least walk, to fill its pipeline


def splits_of(outputs: int, inner: int, block_n: int, block_k: int) -> int:
    """How many ways to split so that each processor gets about two programs.

    Depends on the weight and the device alone, never on the rows, so that a row's sum is the same in any batch.
    """
    wanted = 2 * processors() // cdiv(outputs, block_n)
    return max(1, min(wanted, MAX_SPLITS, inner // (MIN_BLOCKS * block_k)))


def join_parts(parts: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """parts [splits, rows, outputs] float32 → their sum [rows, outputs] as `dtype`, first to last."""
    splits, rows, outputs = parts.shape
    out = torch.empty((rows, outputs), dtype=dtype, device=parts.device)
    config = choose("join_parts", "any")
    _kernel[(cdiv(rows * outputs, config.blocks["BLOCK"]),)](parts, out, rows * outputs, splits, **config.options())
    return out


@jit(do_not_specialize=["splits"])
def _kernel(parts: Pointer, out: Pointer, elements: Scalar, splits: Scalar, BLOCK: constexpr) -> None:
    at = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    inside = at < elements
    total = tl.zeros((BLOCK,), tl.float32)
    for _ in range(splits):
        total += tl.load(parts + at, mask=inside, other=0.0)
        parts += elements
    tl.store(out + at, total.to(out.dtype.element_ty), mask=inside)
