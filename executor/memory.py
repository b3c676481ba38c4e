"""What a loaded model takes of the machine's memory, reckoned before anything is read."""

import ctypes
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from dql.errors import ConfigError, OutOfMemoryError
from dql.executor.options import EngineOptions
from dql.models.shape import ModelShape
from dql.planner.hardware import BYTES_PER_VALUE, Kind, cpu_precisions
from dql.planner.memory import end_bytes, matrix_bytes

_CGROUP = Path("/sys/fs/cgroup")
# of what the weights leave free, for keys and values where no budget is given; a GPU is nobody else's
_KV_SHARE: Mapping[Kind, float] = {"cpu": 0.25, "cuda": 0.9}
_FLOAT = 4
_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3  # as glibc's malloc.h numbers its settings


@dataclass(frozen=True, slots=True)
class MemoryPlan:
    """Bytes of weights, of keys and values, and of one step's activations; and what is free."""

    weights: int
    kv: int
    activations: int
    free: int
    slots: int  # tokens whose keys and values fit
    step_tokens: int  # tokens of the step that `activations` are for

    def check(self) -> None:
        """Raises OutOfMemoryError, with the sum and what to lower, where the model does not fit."""
        need = self.weights + self.kv + self.activations
        if need > self.free:
            parts = f"weights {_mib(self.weights)}, KV cache {_mib(self.kv)}, activations {_mib(self.activations)}"
            raise OutOfMemoryError(
                f"the model does not fit: {parts}, together {_mib(need)}, and {_mib(self.free)} are free",
                hint=self._hint(),
            )

    def _hint(self) -> str:
        """The first of the three parts that does not fit beside those before it, and how far to lower it."""
        beside_weights = self.free - self.weights
        if beside_weights <= 0:
            return "the weights alone do not fit: use a smaller model, or fewer bits a weight (quantization = 'bf16')"
        if beside_weights <= self.activations:
            most = beside_weights * self.step_tokens // self.activations
            return f"lower the tokens of a step from {self.step_tokens} to below {most}, or use a smaller model"
        most = beside_weights - self.activations
        return f"lower the KV cache to at most {_mib(most)}: fewer rows at once (batch_size), a smaller context_length"


def plan_memory(shape: ModelShape, options: EngineOptions, free: int) -> MemoryPlan:
    """The memory of a model with `free` bytes at hand. Raises ConfigError for a KV budget below one token."""
    kind: Kind = "cpu" if options.device == "cpu" else "cuda"
    bf16 = "bf16" in cpu_precisions()
    matrices = matrix_bytes(shape, options.weights, kind, bf16=bf16)
    weights = int(matrices + end_bytes(shape, options.weights, kind, bf16=bf16))
    width = 4 * shape.hidden_size + 2 * shape.intermediate_size + 3 * shape.query_size
    activations = options.step_tokens * width * _FLOAT
    if not shape.causal:
        return MemoryPlan(weights, 0, activations, free, 0, options.step_tokens)
    scales = 4 / shape.head_dim if options.kv_cache == "fp8" else 0  # one a slot and head
    per_token = int(shape.kv_bytes_per_token(BYTES_PER_VALUE[options.kv_cache] + scales))
    kv = options.kv_bytes
    if kv is None:
        enough = options.max_rows * options.context_of(shape) * per_token
        kv = max(per_token, min(int((free - weights - activations) * _KV_SHARE[kind] * options.kv_share), enough))
    if kv < per_token:
        raise ConfigError(f"{kv} bytes of KV cache hold not one token of {per_token} bytes")
    return MemoryPlan(weights, kv, activations, free, kv // per_token, options.step_tokens)


def available_memory() -> int:
    """Bytes that can be allocated without swapping, the container's limit counted in; all memory where unknown."""
    free = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    meminfo = Path("/proc/meminfo")
    if meminfo.exists():
        fields = dict(line.split(":", 1) for line in meminfo.read_text().splitlines() if ":" in line)
        free = min(free, int(fields.get("MemAvailable", f"{free // 1024} kB").split()[0]) * 1024)
    limit, used, stat = (_CGROUP / name for name in ("memory.max", "memory.current", "memory.stat"))
    if limit.exists() and used.exists() and (text := limit.read_text().strip()).isdigit():
        lines = (line.split() for line in stat.read_text().splitlines()) if stat.exists() else ()
        reclaimable = sum(int(value) for name, value in lines if name == "inactive_file")
        free = min(free, max(0, int(text) - int(used.read_text()) + reclaimable))
    return free


def keep_freed_memory() -> None:
    """Let glibc keep up to 256 MiB of freed memory for the next allocation instead of handing it back at once.

    A step allocates and frees some megabytes a layer. Handed back, they come anew page by page, each cleared by the
    kernel: 7 % of a classification. Elsewhere than with glibc this does nothing.
    """
    if sys.platform != "linux":
        return
    libc = ctypes.CDLL(None)
    if hasattr(libc, "mallopt"):
        libc.mallopt(_TRIM_THRESHOLD, 256 << 20)
        libc.mallopt(_MMAP_THRESHOLD, 32 << 20)  # the most that it takes


def give_back_freed_memory() -> None:
    """Hand what was freed, and lies between what is held, back to the system; elsewhere than with glibc a no-op.

    To load a model takes copies of its matrices, on threads whose freed memory no other thread is given: 45 MB for
    135 million weights.
    """
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def _mib(count: int) -> str:
    return f"{count / (1 << 20):,.0f} MiB"
