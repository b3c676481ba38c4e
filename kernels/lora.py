"""Low-rank adapters added to a projection's output, each segment of rows with its own adapter.

out[m] += b[adapter] · (a[adapter] · x[m]); the adapter's scaling is folded into b.
"""

import torch

from dql.kernels.configs import choose
from dql.kernels.language import Pointer, Scalar, cdiv, compute_type, constexpr, jit, power_of_two, tl, uses_triton
from dql.kernels.layout import FLOATS, INTEGERS, check
from dql.kernels.split_k import splits_of


def lora_add(
    out: torch.Tensor,
    x: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    offsets: torch.Tensor,
    adapters: torch.Tensor,
    *,
    max_length: int,
) -> None:
    """Add the adapters' part to out [rows, outputs] in place.

    x [rows, inputs], a [adapters, rank, inputs], b [adapters, outputs, rank] of one dtype. Segment s is rows
    offsets[s]…offsets[s+1] (max_length the longest) and uses adapter adapters[s]; −1 leaves its rows as they are.
    """
    check("out", out, (x.shape[0], None), dtypes=FLOATS)
    check("x", x, (None, None), dtypes=(out.dtype,), like=out)
    check("a", a, (None, None, x.shape[1]), dtypes=(out.dtype,), like=out)
    check("b", b, (a.shape[0], out.shape[1], a.shape[1]), dtypes=(out.dtype,), like=out)
    check("offsets", offsets, (None,), dtypes=INTEGERS, like=out)
    check("adapters", adapters, (offsets.shape[0] - 1,), dtypes=INTEGERS, like=out)
    (_triton if uses_triton(out) else _cpu)(out, x, a, b, offsets, adapters, max_length)


def _cpu(
    out: torch.Tensor,
    x: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    offsets: torch.Tensor,
    adapters: torch.Tensor,
    max_length: int,
) -> None:
    bounds = offsets.tolist()
    for begin, end, adapter in zip(bounds, bounds[1:], adapters.tolist(), strict=False):
        if adapter >= 0 and 0 < end - begin <= max_length:
            out[begin:end] += x[begin:end].float() @ a[adapter].float().t() @ b[adapter].float().t()


def _triton(
    out: torch.Tensor,
    x: torch.Tensor,
    a: torch.Tensor,
    b: torch.Tensor,
    offsets: torch.Tensor,
    adapters: torch.Tensor,
    max_length: int,
) -> None:
    """x · aᵀ split over the inputs into parts, which the second launch sums as it reads them."""
    (rows, inputs), outputs, rank = x.shape, out.shape[1], a.shape[1]
    segments = adapters.shape[0]
    shrink, expand = choose("lora_shrink", "any"), choose("lora_expand", "any")
    block_k = shrink.blocks["BLOCK_K"]
    blocks = cdiv(max_length, shrink.blocks["BLOCK_M"])
    splits = splits_of(1, inputs, 1, block_k)
    parts = torch.empty((splits, rows, rank), device=x.device)
    shared = {"BLOCK_R": max(16, power_of_two(rank)), "COMPUTE": compute_type(x.dtype)}
    _shrink_kernel[(blocks, segments, splits)](
        x, a, parts, offsets, adapters, rows, inputs, rank, cdiv(cdiv(inputs, block_k), splits) * block_k,
        EVEN=inputs % block_k == 0, **shared, **shrink.options(),
    )  # fmt: skip
    grid = (cdiv(max_length, expand.blocks["BLOCK_M"]), segments, cdiv(outputs, expand.blocks["BLOCK_N"]))
    _expand_kernel[grid](parts, b, out, offsets, adapters, rows, outputs, rank, splits, **shared, **expand.options())


@jit(do_not_specialize=["rows"])
def _shrink_kernel(
    x: Pointer, a: Pointer, parts: Pointer, offsets: Pointer, adapters: Pointer,
    rows: Scalar, inputs: Scalar, rank: Scalar, stretch: Scalar,
    EVEN: constexpr, COMPUTE: constexpr, BLOCK_M: constexpr, BLOCK_R: constexpr, BLOCK_K: constexpr,
) -> None:  # fmt: skip
    segment, split = tl.program_id(1), tl.program_id(2)
    begin, end = tl.load(offsets + segment).to(tl.int64), tl.load(offsets + segment + 1)
    adapter = tl.load(adapters + segment).to(tl.int64)
    row = begin + tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    if (adapter < 0) | (begin + tl.program_id(0) * BLOCK_M >= end):
        return
    member, inner = tl.arange(0, BLOCK_R), tl.arange(0, BLOCK_K)
    x += tl.minimum(row, end - 1)[:, None] * inputs + inner[None, :]
    a += (adapter * rank + tl.minimum(member, rank - 1))[:, None] * inputs + inner[None, :]
    total = tl.zeros((BLOCK_M, BLOCK_R), tl.float32)
    for k in range(split * stretch, tl.minimum(split * stretch + stretch, inputs), BLOCK_K):
        if EVEN:
            left, right = tl.load(x + k), tl.load(a + k)
        else:
            inside = (k + inner < inputs)[None, :]
            left, right = tl.load(x + k, mask=inside, other=0.0), tl.load(a + k, mask=inside, other=0.0)
        total = tl.dot(left.to(COMPUTE), tl.trans(right.to(COMPUTE)), total, input_precision="tf32x3")
    at = (split.to(tl.int64) * rows + row)[:, None] * rank + member[None, :]
    tl.store(parts + at, total, mask=(row < end)[:, None] & (member < rank)[None, :])


@jit(do_not_specialize=["rows", "splits"])
def _expand_kernel(
    parts: Pointer, b: Pointer, out: Pointer, offsets: Pointer, adapters: Pointer,
    rows: Scalar, outputs: Scalar, rank: Scalar, splits: Scalar,
    COMPUTE: constexpr, BLOCK_M: constexpr, BLOCK_R: constexpr, BLOCK_N: constexpr,
) -> None:  # fmt: skip
    segment = tl.program_id(1)
    begin, end = tl.load(offsets + segment).to(tl.int64), tl.load(offsets + segment + 1)
    adapter = tl.load(adapters + segment).to(tl.int64)
    row = begin + tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    if (adapter < 0) | (begin + tl.program_id(0) * BLOCK_M >= end):
        return
    member = tl.arange(0, BLOCK_R)
    output = tl.program_id(2) * BLOCK_N + tl.arange(0, BLOCK_N)
    part = parts + row[:, None] * rank + member[None, :]
    inside = (row < end)[:, None] & (member < rank)[None, :]
    shrunk = tl.zeros((BLOCK_M, BLOCK_R), tl.float32)
    for _ in range(splits):
        shrunk += tl.load(part, mask=inside, other=0.0)
        part += rows.to(tl.int64) * rank
    b_at = (adapter * outputs + output)[:, None] * rank + member[None, :]
    right = tl.load(b + b_at, mask=(output < outputs)[:, None] & (member < rank)[None, :], other=0.0)
    added = tl.dot(shrunk.to(COMPUTE), tl.trans(right.to(COMPUTE)), input_precision="tf32x3")
    at = out + row[:, None] * outputs + output[None, :]
    kept = (row < end)[:, None] & (output < outputs)[None, :]
    before = tl.load(at, mask=kept, other=0.0).to(tl.float32)
    tl.store(at, (before + added).to(out.dtype.element_ty), mask=kept)
