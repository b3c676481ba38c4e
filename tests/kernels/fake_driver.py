"""A stand-in for a Hopper GPU: Triton compiles every launch to a real sm_90 cubin, and nothing runs.

With it the product's own launchers are driven at full size (fake tensors hold no memory), so what is proved to compile
is what would be launched, argument for argument.
"""

import re
import subprocess
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from torch._subclasses.fake_tensor import FakeTensorMode

from dql.kernels.language import triton

SHARED_LIMIT = 227 * 1024  # bytes a Hopper block may use


@dataclass(frozen=True, slots=True)
class Compiled:
    """What one launch compiled to: registers a thread, bytes of local memory (spills) and of shared memory, PTX."""

    kernel: str
    constants: dict[str, object]
    registers: int
    local_bytes: int
    shared_bytes: int
    warps: int
    ptx: str
    cubin: Path

    @property
    def uses_wgmma(self) -> bool:
        return "wgmma.mma_async" in self.ptx

    @property
    def uses_tensor_cores(self) -> bool:
        return self.uses_wgmma or "mma.sync" in self.ptx


class FakeDriver:
    """The part of Triton's driver interface that compiling and launching touch, for one H100."""

    utils = SimpleNamespace(
        get_device_properties=lambda device: {"multiprocessor_count": 132, "max_shared_mem": 1 << 30},
        load_binary=lambda name, kernel, shared, device: (0, 0, 0, 0, 1024),
    )

    def get_current_target(self) -> Any:
        return triton.backends.compiler.GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return device

    def launcher_cls(self, source: Any, metadata: Any) -> Any:
        return lambda *arguments: None


def tool(name: str, *arguments: str | Path) -> str:
    """What one of the CUDA binary tools that Triton ships prints."""
    path = Path(triton.__file__).parent / "backends/nvidia/bin" / name
    return subprocess.run([path, *arguments], capture_output=True, text=True, check=True).stdout


def _compiled(src: Any, metadata: dict[str, Any], files: dict[str, str]) -> Compiled:
    paths = {Path(path).suffix: Path(path) for path in files.values()}
    text = tool("cuobjdump", "-res-usage", paths[".cubin"])
    found = re.search(r"REG:(\d+) STACK:(\d+) SHARED:\d+ LOCAL:(\d+)", text)
    assert found, text
    return Compiled(
        f"{src.fn.module.rpartition('.')[2]}.{src.fn.fn.__name__.removeprefix('_')}",
        {src.fn.arg_names[path[0]]: value for path, value in src.constants.items()},
        int(found[1]),
        int(found[2]) + int(found[3]),
        metadata["shared"],
        metadata["num_warps"],
        paths[".ptx"].read_text(),
        paths[".cubin"],
    )


def _forget_compiled_kernels() -> None:
    """What one driver compiled must not be launched by another."""
    for name in [name for name in sys.modules if name.startswith("dql.kernels")]:
        for value in vars(sys.modules[name]).values():
            if isinstance(value, triton.runtime.JITFunction):
                value.device_caches.clear()


@contextmanager
def hopper() -> Iterator[list[Compiled]]:
    """Inside, CUDA tensors are fake and launches compile for sm_90; the list fills with what was compiled."""
    launched: list[Compiled] = []

    def listen(*, src: Any, metadata: dict[str, Any], metadata_group: dict[str, str], **_: Any) -> None:
        launched.append(_compiled(src, metadata, metadata_group))

    drivers, compilation = triton.runtime.driver, triton.knobs.compilation
    previous = drivers._active
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Accessing the data pointer of FakeTensor")
        _forget_compiled_kernels()
        drivers.set_active(FakeDriver())
        compilation.listener = listen
        try:
            with FakeTensorMode():
                yield launched
        finally:
            compilation.listener = None
            drivers._active = previous
            _forget_compiled_kernels()
