"""`dql calibrate`: measures this machine for the planner, and says what was found."""

import sys
from pathlib import Path

from dql.estimate import Surroundings
from dql.planner.hardware import Hardware, Kind
from dql.planner.units import bytes_text


def run(session: Surroundings, name: str) -> int:
    """Measure at the shapes of the model `name`, which is fetched if need be; returns the exit code."""
    if not session.registry.installed(name):
        print(f"fetching {name}", file=sys.stderr)
        session.registry.pull(name)
    shape = session.registry.resolve(name).shape
    machine = session.machine
    kinds: list[Kind] = ["cpu"] if machine.gpu() is None or shape.generic or not shape.causal else ["cpu", "cuda"]
    for kind in kinds:
        hardware = machine.measure(session.runtime, [shape], kind=kind, thorough=True, progress=_show)
        print("\r\x1b[K" if sys.stderr.isatty() else "", end="", file=sys.stderr)
        _report(hardware, name, machine.path if kind == "cpu" else machine.gpu_path)
    return 0


def _report(hardware: Hardware, model: str, path: Path | None) -> None:
    precision = "fp32" if hardware.kind == "cpu" else "bf16"
    reached = float(max(share for _, share in hardware.operators[precision].linear.points))
    rate = hardware.peak[precision] * (1.0 if hardware.kind == "cpu" else reached)
    print(f"{hardware}: {hardware.notes}")
    print(f"  memory     {bytes_text(hardware.memory)}, read at {hardware.bandwidth / 1e9:.1f} GB/s")
    print(f"  products   {rate / 1e9:,.0f} GFLOP/s in {precision} at the shapes of {model}")
    print(f"  each step  {hardware.step_seconds * 1e3:.2f} ms beside its arithmetic")
    if hardware.kind != "cpu":
        launch = f"{hardware.launch_seconds * 1e6:.0f} µs to launch where prompts are read"
        print(f"  each layer {launch}; {hardware.overlap:.0%} of a step's launching is hidden behind its arithmetic")
    if path is not None and path.is_file():
        print(f"  kept in    {path}")


def _show(label: str, share: float) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{share:4.0%} {label}", end="", file=sys.stderr, flush=True)
    else:
        print(f"{share:4.0%} {label}", file=sys.stderr)
