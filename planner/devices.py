"""The GPUs of this machine, asked of CUDA's driver without torch, and what the planner makes of the first of them.

The driver library sees what torch sees: `CUDA_VISIBLE_DEVICES` hides devices from both, and orders them alike.
"""

import ctypes
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from importlib.util import find_spec
from pathlib import Path

from dql.models.shape import ModelShape
from dql.planner.contract import Contract
from dql.planner.hardware import Hardware, gpu_versions, hardware_named

_DRIVER = "libcuda.so.1"
_NAME_BYTES = 256
_MAJOR, _MINOR, _SHARED, _PROCESSORS, _CLOCK, _MEMORY_CLOCK, _MEMORY_BUS = (
    75,
    76,
    97,
    16,
    13,
    36,
    37,
)  # CUdevice_attribute
_CAPABILITY = (9, 0)  # the oldest that the kernels' configurations are written for
_SHARED_BYTES = 227 << 10  # of shared memory, which the largest configurations take
_WIDEST_HEAD = 256  # values of a head that the attention kernels hold
_USABLE = 0.92  # of a device's memory; the rest goes to CUDA's context, to the libraries and to fragments
_EXACT = {"NVIDIA H100 80GB HBM3": "h100", "NVIDIA H200": "h200"}
_LIKE, _LIKE_CYCLES = "h100", 132 * 1.98e9  # the profile that others are scaled from; its processors · clock


@dataclass(frozen=True, slots=True)
class Device:
    """One GPU. memory: bytes. shared: bytes that a kernel may take on one processor. clock: Hz, the highest.
    bandwidth: bytes per second by clock and bus; 0 where the driver does not say.
    """

    name: str
    capability: tuple[int, int]
    memory: int
    shared: int
    processors: int
    clock: float
    bandwidth: float

    @property
    def lacks(self) -> str | None:
        """Why dql's kernels do not run on it; None where they do."""
        if self.capability < _CAPABILITY:
            least = ".".join(map(str, _CAPABILITY))
            return (
                f"its compute capability is {self.capability[0]}.{self.capability[1]}, and dql's kernels need {least}"
            )
        if self.shared < _SHARED_BYTES:
            held, needed = self.shared >> 10, _SHARED_BYTES >> 10
            return f"its processors have {held} KiB of shared memory, and dql's kernels need {needed}"
        return None


def cuda_devices() -> tuple[Device, ...]:
    """The devices that the driver shows to this process; none where there is no driver, or it does not answer."""
    try:
        driver = ctypes.CDLL(_DRIVER)
        count = ctypes.c_int()
        if driver.cuInit(0) or driver.cuDeviceGetCount(ctypes.byref(count)):
            return ()
        return tuple(device for i in range(count.value) if (device := _device(driver, i)) is not None)
    except (OSError, AttributeError):  # no library, or one that lacks a function
        return ()


def torch_has_cuda() -> bool:
    """Whether the installed torch was built with CUDA and Triton stands beside it; neither is imported."""
    spec = find_spec("torch")
    if spec is None or spec.origin is None or find_spec("triton") is None:
        return False
    return (Path(spec.origin).parent / "lib" / "libtorch_cuda.so").exists()


def this_gpu(devices: Sequence[Device], threads: int) -> Hardware | None:
    """The first device as hardware to plan for; None where dql's kernels do not run on it.

    Speeds are a shipped profile's: the device's own, or the nearest one scaled by processors, clock and bandwidth.
    """
    if not devices or devices[0].lacks is not None:
        return None
    device, profile = devices[0], _EXACT.get(devices[0].name)
    like = hardware_named(profile or _LIKE)
    scale = 1.0 if profile else device.processors * device.clock / _LIKE_CYCLES
    figures = f"datasheet figures of {like.name}" + ("" if profile else ", scaled to this device")
    used = f"; 1 of {len(devices)} GPUs is used" if len(devices) > 1 else ""
    return replace(
        like,
        name=device.name,
        cores=threads,
        memory=device.memory * _USABLE,
        bandwidth=like.bandwidth if profile else device.bandwidth or like.bandwidth * min(1.0, scale),
        peak={precision: peak * scale for precision, peak in like.peak.items()},
        price=None,
        versions=gpu_versions(device.name),
        notes=figures + used,
    )


def off_gpu(shapes: Iterable[ModelShape], contract: Contract) -> str | None:
    """Why a query that asks models of these shapes runs on the CPU where a GPU is at hand; None where it need not."""
    for shape in shapes:
        if shape.generic:
            return f"models of family {shape.architecture!r} run on the CPU"
        if shape.head_dim > _WIDEST_HEAD:
            return f"heads of {shape.head_dim} values do not fit into its kernels"
    if contract.setting("deterministic"):
        return "deterministic = true runs on the CPU"
    for name in ("quantization", "kv_cache"):
        if contract.setting(name) == "fp32":
            return f"{name} = fp32 runs on the CPU"
    bound = contract.bound("quality")
    if bound is not None and bound.reference and bound.reference.lower() == "fp32":
        return "quality OF 'fp32' is measured on the CPU"
    return None


def _device(driver: ctypes.CDLL, index: int) -> Device | None:
    handle, memory, name = ctypes.c_int(), ctypes.c_size_t(), ctypes.create_string_buffer(_NAME_BYTES)
    failed = (
        driver.cuDeviceGet(ctypes.byref(handle), index)
        or driver.cuDeviceGetName(name, _NAME_BYTES, handle)
        or driver.cuDeviceTotalMem_v2(ctypes.byref(memory), handle)
    )
    if failed:
        return None

    def attribute(number: int) -> int:
        value = ctypes.c_int()
        return 0 if driver.cuDeviceGetAttribute(ctypes.byref(value), number, handle) else value.value

    return Device(
        name=name.value.decode(errors="replace"),
        capability=(attribute(_MAJOR), attribute(_MINOR)),
        memory=memory.value,
        shared=attribute(_SHARED),
        processors=attribute(_PROCESSORS),
        clock=attribute(_CLOCK) * 1e3,
        bandwidth=attribute(_MEMORY_CLOCK) * 1e3 * 2 * attribute(_MEMORY_BUS) / 8,  # both edges of the clock
    )
