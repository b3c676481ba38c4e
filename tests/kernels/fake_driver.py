"""A stand-in for a Hopper GPU: Triton compiles every launch to a real sm_90 cubin, and nothing runs.

With it the product's own launchers are driven on shapes of full size (fake tensors hold no memory), so what is proved
to compile is what would be launched, argument for argument.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import triton  # type: ignore[import-untyped]
from torch._subclasses.fake_tensor import FakeTensorMode
from triton.backends.compiler import GPUTarget  # type: ignore[import-untyped]

SHARED_LIMIT = 227 * 1024  # bytes a Hopper block may use
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


@dataclass(frozen=True, slots=True)
class Compiled:
    """What one launch compiled to: registers a thread, bytes of local memory (spills) and of shared memory, PTX."""

    kernel: str
    registers: int
    local_bytes: int
    shared_bytes: int
    warps: int
    ptx: str
    constants: tuple[tuple[str, object], ...]

    @property
    def uses_wgmma(self) -> bool:
        return "wgmma.mma_async" in self.ptx


@dataclass
class FakeDriver:
    """The part of Triton's driver interface that compiling and launching touch, for one Hopper device."""

    launched: list[Compiled] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.utils = SimpleNamespace(
            get_device_properties=lambda device: {"multiprocessor_count": 132, "max_shared_mem": 1 << 30},
            load_binary=lambda name, kernel, shared, device: (0, 0, 0, 0, 1024),
        )

    def get_current_target(self) -> Any:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return 0

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        return lambda *arguments: None


def _resources(cubin: bytes) -> tuple[int, int]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        text = subprocess.run([CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", text)
    assert found, text
    return int(found[1]), int(found[2]) + int(found[3])


@contextmanager
def hopper() -> Iterator[list[Compiled]]:
    """Inside, CUDA tensors are fake, launches compile for sm_90; the list fills with what was compiled."""
    driver = FakeDriver()
    seen: set[str] = set()

    def listen(*, src: Any, metadata: Any, metadata_group: Any, times: Any, cache_hit: bool) -> None:
        del times, cache_hit
        cubin = next(Path(path) for name, path in metadata_group.items() if name.endswith(".cubin"))
        ptx = next(Path(path) for name, path in metadata_group.items() if name.endswith(".ptx"))
        key = str(cubin)
        if key in seen:
            return
        seen.add(key)
        registers, local = _resources(cubin.read_bytes())
        names = src.fn.arg_names
        constants = tuple((names[path[0]], value) for path, value in src.constants.items() if len(path) == 1)
        driver.launched.append(
            Compiled(
                src.fn.fn.__qualname__,
                registers,
                local,
                metadata["shared"],
                metadata["num_warps"],
                ptx.read_text(),
                constants,
            )
        )

    previous = triton.runtime.driver._active
    triton.runtime.driver.set_active(driver)
    triton.knobs.compilation.listener = listen
    try:
        with FakeTensorMode(), warnings.catch_warnings():
            warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
            yield driver.launched
    finally:
        triton.knobs.compilation.listener = None
        triton.runtime.driver._active = previous
