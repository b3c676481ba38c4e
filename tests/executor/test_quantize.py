"""Every precision's matrices inside a decoder: hidden states near those of fp32, and the matrices' own products exact.

The kernels' layouts run here on their CPU paths and, from the slow test below, in Triton's interpreter.
"""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from weakref import ReferenceType, ref

import pytest
import torch

from dql.executor.models.decoder import Decoder, PackedTokens
from dql.executor.models.linear import Activation, DenseLinear, Layout, Linear
from dql.executor.models.linear_int8 import Int8Gated, Int8Linear, int8_works
from dql.executor.quantize import Bf16Layout, CodesLayout, DenseLayout, MixedInt8Layout, PackedLayout
from dql.executor.smooth import smoothed
from dql.executor.weights import open_weights
from dql.kernels.fused_cpu import attend_dense
from dql.kernels.kv_cache import KVCache
from dql.kernels.language import interpreting, triton
from dql.kernels.layout import FP8
from dql.kernels.quantize import GROUP, dequantize_int4, encode, quantize_int4
from dql.models import Model, open_model
from dql.planner.hardware import cpu_precisions
from dql.planner.memory import INT4_GROUP, matrix_bytes
from tests.models.tiny import TinySizes, tiny_model

CPU = torch.device("cpu")
# relative errors of the last hidden states: the tiny model's wide weights multiply those of a product by ten and more
CODES = {"fp8": 0.35, "int8": 0.1, "int4": 0.55}
IDS = torch.arange(30, 36)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    """Wide enough for groups of 128."""
    path = tiny_model(tmp_path_factory.mktemp("wide"), TinySizes(hidden=128, layers=1, intermediate=128))
    return open_model(path, name="wide", uri="wide")


class RoundedLinear(DenseLinear):
    """The formula: a dense product of what the codes stand for."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, weights: str) -> None:
        self._codes = {"fp8": FP8, "int8": torch.int8}.get(weights)
        super().__init__(dequantize_int4(quantize_int4(weight)) if self._codes is None else self._rounded(weight), bias)

    def __call__(self, x: torch.Tensor, activation: Activation = "none") -> torch.Tensor:
        return super().__call__(x if self._codes is None else self._rounded(x), activation)

    def _rounded(self, x: torch.Tensor) -> torch.Tensor:
        assert self._codes is not None
        codes, scales = encode(x, self._codes)
        return codes.float() * scales[:, None]


@dataclass(frozen=True)
class RoundedLayout(DenseLayout):
    weights: str = "int8"

    def linear(self, role: str, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Linear:
        return DenseLinear(weight) if role == "head" else RoundedLinear(weight, bias, self.weights)


def hidden(model: Model, layout: Layout) -> torch.Tensor:
    """The last hidden states of one text, [tokens, hidden_size] float32."""
    shape, at = model.shape, torch.arange(len(IDS))
    decoder = Decoder(shape, open_weights(model), context=64, layout=layout)
    caches = [
        KVCache.allocate(len(IDS), shape.num_kv_heads, shape.head_dim, layout.dtype, CPU)
        for _ in range(shape.num_layers)
    ]

    def attention(q: torch.Tensor, cache: KVCache, *, window: int | None) -> torch.Tensor:
        out, _ = attend_dense(q, cache.k, cache.v, None, shape.attention_scale, None, causal=True)
        return out.flatten(1).contiguous()

    return decoder.forward(PackedTokens(IDS, at, at, at), caches, attention).float()


def off(found: torch.Tensor, exact: torch.Tensor) -> float:
    return float((found - exact).norm() / exact.norm())


@pytest.mark.parametrize("weights", CODES)
def test_codes_do_what_rounding_does(model: Model, weights: str) -> None:
    found = hidden(model, CodesLayout(CPU, weights, torch.float32))
    # the interpreter converts one value in a hundred to another fp8 code than torch
    exact = 0.03 if weights != "fp8" or not interpreting() else CODES["fp8"]
    assert off(found, hidden(model, RoundedLayout(CPU, weights=weights))) < exact
    assert 0 < off(found, hidden(model, DenseLayout(CPU))) < CODES[weights]


class Apart:
    """A matrix that no norm knows to write codes for."""

    def __init__(self, matrix: Linear) -> None:
        self.outputs, self._matrix = matrix.outputs, matrix

    def __call__(self, x: torch.Tensor, activation: Activation = "none") -> torch.Tensor:
        return self._matrix(x, activation)

    def plus(self, x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
        return self._matrix.plus(x, residual)


@dataclass(frozen=True)
class ApartLayout(DenseLayout):
    weights: str = "int8"

    def linear(self, role: str, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Linear:
        return Apart(CodesLayout(self.device, self.weights, self.dtype).linear(role, weight, bias))


@pytest.mark.parametrize("weights", CODES)
def test_norms_that_write_codes_and_late_sums_change_nothing(tmp_path: Path, weights: str) -> None:
    sizes = TinySizes(hidden=128, layers=2, intermediate=256)
    model = open_model(tiny_model(tmp_path, sizes), name="tiny", uri="tiny")
    found = hidden(model, CodesLayout(CPU, weights, torch.float32))
    assert off(found, hidden(model, ApartLayout(CPU, weights=weights))) < (0.05 if interpreting() else 1e-5)


@pytest.mark.skipif(interpreting(), reason="the CPU's own products")
@pytest.mark.parametrize("weights", ["fp32", "bf16", "int8"])
def test_layouts_of_the_cpu_stay_near_fp32(model: Model, weights: str) -> None:
    if weights not in cpu_precisions():
        pytest.skip("the processor lacks it")
    layouts: dict[str, Layout] = {
        "fp32": PackedLayout(CPU),
        "bf16": Bf16Layout(CPU),
        "int8": MixedInt8Layout(PackedLayout(CPU)),
    }
    limit = {"fp32": 1e-5, "bf16": 0.02, "int8": 0.1}[weights]
    assert off(hidden(model, layouts[weights]), hidden(model, DenseLayout(CPU))) < limit


@pytest.mark.skipif(interpreting(), reason="nothing of Triton is in it")
def test_smoothing_leaves_the_model_what_it_is(model: Model) -> None:
    weights = open_weights(model)
    layout = DenseLayout(CPU)
    moved = smoothed(weights, model.shape, IDS.tolist(), layout)
    assert off(moved.get("gate", 0), weights.get("gate", 0)) > 0.1
    at = torch.arange(len(IDS))

    def last(found: object) -> torch.Tensor:
        decoder = Decoder(model.shape, found, context=64, layout=layout)  # type: ignore[arg-type]
        cache = [KVCache.allocate(len(IDS), 2, 32, torch.float32, CPU)]
        return decoder.forward(PackedTokens(IDS, at, at, at), cache, lambda q, cache, window: q.flatten(1))

    assert off(last(moved), last(weights)) < 1e-5


@pytest.mark.skipif(interpreting(), reason="nothing of Triton is in it")
def test_smoothing_never_holds_the_whole_model(tmp_path: Path) -> None:
    model = open_model(tiny_model(tmp_path, TinySizes(layers=8)), name="tiny", uri="tiny")
    made: list[ReferenceType[torch.Tensor]] = []
    alive: list[int] = []

    class Counting(DenseLayout):
        def linear(self, role: str, weight: torch.Tensor, bias: torch.Tensor | None = None) -> Linear:
            if role == "qkv":
                made.append(ref(weight))
                alive.append(sum(found() is not None for found in made))
            return super().linear(role, weight, bias)

    smoothed(open_weights(model), model.shape, IDS.tolist(), Counting(CPU))
    assert len(made) == 8 and max(alive) <= 3


@pytest.mark.skipif(interpreting(), reason="nothing of Triton is in it")
@pytest.mark.parametrize("weights", ["bf16", *CODES])
@pytest.mark.parametrize("hidden_size", [128, 96])
def test_planned_bytes_are_those_that_are_held(tmp_path: Path, weights: str, hidden_size: int) -> None:
    sizes = TinySizes(hidden=hidden_size, layers=1, intermediate=256)
    model = open_model(tiny_model(tmp_path, sizes), name="tiny", uri="tiny")
    layout: Layout = DenseLayout(CPU, torch.bfloat16) if weights == "bf16" else CodesLayout(CPU, weights)
    decoder = Decoder(model.shape, open_weights(model), context=64, layout=layout)
    (layer,) = decoder._layers
    held = sum(_bytes(x) for x in (layer.qkv, layer.o, layer.gated, layer.down))
    assert INT4_GROUP == GROUP
    planned = matrix_bytes(model.shape, weights, "cuda", bf16=True)
    assert planned <= held <= planned * 1.05  # a scale per output beside 8-bit codes


def _bytes(value: object) -> int:
    """Bytes of all tensors below an object."""
    if isinstance(value, torch.Tensor):
        return value.nbytes
    names: tuple[str, ...] = getattr(value, "__slots__", ()) or tuple(getattr(value, "__dict__", ()))
    return sum(_bytes(getattr(value, name)) for name in names)


@pytest.mark.skipif(interpreting() or not int8_works(), reason="no int8 product of oneDNN")
def test_int8_products_equal_the_formula() -> None:
    weight, x = torch.randn(48, 80), torch.randn(7, 80)
    x[3] *= 1000  # one row's outlier costs no other row precision
    bias = torch.randn(48)
    scales = weight.abs().amax(1) / 127
    near = torch.round(weight / scales[:, None]) * scales[:, None]
    steps = x.abs().amax(1, keepdim=True) / 127
    expected = (torch.round(x / steps) * steps).double() @ near.t().double() + bias
    assert off(Int8Linear(weight, bias)(x).double(), expected) < 1e-6
    residual = torch.randn(7, 48)
    assert off(Int8Linear(weight, bias).plus(x, residual).double(), expected + residual) < 1e-6
    both = Int8Gated(weight, weight, torch.cat((bias, bias)), "silu")(x)
    assert off(both.double(), torch.nn.functional.silu(expected) * expected) < 1e-5
    assert off(Int8Linear(weight)(x[:1]), DenseLinear(weight)(x[:1])) < 0.02


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.skipif(triton is None or interpreting(), reason="starts the interpreter from outside it")
def test_codes_in_the_interpreter() -> None:
    scalar = "ignore:Conversion of an array with ndim:DeprecationWarning"  # the interpreter's own, at run-time loops
    run = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", scalar, __file__, "-k", "codes"],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stdout[-4000:] + run.stderr[-2000:]
    assert "6 passed" in run.stdout
