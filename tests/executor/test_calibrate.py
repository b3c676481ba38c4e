"""Calibration finds figures for every operator, and fills in what there was no time for."""

from dataclasses import replace

import pytest

from dql.executor.calibrate import Grid, measure, shares
from dql.planner.hardware import Curve, from_json, this_cpu
from tests.planner.fake_models import SHAPES

TINY = replace(SHAPES["smollm2"], num_layers=2, hidden_size=64, num_heads=4, num_kv_heads=2, head_dim=16)
SHAPE = replace(TINY, intermediate_size=96, vocab_size=300)
GRID = Grid((16, 1), (16,), (4, 1), (2,), (12, 16), (4, 1), ((2, 16), (1, 8)), (64,), (2,), repeats=1, patience=0.0)


def test_every_operator_is_measured() -> None:
    steps: list[tuple[str, float]] = []
    found = measure(this_cpu(2), SHAPE, GRID, lambda label, share: steps.append((label, share)))
    for precision in found.peak:  # those that the processor has beside fp32
        assert found.measured_for(precision, SHAPE) and found.peak[precision] > 0
    assert found.source == "measured" and found.measured_for("fp32", SHAPE) and from_json(found.to_json()) == found
    assert found.peak["fp32"] > 0 and found.bandwidth > 0 and found.step_seconds > 0 and found.start_seconds > 0
    slower = found.deterministic
    assert all(factor >= 1 for curve in (slower.prompts, slower.decoding) for _, factor in curve.points)
    assert found.call_seconds >= 0 and found.sway >= 0
    operators = found.operators_for("fp32", SHAPE)
    for curve in (getattr(operators, name) for name in operators.__slots__):
        assert list(curve.points) == sorted(curve.points) and all(share > 0 for _, share in curve.points)
    assert all(factor >= 1 for curve in (operators.told, operators.drawn) for _, factor in curve.points)
    assert [share for _, share in steps] == sorted(share for _, share in steps)


def test_a_second_shape_leaves_the_first_and_its_units_alone() -> None:
    first = measure(this_cpu(2), SHAPE, GRID)
    both = measure(first, replace(SHAPE, intermediate_size=128), GRID)
    assert both.operators_for("fp32", SHAPE) == first.operators_for("fp32", SHAPE)
    assert (both.peak, both.bandwidth) == (first.peak, first.bandwidth)
    assert both.measured_for("fp32", replace(SHAPE, intermediate_size=128))


def test_sizes_without_time_follow_the_typical_curve() -> None:
    typical = Curve(((1.0, 0.2), (16.0, 0.4), (256.0, 0.8)))
    curve = shares([(16.0, 1.0, 5.0)], typical)  # a share of 0.2, half of what is typical there
    assert [size for size, _ in curve.points] == [1.0, 16.0, 256.0]
    assert [share for _, share in curve.points] == pytest.approx([0.1, 0.2, 0.4])
