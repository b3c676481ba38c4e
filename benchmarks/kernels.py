"""Each kernel's share of what the device can do, measured in the same run.

    python -m benchmarks.kernels [--only WORD] [--json]

Ceilings first: the rate of a device-to-device copy, and of large matrix products in bf16, fp8 and int8. Then every op:
median of CUDA-event times with the L2 cache flushed before each, its bytes and operations over that time, and the
larger of its two shares. `--json` also writes benchmarks/results/. Without a GPU it lists what it would run.
"""

import argparse
import json
import platform
import statistics
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import torch

from benchmarks.kernel_cases import Case, cases
from dql.kernels.language import triton
from dql.kernels.layout import FP8

REPEATS = 30
FLUSHED_BYTES = 256 << 20  # larger than any L2 cache
RESULTS = Path(__file__).parent / "results"


@dataclass(frozen=True, slots=True)
class Ceilings:
    """bandwidth: bytes a second of a copy, read and written; flops: operations a second by type of the product."""

    bandwidth: float
    flops: dict[str, float]


@dataclass(frozen=True, slots=True)
class Measured:
    """One case's median seconds and its shares of the ceilings."""

    op: str
    shape: str
    microseconds: float
    gigabytes_per_second: float
    teraflops: float
    bandwidth_share: float
    flops_share: float


def seconds(call: Callable[[], object], repeats: int = REPEATS) -> float:
    """Median device time of the call, its inputs out of the cache."""
    flush = torch.empty(FLUSHED_BYTES, dtype=torch.int8, device="cuda")
    for _ in range(3):
        call()
    times: list[float] = []
    begin, end = (torch.Event("cuda", enable_timing=True) for _ in range(2))
    for _ in range(repeats):
        flush.zero_()
        begin.record()
        call()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1e3)
    return statistics.median(times)


def graphed(call: Callable[[], object]) -> Callable[[], object]:
    """The call as a CUDA graph, so that a launch's host time is not measured: the engine decodes from graphs too."""
    call()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call()
    return graph.replay


def measure_ceilings() -> Ceilings:
    source = torch.empty(1 << 30, dtype=torch.int8, device="cuda")
    target = torch.empty_like(source)
    bandwidth = 2 * source.numel() / seconds(lambda: target.copy_(source))
    size = 8192
    a, b = (torch.randn(size, size, device="cuda").bfloat16() for _ in range(2))
    a8, b8 = a.to(FP8), b.to(FP8).t()
    one = torch.ones(size, device="cuda")
    ai, bi = (torch.randint(-127, 127, (size, size), device="cuda").to(torch.int8) for _ in range(2))
    products: dict[str, Callable[[], object]] = {
        "bf16": lambda: a @ b,
        "fp8": lambda: torch._scaled_mm(a8, b8, one[:, None], one[None], out_dtype=torch.bfloat16),
        "int8": lambda: torch._int_mm(ai, bi.t()),
    }
    return Ceilings(bandwidth, {kind: 2 * size**3 / seconds(call) for kind, call in products.items()})


def measure(case: Case, ceilings: Ceilings) -> Measured:
    took = seconds(graphed(case.prepare()))
    return Measured(
        case.op,
        case.shape,
        took * 1e6,
        case.bytes / took / 1e9,
        case.flops / took / 1e12,
        case.bytes / took / ceilings.bandwidth,
        case.flops / took / ceilings.flops[case.kind],
    )


def line(found: Measured) -> str:
    share = max(found.bandwidth_share, found.flops_share)
    bound = "bandwidth" if found.bandwidth_share >= found.flops_share else "products"
    return (
        f"{found.op:28} {found.shape:24} {found.microseconds:10.1f} {found.gigabytes_per_second:8.0f} "
        f"{found.teraflops:8.1f} {share:7.0%} of {bound}"
    )


def write(ceilings: Ceilings, rows: Iterable[Measured]) -> Path:
    """The report as JSON, named by date and device."""
    device = torch.cuda.get_device_name()
    path = RESULTS / f"{time.strftime('%Y-%m-%d')}-kernels-{device.replace(' ', '-').lower()}.json"
    path.parent.mkdir(exist_ok=True)
    report = {
        "device": device,
        "date": time.strftime("%Y-%m-%d"),
        "versions": {"python": platform.python_version(), "torch": torch.__version__, "triton": triton.__version__},
        "bandwidth": ceilings.bandwidth,
        "flops": ceilings.flops,
        "rows": [{name: getattr(row, name) for name in Measured.__slots__} for row in rows],
    }
    path.write_text(json.dumps(report, indent=1) + "\n")
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="", help="cases whose op contains this word")
    parser.add_argument("--json", action="store_true", help="write benchmarks/results/")
    options = parser.parse_args()
    chosen = [case for case in cases() if options.only in case.op]
    if not torch.cuda.is_available():
        print("No GPU here, so nothing was measured. With one, this would run:")
        for case in chosen:
            print(f"  {case.op:28} {case.shape:24} {case.bytes / 1e6:10.1f} MB {case.flops / 1e9:10.1f} GFLOP")
        return
    ceilings = measure_ceilings()
    rates = ", ".join(f"{kind} {rate / 1e12:.0f} TFLOP/s" for kind, rate in ceilings.flops.items())
    print(f"{torch.cuda.get_device_name()}: copy {ceilings.bandwidth / 1e9:.0f} GB/s, {rates}")
    print(f"{'op':28} {'shape':24} {'µs':>10} {'GB/s':>8} {'TFLOP/s':>8} {'share':>7}")
    rows = []
    for case in chosen:
        rows.append(measure(case, ceilings))
        print(line(rows[-1]), flush=True)
        torch.cuda.empty_cache()
    if options.json:
        print(f"written to {write(ceilings, rows)}")


if __name__ == "__main__":
    main()
