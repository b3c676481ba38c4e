"""What the memory-bound kernels cost a Hopper GPU in instructions, from the compiled code, beside their bytes.

    python -m tests.kernels.issue_slots

A processor issues four warp instructions a clock. A kernel whose instructions take longer to issue than its bytes take
to arrive cannot be bound by memory, whatever its configuration: this bound needs no GPU to be computed.
"""

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import prod

import torch

from dql.kernels.decode_attention import decode_attention
from dql.kernels.eight_bit_linear import quantized_linear, weight_only_linear
from dql.kernels.int4_linear import int4_linear
from dql.kernels.quantize import Int4Weight
from tests.kernels.fake_driver import Compiled, hopper, tool
from tests.kernels.launches import FP8, cache, codes, floats, halves, integers

ISSUED_PER_SECOND = 132 * 4 * 1.755e9  # warp instructions: processors, schedulers, boost clock of an H100 SXM
BYTES_PER_SECOND = 3.35e12
OUTPUTS, INPUTS, ROWS, LENGTH = 4096, 12288, 128, 1024


@dataclass(frozen=True, slots=True)
class Case:
    """steps: how many of the loop's turns all warps of all programs make together, for the compiled configuration."""

    name: str
    launch: Callable[[], object]
    bytes: int
    steps: Callable[[Compiled], float]


def loop_instructions(kernel: Compiled) -> int:
    """Instructions of the innermost loop with the most: from a backward branch's target to the branch."""
    lines = tool("nvdisasm", "-c", kernel.cubin).splitlines()
    labels = {found[1]: at for at, line in enumerate(lines) if (found := re.match(r"\s*(\.L_\w+):", line))}
    spans = []
    for at, line in enumerate(lines):
        branch = re.search(r"BRA\S*\s.*?(\.L_\w+)", line)
        if branch and labels[branch[1]] < at:
            spans.append((labels[branch[1]], at))
    innermost = [s for s in spans if not any(s[0] <= o[0] and o[1] <= s[1] and o != s for o in spans)]
    counts = [sum(bool(re.match(r"\s*/\*[0-9a-f]{4,}\*/", line)) for line in lines[a : b + 1]) for a, b in innermost]
    return max(counts)


def linear(kind: str, rows: int) -> object:
    if kind == "int4":
        groups = INPUTS // 128
        packed = Int4Weight(integers(groups, OUTPUTS, 16), floats(groups, OUTPUTS), floats(groups, OUTPUTS))
        return int4_linear(halves(rows, INPUTS), packed)
    dtype = FP8 if kind == "fp8" else torch.int8
    weight, scales = codes(OUTPUTS, INPUTS, dtype=dtype), floats(OUTPUTS)
    if kind == "w8a16":
        return weight_only_linear(halves(rows, INPUTS), weight, scales)
    return quantized_linear(codes(rows, INPUTS, dtype=dtype), floats(rows), weight, scales, torch.bfloat16)


def decode(quantised: bool) -> object:
    table, lengths = integers(ROWS, LENGTH), integers(ROWS)
    return decode_attention(
        halves(ROWS, 32, 128), cache(128, quantised), table, lengths, max_length=LENGTH, scale=0.1
    )  # fmt: skip


def block(kernel: Compiled, name: str, default: int) -> int:
    value = kernel.constants.get(name, default)
    assert isinstance(value, int)
    return value


def linear_steps(kernel: Compiled) -> float:
    return prod((OUTPUTS, INPUTS, kernel.warps)) / block(kernel, "BLOCK_N", 1) / block(kernel, "BLOCK_K", 128)


def decode_steps(kernel: Compiled) -> float:
    return ROWS * 8 * LENGTH * kernel.warps / block(kernel, "BLOCK_N", 1)


def cases() -> list[Case]:
    stored = {"fp8": 1.0, "int8": 1.0, "w8a16": 1.0, "int4": 0.5625}
    found = [
        Case(f"linear {kind}, {rows} rows", partial(linear, kind, rows), int(OUTPUTS * INPUTS * size), linear_steps)
        for kind, size in stored.items()
        for rows in (16, 64)
    ]
    for name, quantised, per_head in (("bf16", False, 256), ("fp8", True, 132)):
        moved = 2 * ROWS * LENGTH * 8 * per_head
        found.append(
            Case(f"decode attention {name}, 128 × 1,024 keys", partial(decode, quantised), moved, decode_steps)
        )
    return found


def main() -> None:
    print("| kernel | instructions a loop turn | µs to issue them all | µs to read the bytes at 3.35 TB/s |")
    print("|---|---|---|---|")
    for case in cases():
        with hopper() as compiled:
            case.launch()
        kernel = compiled[0]
        turn = loop_instructions(kernel)
        issue, read = turn * case.steps(kernel) / ISSUED_PER_SECOND, case.bytes / BYTES_PER_SECOND
        print(f"| {case.name} | {turn} | {issue * 1e6:.1f} | {read * 1e6:.1f} |")


if __name__ == "__main__":
    main()
