"""What measures a GPU, tried on the CPU paths of the same kernels with a clock of its own."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from dql.config import Config
from dql.executor.calibrate_gpu import GpuGrid, measure
from dql.machine import Machine
from dql.models.shape import ModelShape
from dql.planner.hardware import Hardware, Progress, from_json, hardware_named
from dql.planner.physical import Placement
from dql.planner.step_model import StepModel, Steps
from tests.planner.fake_models import SHAPES
from tests.session.test_gpu import A100, H100

TINY = replace(SHAPES["smollm2"], num_layers=2, hidden_size=64, num_heads=4, num_kv_heads=2, head_dim=16)
SHAPE = replace(TINY, intermediate_size=96, vocab_size=300)
GRID = GpuGrid((), (16, 1), (4, 1), (8, 16), (4, 1), ((2, 16), (1, 8)), 1 << 20, 1 << 12, 8, 32, 4, 3, 1, 60.0)


class Clock:
    """Runs each call once and says that it took a millisecond, or where the processor is timed, what it is told."""

    def __init__(self, *spans: float) -> None:
        self.calls, self._spans = 0, iter(spans)

    def __call__(self, work: Callable[[], object], repeats: int) -> float:
        work()
        self.calls += 1
        return 1e-3

    def host(self, work: Callable[[], object], repeats: int) -> float:
        work()
        return next(self._spans, 1e-3)


def found(base: Hardware, shape: ModelShape = SHAPE) -> Hardware:
    return measure(base, shape, GRID, device="cpu", timer=Clock())


def test_every_operator_is_measured_in_the_datasheets_units() -> None:
    base = hardware_named("h100")
    here = found(base)
    assert here.source == "measured" and here.measured_for("bf16", SHAPE) and from_json(here.to_json()) == here
    assert here.bandwidth == pytest.approx(2 * GRID.read / 1e-3) and here.peak == base.peak
    assert here.step_seconds > 0 and here.start_seconds > 0
    (first, *_) = (size for size, _ in here.operators_for("bf16", SHAPE).linear.points)
    assert first == 1.0
    model = StepModel(here, SHAPE, Placement("bf16", "bf16"))
    layer = float(model._layer(np.array([16.0]))[0])
    assert layer == pytest.approx(1e-3 / 2)  # the two layers took a millisecond together


@pytest.mark.parametrize(("step", "layer", "overlap"), [(1.0, 1 / 3, 0.0), (0.0, 0.0, 1.0)])
def test_whole_steps_tell_what_their_parts_do_not(step: float, layer: float, overlap: float) -> None:
    """A step that takes far longer than its parts has more in each layer; one that takes no time hides all it can."""
    runs = (0.0, step * GRID.steps)  # of rows that only begin, and of those that decode as well
    clock = Clock(7e-3, 3e-3, *runs, *runs)  # three layers launched, and one
    here = measure(hardware_named("h100"), SHAPE, GRID, device="cpu", timer=clock)
    assert here.launch_seconds == pytest.approx(2e-3)
    assert here.layer_seconds == pytest.approx(layer, abs=0.05) and here.overlap == overlap


def test_only_steps_with_prompts_are_launched_layer_by_layer() -> None:
    """And what the device does meanwhile is counted once, as far as the two overlap."""
    one, none = np.ones(1), np.zeros(1)
    host = replace(hardware_named("h100"), launch_seconds=1e-3)
    model = StepModel(host, SHAPE, Placement("bf16", "bf16"))
    plain = StepModel(hardware_named("h100"), SHAPE, Placement("bf16", "bf16"))
    prompts, rows = (Steps(one * 64, one, one, own_pairs=pairs) for pairs in (one * 64, none))
    assert float(model.seconds(rows)[0]) == float(plain.seconds(rows)[0])
    assert float((model.seconds(prompts) - plain.seconds(prompts))[0]) == pytest.approx(1e-3 * SHAPE.num_layers)
    beside = replace(model, hardware=replace(host, overlap=1.0))
    launching = host.step_seconds + 1e-3 * SHAPE.num_layers
    assert float(beside.seconds(prompts)[0]) == pytest.approx(launching)  # tiny arithmetic is hidden behind it


def test_a_second_shape_leaves_the_first_and_its_units_alone() -> None:
    first = found(hardware_named("h100"))
    both = found(replace(first, bandwidth=1.0), replace(SHAPE, intermediate_size=128))
    assert both.operators_for("bf16", SHAPE) == first.operators_for("bf16", SHAPE) and both.bandwidth == 1.0
    assert both.measured_for("bf16", replace(SHAPE, intermediate_size=128))


def test_where_time_is_short_the_first_sizes_are_measured() -> None:
    clock = Clock()
    here = measure(hardware_named("h100"), SHAPE, replace(GRID, seconds=0.0), device="cpu", timer=clock)
    assert clock.calls == 1 + 5 and here.measured_for("bf16", SHAPE)  # a copy, and one size of each operator


class Bench:
    """Counts what it is asked to measure."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, bool]] = []

    def measure(self, base: Hardware, shape: ModelShape, *, thorough: bool, progress: Progress | None) -> Hardware:
        self.asked.append((base.name, thorough))
        return found(base)


def test_the_profile_is_kept_for_the_device_and_its_driver(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, bench = Config(home=tmp_path), Bench()
    machine = Machine(config, find=lambda: (H100,))
    assert machine.lacks([SHAPE], "cuda") and machine.hardware().source == "datasheet"
    machine.measure(bench, [SHAPE], kind="cuda")
    assert bench.asked == [(H100.name, False)]
    again = Machine(config, find=lambda: (H100,))
    assert again.hardware() == machine.hardware() and again.hardware().source == "measured"
    assert again.gpu_path is not None and again.gpu_path.name == "nvidia-h100-80gb-hbm3.json"
    assert not again.lacks([SHAPE], "cuda") and again.lacks([replace(SHAPE, hidden_size=128)], "cuda")
    assert again.cpu().source == "datasheet" and again.stale("cuda") is None
    other = replace(H100, name="NVIDIA H200")
    assert Machine(config, find=lambda: (other,)).hardware().source == "datasheet"
    assert Machine(config, find=lambda: (A100,)).gpu_path is None
    version = tmp_path / "version"
    version.write_text("NVRM version: NVIDIA UNIX Open Kernel Module for x86_64  999.1.2  Release Build\n")
    monkeypatch.setattr("dql.planner.hardware._DRIVER_VERSION", version)
    newer = Machine(config, find=lambda: (H100,))
    assert "is now 999.1.2" in (newer.stale("cuda") or "") and newer.hardware().source == "datasheet"


def test_measured_layers_hold_their_elementwise_passes() -> None:
    """A datasheet's layer has passes over the hidden states beside its products; a measured one has them in it."""
    sheet = hardware_named("h100")
    one = np.ones(1)
    steps = Steps(one * 1024, one, one)
    models = [
        StepModel(h, SHAPES["llama-8b"], Placement("bf16", "bf16")) for h in (sheet, replace(sheet, source="measured"))
    ]
    assert float(models[0].seconds(steps)[0]) > float(models[1].seconds(steps)[0])
