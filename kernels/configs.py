"""The table of tuned launch configurations: (op, shape class, architecture) → blocks, warps, stages.

Nothing autotunes at run time: a row is measured once (benchmarks/kernels.py) and committed. Architecture is the CUDA
compute capability times ten, 90 for Hopper; 0 is Triton's interpreter, whose small blocks make the tests' tiny shapes
cross every tile boundary. A newer architecture uses the newest row that is not newer than itself.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

from dql.kernels.language import interpreting, power_of_two, triton


@dataclass(frozen=True, slots=True)
class Config:
    """One launch configuration; `blocks` are the kernel's compile-time block sizes by parameter name."""

    blocks: Mapping[str, int] = field(default_factory=dict)
    num_warps: int = 4
    num_stages: int = 2

    def options(self) -> dict[str, int]:
        """The keyword arguments of a launch."""
        return {**self.blocks, "num_warps": self.num_warps, "num_stages": self.num_stages}


def _rows(op: str, architecture: int, configs: Mapping[str, Config]) -> dict[tuple[str, str, int], Config]:
    return {(op, shape_class, architecture): config for shape_class, config in configs.items()}


HEADS = tuple(f"d{head_dim}{kind}" for head_dim in (64, 128, 256) for kind in ("", " fp8"))

CONFIGS: Mapping[tuple[str, str, int], Config] = {
    **_rows("rms_norm", 0, {"narrow": Config(), "wide": Config()}),
    **_rows("rms_norm", 90, {"narrow": Config(num_warps=4), "wide": Config(num_warps=8)}),
    **_rows("gated", 0, {"any": Config({"BLOCK": 16})}),
    **_rows("gated", 90, {"any": Config({"BLOCK": 1024})}),
    **_rows("gated_quantized", 0, {"any": Config({"BLOCK": 16})}),
    **_rows("gated_quantized", 90, {"any": Config({"BLOCK": 4096}, num_warps=8)}),
    **_rows("quantize_rows", 0, {"any": Config({"BLOCK": 16})}),
    **_rows("quantize_rows", 90, {"any": Config({"BLOCK": 4096}, num_warps=8)}),
    **_rows("scale_sums", 0, {"any": Config({"BLOCK": 16})}),
    **_rows("scale_sums", 90, {"any": Config({"BLOCK": 1024})}),
    **_rows("merge_states", 0, {"any": Config({"BLOCK": 4})}),
    **_rows("merge_states", 90, {"any": Config({"BLOCK": 16})}),
    **_rows("rope", 0, {"any": Config({"HEADS": 4})}),
    **_rows("rope", 90, {"any": Config({"HEADS": 8}, num_warps=2)}),
    **_rows(
        "attention",
        0,
        {f"{length} {head}": Config({"BLOCK_M": 16, "BLOCK_N": 16}) for length in ("short", "long") for head in HEADS},
    ),
    **_rows(
        "attention",
        90,
        {
            "short d64": Config({"BLOCK_M": 64, "BLOCK_N": 64}, num_warps=4, num_stages=3),
            "short d128": Config({"BLOCK_M": 64, "BLOCK_N": 64}, num_warps=4, num_stages=3),
            "short d256": Config({"BLOCK_M": 64, "BLOCK_N": 32}, num_warps=8, num_stages=2),
            "long d64": Config({"BLOCK_M": 128, "BLOCK_N": 64}, num_warps=8, num_stages=3),
            "long d128": Config({"BLOCK_M": 128, "BLOCK_N": 64}, num_warps=8, num_stages=3),
            "long d256": Config({"BLOCK_M": 128, "BLOCK_N": 32}, num_warps=8, num_stages=2),
            "short d64 fp8": Config({"BLOCK_M": 64, "BLOCK_N": 32}, num_warps=4, num_stages=3),
            "short d128 fp8": Config({"BLOCK_M": 64, "BLOCK_N": 32}, num_warps=4, num_stages=3),
            "short d256 fp8": Config({"BLOCK_M": 64, "BLOCK_N": 32}, num_warps=8, num_stages=2),
            "long d64 fp8": Config({"BLOCK_M": 128, "BLOCK_N": 64}, num_warps=8, num_stages=3),
            "long d128 fp8": Config({"BLOCK_M": 128, "BLOCK_N": 32}, num_warps=8, num_stages=3),
            "long d256 fp8": Config({"BLOCK_M": 64, "BLOCK_N": 32}, num_warps=8, num_stages=2),
        },
    ),
    **_rows(
        "decode_attention",
        0,
        {head + keys: Config({"BLOCK_N": 16}) for head in HEADS for keys in ("", " dense")},
    ),
    **_rows(
        "decode_attention",
        90,
        {
            # the key's address waits for its slot: five stages give the keys and values two buffers
            "d64": Config({"BLOCK_N": 128}, num_warps=4, num_stages=5),
            "d128": Config({"BLOCK_N": 64}, num_warps=4, num_stages=5),
            "d256": Config({"BLOCK_N": 32}, num_warps=4, num_stages=5),
            "d64 fp8": Config({"BLOCK_N": 128}, num_warps=4, num_stages=5),
            "d128 fp8": Config({"BLOCK_N": 64}, num_warps=4, num_stages=5),
            "d256 fp8": Config({"BLOCK_N": 32}, num_warps=4, num_stages=5),
            # a dense run's addresses wait for nothing, and three stages give as many buffers
            "d64 dense": Config({"BLOCK_N": 128}, num_warps=4, num_stages=3),
            "d128 dense": Config({"BLOCK_N": 64}, num_warps=4, num_stages=3),
            "d256 dense": Config({"BLOCK_N": 32}, num_warps=4, num_stages=3),
            "d64 fp8 dense": Config({"BLOCK_N": 128}, num_warps=4, num_stages=3),
            "d128 fp8 dense": Config({"BLOCK_N": 64}, num_warps=4, num_stages=3),
            "d256 fp8 dense": Config({"BLOCK_N": 32}, num_warps=4, num_stages=3),
        },
    ),
    **_rows("sample", 0, {"any": Config({"BLOCK": 32})}),
    **_rows("sample", 90, {"any": Config({"BLOCK": 1024})}),
    **_rows("sample_threshold", 0, {"any": Config({"BLOCK": 64})}),
    **_rows("sample_threshold", 90, {"any": Config({"BLOCK": 2048}, num_warps=8)}),
    **_rows("sample_finish", 0, {"any": Config()}),
    **_rows("sample_finish", 90, {"any": Config(num_warps=1)}),
    **_rows(
        "vocabulary_logsumexp",
        0,
        {
            "few": Config({"BLOCK_M": 16, "BLOCK_N": 32, "BLOCK_K": 16}),
            "many": Config({"BLOCK_M": 16, "BLOCK_N": 32, "BLOCK_K": 32}),
        },
    ),
    **_rows(
        "vocabulary_logsumexp",
        90,
        {
            "few": Config({"BLOCK_M": 32, "BLOCK_N": 128, "BLOCK_K": 128}, num_warps=4, num_stages=4),
            "many": Config({"BLOCK_M": 128, "BLOCK_N": 256, "BLOCK_K": 64}, num_warps=8, num_stages=4),
        },
    ),
    **_rows("join_logsumexp", 0, {"any": Config({"BLOCK": 4, "BLOCK_C": 2})}),
    **_rows("join_logsumexp", 90, {"any": Config({"BLOCK": 32, "BLOCK_C": 64})}),
    **_rows("pool", 0, {"any": Config({"TOKENS": 2})}),
    **_rows("pool", 90, {"any": Config({"TOKENS": 4}, num_warps=8)}),
    **_rows(
        "eight_bit_linear",
        0,
        {kind: Config({"BLOCK_N": 16, "BLOCK_K": 32}) for kind in ("fp8", "int8", "w8a16")},
    ),
    **_rows(
        "eight_bit_linear",
        90,
        {
            "fp8": Config({"BLOCK_N": 64, "BLOCK_K": 256}, num_warps=4, num_stages=4),
            "int8": Config({"BLOCK_N": 64, "BLOCK_K": 256}, num_warps=4, num_stages=4),
            "w8a16": Config({"BLOCK_N": 64, "BLOCK_K": 128}, num_warps=4, num_stages=4),
        },
    ),
    **_rows("int4_linear", 0, {f"{rows} rows": Config({"BLOCK_N": 16}) for rows in (16, 32, 64)}),
    **_rows(
        "int4_linear",
        90,
        {
            "16 rows": Config({"BLOCK_N": 128}, num_warps=4, num_stages=4),
            "32 rows": Config({"BLOCK_N": 128}, num_warps=4, num_stages=4),
            "64 rows": Config({"BLOCK_N": 128}, num_warps=8, num_stages=4),
        },
    ),
    **_rows("join_parts", 0, {"any": Config({"BLOCK": 32})}),
    **_rows("join_parts", 90, {"any": Config({"BLOCK": 512})}),
    **_rows("lora_shrink", 0, {"any": Config({"BLOCK_M": 16, "BLOCK_K": 16})}),
    **_rows("lora_shrink", 90, {"any": Config({"BLOCK_M": 32, "BLOCK_K": 128}, num_warps=4, num_stages=3)}),
    **_rows("lora_expand", 0, {"any": Config({"BLOCK_M": 16, "BLOCK_N": 16})}),
    **_rows("lora_expand", 90, {"any": Config({"BLOCK_M": 32, "BLOCK_N": 128}, num_warps=4, num_stages=2)}),
    **_rows("join_splits", 0, {"any": Config()}),
    **_rows("join_splits", 90, {"any": Config(num_warps=4)}),
}


def architecture() -> int:
    """Compute capability × 10 of the active device, or 0 under Triton's interpreter."""
    return 0 if interpreting() else _active()[0]


def processors() -> int:
    """Streaming multiprocessors of the active device; 4 under Triton's interpreter."""
    return 4 if interpreting() else _active()[1]


def _active() -> tuple[int, int]:
    driver = triton.runtime.driver.active
    return _figures(driver, driver.get_current_device())


@cache  # asked for with every launch, and the driver takes microseconds to say
def _figures(driver: Any, device: int) -> tuple[int, int]:
    """Compute capability × 10 and multiprocessors of a device, which is the active one."""
    properties = driver.utils.get_device_properties(device)
    return int(driver.get_current_target().arch), int(properties["multiprocessor_count"])


def head_class(head_dim: int, quantised: bool) -> str:
    """The attention kernels' shape class of a head: its dimension rounded up, and whether the cache is fp8."""
    return f"d{max(64, power_of_two(head_dim))}{' fp8' if quantised else ''}"


def choose(op: str, shape_class: str) -> Config:
    """The row for this op and shape class on the active device; raises LookupError where the device is too old."""
    found = _best(op, shape_class, present := architecture())
    if found is None:
        raise LookupError(f"no configuration of {op} ({shape_class}) for compute capability {present / 10}")
    return found


@cache  # asked for with every launch
def _best(op: str, shape_class: str, present: int) -> Config | None:
    """The newest row that is not newer than `present`; the interpreter's own for the interpreter."""
    rows = [key[2] for key in CONFIGS if key[:2] == (op, shape_class) and (0 < key[2] <= present or key[2] == present)]
    return CONFIGS[op, shape_class, max(rows)] if rows else None
