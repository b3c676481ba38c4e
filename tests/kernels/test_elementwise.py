"""Norms, gated activations, row quantisation and rotary embedding against the float64 formulas."""

import pytest
import torch

from dql.kernels.activation import Activation, gated, gated_quantized
from dql.kernels.kv_cache import KVCache
from dql.kernels.language import interpreting
from dql.kernels.quantize import quantize_rows
from dql.kernels.rms_norm import add_rms_norm, rms_norm, rms_norm_quantized
from dql.kernels.rope import HeadNorm, rope
from tests.kernels import reference
from tests.kernels.reference import code_tolerance, dequantised, double, error, tolerance

CODES = (torch.float8_e4m3fn, torch.int8)


@pytest.mark.parametrize(("rows", "width"), [(1, 33), (3, 64), (5, 96)])
@pytest.mark.parametrize("offset", [0.0, 1.0])
def test_rms_norm(
    device: str, dtype: torch.dtype, random: torch.Generator, rows: int, width: int, offset: float
) -> None:
    x, residual = (torch.randn(rows, width, generator=random).to(dtype) for _ in range(2))
    weight = torch.randn(width, generator=random).to(dtype)
    y = rms_norm(x.to(device), weight.to(device), eps=1e-5, offset=offset)
    assert error(y, reference.rms_norm(double(x), double(weight), 1e-5, offset)) < tolerance(dtype)

    stream = residual.to(device).clone()
    y = add_rms_norm(x.to(device), stream, weight.to(device), eps=1e-5, offset=offset)
    assert error(stream, double(x) + double(residual)) < tolerance(dtype)
    assert error(y, reference.rms_norm(double(stream), double(weight), 1e-5, offset)) < tolerance(dtype)


@pytest.mark.parametrize("codes", CODES)
def test_rms_norm_quantized(device: str, dtype: torch.dtype, random: torch.Generator, codes: torch.dtype) -> None:
    x, residual = (torch.randn(3, 70, generator=random).to(dtype) for _ in range(2))
    weight = torch.randn(70, generator=random).to(dtype)
    expected = reference.rms_norm(double(x), double(weight), 1e-5, 0.0)
    pair = rms_norm_quantized(x.to(device), weight.to(device), codes, eps=1e-5)
    assert error(dequantised(*pair), expected) < code_tolerance(codes)

    stream = residual.to(device).clone()
    pair = rms_norm_quantized(x.to(device), weight.to(device), codes, eps=1e-5, residual=stream)
    assert error(stream, double(x) + double(residual)) < tolerance(dtype)
    assert error(dequantised(*pair), reference.rms_norm(double(stream), double(weight), 1e-5, 0.0)) < code_tolerance(
        codes
    )


@pytest.mark.parametrize("activation", ["silu", "gelu_tanh"])
def test_gated(device: str, dtype: torch.dtype, random: torch.Generator, activation: Activation) -> None:
    x = (torch.randn(3, 70, generator=random) * 2).to(dtype)
    expected = reference.gated(double(x), activation)
    assert error(gated(x.to(device), activation), expected) < tolerance(dtype)
    for codes in CODES:
        out = dequantised(*gated_quantized(x.to(device), activation, codes))
        assert error(out, expected) < code_tolerance(codes)


@pytest.mark.parametrize("codes", CODES)
def test_quantize_rows_reaches_the_largest_code(
    device: str, dtype: torch.dtype, random: torch.Generator, codes: torch.dtype
) -> None:
    x = (torch.randn(4, 37, generator=random) * torch.tensor([[1e-3], [1.0], [40.0], [0.0]])).to(dtype)
    values, scales = quantize_rows(x.to(device), codes)
    assert error(dequantised(values, scales), double(x)) < code_tolerance(codes)
    largest = 448.0 if codes.is_floating_point else 127.0
    reached = pytest.approx([largest] * 3, rel=0.13 if interpreting() else 0)  # the interpreter truncates to fp8
    assert values[:3].float().abs().amax(-1).tolist() == reached
    assert not values[3].float().any()


@pytest.mark.parametrize(("head_dim", "half"), [(16, 8), (24, 12), (20, 6)], ids=["full", "odd", "partial"])
@pytest.mark.parametrize("normed", [False, True])
@pytest.mark.parametrize("cached", ["float", "fp8"])
def test_rope_norms_rotates_and_stores(
    device: str, dtype: torch.dtype, random: torch.Generator, head_dim: int, half: int, normed: bool, cached: str
) -> None:
    tokens, heads, kv_heads = 5, 6, 3
    fused = torch.randn(tokens, heads + 2 * kv_heads, head_dim, generator=random).to(dtype)
    positions = torch.randint(0, 9, (tokens,), generator=random, dtype=torch.int32)
    angles = torch.rand(9, half, generator=random) * 6
    cos, sin = angles.cos(), angles.sin()
    weights = [torch.randn(head_dim, generator=random).to(dtype) for _ in range(2)]
    slots = torch.randperm(11, generator=random)[:tokens].int()
    q, k, v = (double(part) for part in (fused[:, :heads], fused[:, heads:-kv_heads], fused[:, -kv_heads:]))
    if normed:
        q, k = (reference.rms_norm(x, double(w), 1e-6, 1.0) for x, w in zip((q, k), weights, strict=True))
    q, k = (reference.rope(x, positions, double(cos), double(sin)) for x in (q, k))

    on = fused.to(device)
    parts = (on[:, :heads], on[:, heads:-kv_heads], on[:, -kv_heads:])
    cache_dtype = dtype if cached == "float" else torch.float8_e4m3fn
    cache = KVCache.allocate(11, kv_heads, head_dim, cache_dtype, device)
    rope(
        parts[0],
        parts[1],
        positions.to(device),
        cos.to(device),
        sin.to(device),
        norm=HeadNorm(weights[0].to(device), weights[1].to(device), 1e-6, 1.0) if normed else None,
        v=parts[2],
        cache=cache,
        slots=slots.to(device),
    )
    assert error(parts[0], q) < tolerance(dtype)
    assert error(parts[1], k) < tolerance(dtype)
    assert torch.equal(double(parts[2]), v)
    stored_k, stored_v = cache.dense(slots.long().to(device))
    bound = tolerance(dtype) if cached == "float" else code_tolerance(cache_dtype)
    assert error(stored_k, k) < bound
    assert error(stored_v, v) < bound
    untouched = [slot for slot in range(11) if slot not in slots.tolist()]
    assert not cache.dense(torch.tensor(untouched).to(device))[0].float().any()
