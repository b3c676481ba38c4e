"""A test here runs on the CPU path, on a CUDA device (mark gpu) and, from test_interpreter.py, in the interpreter."""

from collections.abc import Iterator

import pytest
import torch

from dql.kernels.language import interpreting


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The interpreter is slow: there, every case runs in fp32, and of the 16-bit cases every fifth."""
    if not interpreting():
        return
    half = [item for item in items if "fp16" in item.name or "bf16" in item.name]
    dropped = set(half) - set(half[::5])
    items[:] = [item for item in items if item not in dropped]
    config.hook.pytest_deselected(items=list(dropped))


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> str:
    name = str(request.param)
    if name == "cuda" and not torch.cuda.is_available():
        pytest.skip("no CUDA device")
    return name


@pytest.fixture(params=[torch.float32, torch.float16, torch.bfloat16], ids=["fp32", "fp16", "bf16"])
def dtype(request: pytest.FixtureRequest) -> torch.dtype:
    found = request.param
    assert isinstance(found, torch.dtype)
    return found


@pytest.fixture
def product_dtype(device: str, dtype: torch.dtype) -> torch.dtype:
    """The types that the large kernels take: on CUDA the 16-bit ones only."""
    if device == "cuda" and dtype == torch.float32:
        pytest.skip("16-bit on CUDA")
    return dtype


@pytest.fixture(autouse=True)
def poisoned_memory() -> Iterator[None]:
    """Fresh tensors hold NaN, so that an output element nobody wrote cannot pass."""
    if torch.cuda.is_available():  # there, the mode would also refuse ops that have no deterministic CUDA kernel
        yield
        return
    torch.set_deterministic_debug_mode("error")
    yield
    torch.set_deterministic_debug_mode("default")


@pytest.fixture
def random(device: str) -> torch.Generator:
    """Fresh inputs on every run; pytest prints the seed of a failing one."""
    generator = torch.Generator(device="cpu")
    print("seed", generator.seed())
    return generator
