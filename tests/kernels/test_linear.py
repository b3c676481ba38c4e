"""Linear layers over quantised weights, their packing, and low-rank adapters."""

import pytest
import torch

from dql.kernels.eight_bit_linear import quantized_linear, weight_only_linear
from dql.kernels.int4_linear import int4_linear
from dql.kernels.language import interpreting
from dql.kernels.lora import lora_add
from dql.kernels.quantize import Int4Weight, dequantize_int4, encode, pack_int4, quantize_int4
from dql.kernels.scale_sums import scale_sums
from tests.kernels.reference import dequantised, double, error, tolerance
from tests.kernels.reference import scale_sums as expected_sums

# rows, outputs, inputs; the last is above what the skinny kernel takes, and odd for the library
SHAPES = [(1, 20, 128), (5, 37, 320), (17, 24, 72), (70, 20, 72)]


@pytest.mark.parametrize(("rows", "outputs", "inputs"), SHAPES)
@pytest.mark.parametrize("codes", [torch.float8_e4m3fn, torch.int8], ids=["fp8", "int8"])
def test_quantized_linear(
    device: str, dtype: torch.dtype, random: torch.Generator, rows: int, outputs: int, inputs: int, codes: torch.dtype
) -> None:
    x, x_scales = encode(torch.randn(rows, inputs, generator=random), codes)
    weight, scales = encode(torch.randn(outputs, inputs, generator=random), codes)
    expected = dequantised(x, x_scales) @ dequantised(weight, scales).t()
    out = quantized_linear(x.to(device), x_scales.to(device), weight.to(device), scales.to(device), dtype)
    assert out.dtype == dtype
    assert error(out, expected) < tolerance(dtype)


@pytest.mark.parametrize("rows", [40, 70])
@pytest.mark.parametrize("codes", [torch.float8_e4m3fn, torch.int8], ids=["fp8", "int8"])
def test_quantized_linear_adds_its_bias(
    device: str, dtype: torch.dtype, random: torch.Generator, rows: int, codes: torch.dtype
) -> None:
    """At extents that the library takes above 64 rows."""
    if codes != torch.int8 and rows > 64 and interpreting():
        pytest.skip("the library's fp8 product is a GPU's")
    if device == "cuda" and codes != torch.int8 and rows > 64 and dtype != torch.bfloat16:
        pytest.skip("the library's fp8 product by rows gives bf16")
    x, x_scales = encode(torch.randn(rows, 64, generator=random), codes)
    weight, scales = encode(torch.randn(48, 64, generator=random), codes)
    bias = torch.randn(48, generator=random).to(dtype)
    expected = dequantised(x, x_scales) @ dequantised(weight, scales).t() + double(bias)
    out = quantized_linear(
        x.to(device), x_scales.to(device), weight.to(device), scales.to(device), dtype, bias.to(device)
    )
    assert out.dtype == dtype
    assert error(out, expected) < tolerance(dtype)


@pytest.mark.parametrize(("rows", "outputs"), [(1, 16), (5, 37), (70, 48)])
@pytest.mark.parametrize("biased", [False, True])
def test_scale_sums(
    device: str, dtype: torch.dtype, random: torch.Generator, rows: int, outputs: int, biased: bool
) -> None:
    sums = torch.randint(-(1 << 20), 1 << 20, (rows, outputs), generator=random, dtype=torch.int32)
    x_scales, scales = (torch.rand(count, generator=random) * 1e-3 for count in (rows, outputs))
    bias = torch.randn(outputs, generator=random).to(dtype) if biased else None
    expected = expected_sums(double(sums), double(x_scales), double(scales), None if bias is None else double(bias))
    on = [part.to(device) for part in (sums, x_scales, scales)]
    out = scale_sums(on[0], on[1], on[2], dtype, None if bias is None else bias.to(device))
    assert out.dtype == dtype
    assert error(out, expected) < tolerance(dtype)


@pytest.mark.parametrize(("rows", "outputs", "inputs"), SHAPES)
def test_weight_only_linear(
    device: str, dtype: torch.dtype, random: torch.Generator, rows: int, outputs: int, inputs: int
) -> None:
    x = torch.randn(rows, inputs, generator=random).to(dtype)
    weight, scales = encode(torch.randn(outputs, inputs, generator=random), torch.int8)
    out = weight_only_linear(x.to(device), weight.to(device), scales.to(device))
    assert error(out, double(x) @ dequantised(weight, scales).t()) < tolerance(dtype)


@pytest.mark.parametrize("kind", ["fp8", "int8", "w8a16", "int4"])
def test_no_rows_are_no_work(device: str, kind: str) -> None:
    """A step that wants no hidden states; a kernel that reads its last row would read before its inputs."""
    x = torch.empty(0, 128, dtype=torch.bfloat16, device=device)
    weight = torch.zeros(24, 128, device=device)
    if kind == "int4":
        assert int4_linear(x, quantize_int4(weight)).shape == (0, 24)
        return
    codes, scales = encode(weight, torch.float8_e4m3fn if kind == "fp8" else torch.int8)
    if kind == "w8a16":
        assert weight_only_linear(x, codes, scales).shape == (0, 24)
    else:
        assert quantized_linear(x.to(codes.dtype), x[:, 0].float(), codes, scales, x.dtype).shape == (0, 24)


def test_int4_codes_survive_packing(random: torch.Generator) -> None:
    codes = torch.randint(0, 16, (7, 384), generator=random, dtype=torch.int32)
    scales, minimums = (torch.randn(7, 3, generator=random) for _ in range(2))
    expected = codes * scales.repeat_interleave(128, 1) + minimums.repeat_interleave(128, 1)
    assert torch.equal(dequantize_int4(pack_int4(codes, scales, minimums)), expected)


def test_int4_error_is_half_a_step(random: torch.Generator) -> None:
    weight = torch.randn(6, 256, generator=random)
    packed = quantize_int4(weight)
    steps = packed.scales.t().repeat_interleave(128, 1)
    assert bool(((dequantize_int4(packed) - weight).abs() <= steps * 0.501).all())


@pytest.mark.parametrize(("rows", "outputs", "inputs"), [(1, 24, 128), (19, 37, 384), (70, 16, 128)])
def test_int4_linear(
    device: str, dtype: torch.dtype, random: torch.Generator, rows: int, outputs: int, inputs: int
) -> None:
    if interpreting() and rows > 64:
        pytest.skip("above the skinny limit the Triton kernel is not used")
    x = torch.randn(rows, inputs, generator=random).to(dtype)
    packed = quantize_int4(torch.randn(outputs, inputs, generator=random))
    expected = double(x) @ double(dequantize_int4(packed)).t()
    on = Int4Weight(*(part.to(device) for part in (packed.words, packed.scales, packed.minimums)))
    assert error(int4_linear(x.to(device), on), expected) < tolerance(dtype)


@pytest.mark.parametrize("rank", [8, 20])
def test_lora_add(device: str, dtype: torch.dtype, random: torch.Generator, rank: int) -> None:
    rows, inputs, outputs = 23, 72, 37
    x, out = (torch.randn(rows, width, generator=random).to(dtype) for width in (inputs, outputs))
    a = (torch.randn(3, rank, inputs, generator=random) / inputs**0.5).to(dtype)
    b = torch.randn(3, outputs, rank, generator=random).to(dtype)
    bounds, adapters = [0, 4, 4, 21, 23], [2, 0, 0, -1]
    expected = double(out)
    for begin, end, adapter in zip(bounds, bounds[1:], adapters, strict=False):
        if adapter >= 0:
            expected[begin:end] += double(x[begin:end]) @ double(a[adapter]).t() @ double(b[adapter]).t()
    on = out.to(device)
    offsets, chosen = (torch.tensor(v, dtype=torch.int32, device=device) for v in (bounds, adapters))
    lora_add(on, x.to(device), a.to(device), b.to(device), offsets, chosen, max_length=17)
    assert error(on, expected) < tolerance(dtype)
    assert torch.equal(on.cpu()[21:], out[21:])
