"""Hardware as data: curves, files, names."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from dql.config import Config
from dql.errors import ConfigError
from dql.machine import Machine
from dql.models.shape import ModelShape
from dql.planner.hardware import (
    Curve,
    Hardware,
    Progress,
    cpu_versions,
    from_json,
    hardware_named,
    layer_key,
    shipped,
    this_cpu,
)
from tests.planner.fake_models import SHAPES, small_cpu

POINTS = st.lists(
    st.tuples(st.integers(1, 10_000), st.floats(0.01, 10)), min_size=1, max_size=8, unique_by=lambda point: point[0]
)


@given(POINTS, st.floats(0.5, 20_000))
def test_a_curve_stays_between_its_neighbours(points: list[tuple[int, float]], size: float) -> None:
    curve = Curve(tuple(sorted((float(s), v) for s, v in points)))
    for known, value in curve.points:
        assert curve(known) == pytest.approx(value)
    values = [value for _, value in curve.points]
    assert min(values) - 1e-9 <= float(curve(size)) <= max(values) + 1e-9


def test_curves_take_arrays() -> None:
    curve = Curve(((1.0, 1.0), (4.0, 3.0)))
    assert curve(np.array([0.0, 1.0, 2.0, 4.0, 100.0])).tolist() == [1.0, 1.0, 2.0, 3.0, 3.0]


@pytest.mark.parametrize("name", shipped())
def test_shipped_profiles_are_whole(name: str) -> None:
    hardware = hardware_named(name)
    assert hardware.name == name and hardware.source == "datasheet" and hardware.notes
    assert set(hardware.operators) == set(hardware.peak)
    assert hardware.price and hardware.memory > 1e9 and hardware.bandwidth > 1e9
    for operators in hardware.operators.values():
        for field in operators.__slots__:
            points = getattr(operators, field).points
            assert list(points) == sorted(points)
            factors = field in ("told", "drawn")
            assert all(value >= 1 if factors else 0 < value <= 1 for _, value in points)


@pytest.mark.parametrize("hardware", [small_cpu(), *map(hardware_named, shipped())], ids=str)
def test_profiles_survive_their_files(hardware: Hardware) -> None:
    assert from_json(hardware.to_json()) == hardware


@pytest.mark.parametrize("text", ["", "[]", "{}", '{"format": 0}', small_cpu().to_json().replace("bandwidth", "width")])
def test_other_files_are_refused(text: str) -> None:
    with pytest.raises(ConfigError, match="not a hardware profile"):
        from_json(text)


@pytest.mark.parametrize(
    ("text", "hint"), [("h10", "h100"), ("h100:0", "1 to 1024"), ("h100:x", "did you mean h100"), ("", "there is")]
)
def test_names_of_machines_that_do_not_exist(text: str, hint: str) -> None:
    with pytest.raises(ConfigError) as caught:
        hardware_named(text)
    assert hint in (caught.value.hint or "")


def test_prices_may_be_the_users_own() -> None:
    assert hardware_named("h100:4", {"h100": 1.5}).price == 1.5  # of each device
    assert (hardware_named("H100:4").devices, str(hardware_named("h100:4"))) == (4, "h100:4")


def test_a_machine_that_was_not_measured_scales_with_its_cores() -> None:
    two, four = this_cpu(2), this_cpu(4)
    assert four.peak["fp32"] == 2 * two.peak["fp32"]
    assert two.source == "datasheet" and "not measured" in two.notes


class Bench:
    """Stands in for the runtime: measuring takes no time and always finds the same."""

    def __init__(self) -> None:
        self.measured: list[str] = []

    def measure(self, base: Hardware, shape: ModelShape, *, thorough: bool, progress: Progress | None) -> Hardware:
        self.measured.append("thorough" if thorough else "quick")
        found, versions = small_cpu(), cpu_versions(base.cores)
        operators = {**base.operators, f"fp32 {layer_key(shape)}": found.operators["fp32"]}
        return replace(found, cores=base.cores, versions=versions, operators=operators)


def test_profiles_are_kept_and_noticed_when_stale(tmp_path: Path) -> None:
    config, bench, shape = Config(home=tmp_path, threads=2), Bench(), SHAPES["smollm2"]
    machine = Machine(config)
    assert machine.lacks([shape]) and machine.stale() is None and not machine.path.exists()
    machine.measure(bench, [shape])
    assert bench.measured == ["quick"]
    again = Machine(config)
    assert again.hardware() == machine.hardware() and again.stale() is None
    stored = from_json(machine.path.read_text())
    machine.path.write_text(replace(stored, versions={**stored.versions, "torch": "0.1"}).to_json())
    stale = Machine(config)
    assert "torch 0.1 is now" in (stale.stale() or "") and stale.hardware().source == "datasheet"
    machine.path.write_text("scribble")
    assert Machine(config).stale() is not None and Machine(config).hardware().source == "datasheet"


def test_a_profile_of_a_busy_machine_is_no_unit_for_others(tmp_path: Path) -> None:
    config, bench = Config(home=tmp_path, threads=2), Bench()
    machine = Machine(config)
    machine.measure(bench, [SHAPES["smollm2"]], thorough=True)
    assert bench.measured == ["thorough"] and machine.hardware().price is None
    assert Machine(replace(config, price_per_hour=0.25)).hardware().price == 0.25


def test_a_price_is_that_of_its_own_machine(tmp_path: Path) -> None:
    environ = {"DQL_HOME": str(tmp_path), "DQL_PRICE_PER_HOUR": "0.25", "DQL_DEVICE_PRICES": "h100=2.5, L40S = 0.5"}
    machine = Machine(Config.load(environ))
    prices = {hardware.name: hardware.price for hardware in machine.others()}
    assert machine.cpu().price == 0.25 and prices["h100"] == 2.5 and prices["l40s"] == 0.5
    assert prices["h200"] == hardware_named("h200").price
    with pytest.raises(ConfigError, match="h1000"):
        hardware_named("l40s", {"h1000": 1.0})


@pytest.mark.parametrize("text", ["-1", "nan", "dear", "h100", "h100=", "h100=-2"])
def test_prices_that_are_none_are_errors(text: str) -> None:
    for name in ("DQL_PRICE_PER_HOUR", "DQL_DEVICE_PRICES"):
        with pytest.raises(ConfigError, match=name):
            Config.load({name: text})
