"""SHOW HARDWARE and SHOW RUNS as rows."""

from collections.abc import Iterator
from datetime import UTC, datetime

from dql.history import History
from dql.machine import Machine
from dql.planner.hardware import Hardware
from dql.planner.units import bytes_text

HARDWARE_COLUMNS = (
    ("name", "VARCHAR"),
    ("here", "BOOLEAN"),
    ("kind", "VARCHAR"),
    ("cores", "BIGINT"),
    ("memory", "VARCHAR"),
    ("bandwidth_gb_per_s", "DOUBLE"),
    ("peak_tflops", "VARCHAR"),
    ("usd_per_hour", "DOUBLE"),
    ("source", "VARCHAR"),
    ("notes", "VARCHAR"),
)
RUN_COLUMNS = (
    ("run", "BIGINT"),
    ("at", "VARCHAR"),
    ("model", "VARCHAR"),
    ("hardware", "VARCHAR"),
    ("rows", "BIGINT"),
    ("failed", "BIGINT"),
    ("predicted_seconds", "DOUBLE"),
    ("seconds", "DOUBLE"),
    ("bounds", "VARCHAR"),
    ("query", "VARCHAR"),
)
_QUERY = 120  # characters of a query shown


def hardware_rows(machine: Machine) -> list[tuple[object, ...]]:
    """This machine first, its GPU before its CPU, then the shipped profiles that EXPLAIN (ON …) takes."""
    used, cpu, stale = machine.hardware(), machine.cpu(), machine.stale()
    notes = cpu.notes if stale is None else f"{cpu.notes}; the stored profile is stale: {stale} (dql calibrate)"
    if used.kind == "cpu" and machine.devices:
        notes += f"; {machine.devices[0].name} is not used: {machine.devices[0].lacks}"
    old = machine.stale("cuda")
    gpu_notes = used.notes if old is None else f"{used.notes}; the stored profile is stale: {old} (dql calibrate)"
    gpu = [] if used.kind == "cpu" else [_hardware(used, True, gpu_notes)]
    return [*gpu, _hardware(cpu, True, notes), *(_hardware(h, False, h.notes) for h in machine.others())]


def _hardware(hardware: Hardware, here: bool, notes: str) -> tuple[object, ...]:
    flops = {precision: peak / 1e12 for precision, peak in hardware.peak.items()}
    peaks = ", ".join(f"{name} {peak:{',.0f' if peak >= 100 else '.3g'}}" for name, peak in flops.items())
    return (
        hardware.name,
        here,
        hardware.kind,
        hardware.cores,
        bytes_text(hardware.memory),
        round(hardware.bandwidth / 1e9, 1),
        peaks,
        hardware.price,
        hardware.source,
        notes,
    )


def run_rows(history: History) -> list[tuple[object, ...]]:
    """The newest runs first: predicted beside measured, and which bounds were kept."""
    return [
        (
            run.id,
            datetime.fromtimestamp(run.at, UTC).isoformat(sep=" ", timespec="seconds"),
            run.model,
            run.hardware,
            run.rows,
            run.failed,
            None if run.predicted is None else round(run.predicted, 3),
            round(run.seconds, 3),
            "; ".join(_bounds(run.bounds)),
            " ".join(run.query.split())[:_QUERY],
        )
        for run in history.runs()
    ]


def _bounds(bounds: object) -> Iterator[str]:
    assert isinstance(bounds, list)
    for name, _, _, kept in bounds:
        yield f"{name}: {'kept' if kept else 'not measured' if kept is None else 'missed'}"
