"""The table of docs/kernels.md: what every shipped configuration compiles to for Hopper.

python -m tests.kernels.resources
"""

from dql.kernels.configs import CONFIGS
from tests.kernels.fake_driver import Compiled, hopper
from tests.kernels.launches import LAUNCHES

KERNELS = {"join_splits": ".join", "sample_finish": ".finish", "rms_norm": "rms_norm"}  # rows without block sizes


def extent(values: list[int]) -> str:
    low, high = min(values), max(values)
    return str(low) if low == high else f"{low}–{high}"


def row(op: str, shape_class: str, compiled: list[Compiled]) -> str:
    config = CONFIGS[op, shape_class, 90]
    blocks = " ".join(f"{name.removeprefix('BLOCK_').lower()}={size}" for name, size in config.blocks.items())
    name = KERNELS.get(op, "")
    mine = [
        kernel for kernel in compiled if name in kernel.kernel and config.blocks.items() <= kernel.constants.items()
    ]
    products = {"wgmma" if kernel.uses_wgmma else "mma" for kernel in mine if kernel.uses_tensor_cores}
    return (
        f"| {op} | {shape_class} | {blocks} | {config.num_warps} | {config.num_stages} | {len(mine)} "
        f"| {extent([kernel.registers for kernel in mine])} | {max(kernel.local_bytes for kernel in mine)} "
        f"| {extent([kernel.shared_bytes // 1024 for kernel in mine])} | {', '.join(sorted(products)) or '–'} |"
    )


def main() -> None:
    print(
        "| op | shape class | blocks | warps | stages | variants | registers | spilled bytes | shared KiB | products |"
    )
    print("|---|---|---|---|---|---|---|---|---|---|")
    for op, shape_class in sorted(LAUNCHES):
        with hopper() as compiled:
            LAUNCHES[op, shape_class]()
        print(row(op, shape_class, compiled))


if __name__ == "__main__":
    main()
