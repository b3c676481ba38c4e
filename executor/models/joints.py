"""Where a norm meets the matrix below it: codes are written by the norm itself, and a sum waits for the norm after it.

A matrix in 8-bit codes takes its inputs as codes too. The norm above it (or the activation, for `down`) has each row at
hand and writes them, so that no pass over the activations is there for that alone. Where a product has no room for the
residual's sum, the next norm, which reads both anyway, adds them up in place.
"""

from dataclasses import dataclass

import torch

from dql.executor.models.linear import Gated, Linear
from dql.executor.models.linear_codes import EightBitGated, EightBitLinear, Int4Linear
from dql.kernels.rms_norm import add_rms_norm, rms_norm, rms_norm_quantized


@dataclass(frozen=True, slots=True)
class Norm:
    """One RMS norm of a model: weight [width]."""

    weight: torch.Tensor
    eps: float
    offset: float

    def __call__(self, x: torch.Tensor, added: torch.Tensor | None = None) -> torch.Tensor:
        """The norm of x [rows, width]; of x + added, which then is what x holds, where `added` is given."""
        if added is None:
            return rms_norm(x, self.weight, eps=self.eps, offset=self.offset)
        return add_rms_norm(added, x, self.weight, eps=self.eps, offset=self.offset)

    def codes(
        self, x: torch.Tensor, added: torch.Tensor | None, dtype: torch.dtype
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The same as (codes [rows, width] of `dtype`, scales [rows])."""
        first, residual = (x, None) if added is None else (added, x)
        return rms_norm_quantized(first, self.weight, dtype, eps=self.eps, offset=self.offset, residual=residual)


def projected(matrix: Linear, norm: Norm, x: torch.Tensor, added: torch.Tensor | None) -> torch.Tensor:
    """matrix(norm(x + added)), [rows, outputs]; x then holds the sum."""
    if isinstance(matrix, EightBitLinear):
        return matrix.product(*norm.codes(x, added, matrix.codes), x.dtype)
    return matrix(norm(x, added))


def fed_forward(
    gated: Gated, down: Linear, norm: Norm, x: torch.Tensor, added: torch.Tensor | None, *, join: bool
) -> torch.Tensor:
    """down(gated(norm(x + added))), and with `join` x + added on top; x then holds x + added, or has become the result.

    join needs a `down` that does not sum late.
    """
    if isinstance(gated, EightBitGated) and isinstance(down, EightBitLinear):
        codes = gated.codes_of(*norm.codes(x, added, gated.both.codes), x.dtype, down.codes)
        return down.product(*codes, x.dtype)
    inner = gated(norm(x, added))
    return down.plus(inner, x) if join else down(inner)


def sums_late(matrix: Linear) -> bool:
    """Whether the residual's sum would cost this matrix a pass of its own, which the norm below it spares."""
    return isinstance(matrix, EightBitLinear | Int4Linear)
