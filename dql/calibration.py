"""`dql calibrate`: measures this machine for the planner, and says what was found."""

import sys

from dql.estimate import Surroundings
from dql.planner.units import bytes_text


def run(session: Surroundings, name: str) -> int:
    """Measure at the shapes of the model `name`, which is fetched if need be; returns the exit code."""
    if not session.registry.installed(name):
        print(f"fetching {name}", file=sys.stderr)
        session.registry.pull(name)
    shape = session.registry.resolve(name).shape
    hardware = session.machine.measure(session.runtime, [shape], thorough=True, progress=_show)
    print("\r\x1b[K" if sys.stderr.isatty() else "", end="", file=sys.stderr)
    print(f"{hardware}: {hardware.notes}")
    print(f"  memory     {bytes_text(hardware.memory)}, read at {hardware.bandwidth / 1e9:.1f} GB/s")
    print(f"  products   {hardware.peak['fp32'] / 1e9:,.0f} GFLOP/s in fp32 at the shapes of {name}")
    print(f"  each step  {hardware.step_seconds * 1e3:.2f} ms beside its arithmetic")
    if session.machine.path.is_file():
        print(f"  kept in    {session.machine.path}")
    if (used := session.machine.hardware()).kind != "cpu":
        print(f"{used}: not measured; plans rest on {used.notes}")
    return 0


def _show(label: str, share: float) -> None:
    if sys.stderr.isatty():
        print(f"\r\x1b[K{share:4.0%} {label}", end="", file=sys.stderr, flush=True)
    else:
        print(f"{share:4.0%} {label}", file=sys.stderr)
