"""Schedules and their prices: nothing is lost, and what must cost more does."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dql.planner.candidates import closed_form
from dql.planner.hardware import Curve, Drawing, hardware_named
from dql.planner.memory import kv_slots, memory
from dql.planner.physical import Placement
from dql.planner.simulate import _COUNT, _DECODING, _PROMPT, _STARTED, _Player, simulate, steps_of
from dql.planner.step_model import StepModel
from dql.planner.workload import Workload
from tests.planner.fake_models import SHAPES, small_cpu


@st.composite
def workloads(draw: st.DrawFn) -> Workload:
    rows, own = draw(st.integers(1, 300)), draw(st.integers(1, 80))
    output = draw(st.sampled_from([0, 1, 5, 40]))
    return Workload(
        rows=rows,
        distinct=rows,
        shared=draw(st.sampled_from([0, 40, 300])),
        own=(own / 2, float(own)),
        tail=0 if output else draw(st.integers(0, 4)),
        outputs=(1.0, float(output)) if output else (),
        longest_output=output,
    )


PLACEMENTS = st.builds(Placement, max_rows=st.sampled_from([1, 3, 64]), step_tokens=st.sampled_from([16, 100, 1024]))
CPU = small_cpu()
SMALL = SHAPES["smollm2"]
DRAWINGS: tuple[Drawing, ...] = ("best", "told", "drawn")


@settings(max_examples=60, deadline=None)
@given(workloads(), PLACEMENTS)
def test_every_token_runs_once(work: Workload, placement: Placement) -> None:
    model = StepModel(CPU, SMALL, placement)
    player = _Player(model, work, work.distinct)
    prompts, lengths = sum(player._prompts), work.passes(work.distinct, 1, "cpu")
    schedule = player.play()
    columns = np.array(schedule.steps).T
    assert columns[_PROMPT].sum() == work.shared + prompts
    assert columns[_STARTED].sum() == work.distinct
    if work.decodes:
        assert (columns[_COUNT] * columns[_DECODING]).sum() == (lengths - 1).sum()
        assert columns[_DECODING].max() <= min(placement.max_rows, placement.step_tokens)
    assert all(0 <= a <= f <= z for a, f, z in zip(schedule.admitted, schedule.first, schedule.last, strict=True))
    assert player._keys == pytest.approx(0)


@settings(max_examples=40, deadline=None)
@given(workloads(), PLACEMENTS)
def test_figures_are_ordered(work: Workload, placement: Placement) -> None:
    played = simulate(StepModel(CPU, SMALL, placement), work)
    assert list(played.latency) == sorted(played.latency)
    assert all(first <= last for first, last in zip(played.ttft, played.latency, strict=True))
    assert played.latency[-1] <= played.seconds * (1 + 1e-9)
    more = simulate(StepModel(CPU, SMALL, placement), replace(work, rows=2 * work.rows, distinct=2 * work.distinct))
    assert more.seconds > played.seconds


def test_many_rows_cost_as_many_times_the_steady_rate() -> None:
    model = StepModel(CPU, SMALL, Placement(max_rows=32, step_tokens=256))
    work = Workload(4000, 4000, 80, (20.0, 30.0), outputs=(10.0, 20.0), longest_output=20)
    part, whole = (simulate(model, replace(work, rows=n, distinct=n)).seconds for n in (4000, 8000))
    assert whole == pytest.approx(2 * part, rel=0.03)


@pytest.mark.parametrize("max_rows", [4, 32, 128])
@pytest.mark.parametrize("outputs", [(), (32.0,), (1.0, 64.0)])
def test_the_closed_form_ranks_as_the_simulation_does(max_rows: int, outputs: tuple[float, ...]) -> None:
    work = Workload(2000, 2000, 80, (20.0, 30.0), outputs=outputs, longest_output=int(max(outputs, default=0)))
    model = StepModel(CPU, SMALL, Placement(max_rows=max_rows, step_tokens=512))
    seconds, *_ = closed_form(model, work, np.array([max_rows]), np.array([512.0]))
    assert simulate(model, work).seconds == pytest.approx(float(seconds[0]), rel=0.15)


def test_a_head_that_draws_or_tells_is_dearer() -> None:
    """By its factor, at the rows of a step; what does not go through the head costs the same."""
    usual = CPU.operators["fp32"]
    dear = replace(CPU, operators={"fp32": replace(usual, told=Curve(((1.0, 1.5),)), drawn=Curve(((1.0, 4.0),)))})
    model = StepModel(dear, SMALL, Placement(max_rows=32, step_tokens=256))
    work = Workload(64, 64, 0, (50.0,), outputs=(40.0,), longest_output=40)
    seconds = {how: simulate(model, replace(work, drawing=how)).seconds for how in DRAWINGS}
    assert (seconds["told"] - seconds["best"]) * 6 == pytest.approx(seconds["drawn"] - seconds["best"])
    assert seconds["best"] == simulate(StepModel(CPU, SMALL, model.placement), work).seconds < seconds["told"]


def test_fewer_bits_never_take_more_memory() -> None:
    work = Workload(100, 100, 0, (50.0,), outputs=(10.0,), longest_output=10)
    totals = [
        float(memory(SHAPES["llama-8b"], work, Placement(weights, "bf16"), 64, 1024, hardware_named("h100")).total)
        for weights in ("fp32", "bf16", "fp8", "int4")
    ]
    assert totals == sorted(totals, reverse=True)


@pytest.mark.parametrize("tensor", [1, 2, 4, 8])
def test_shards_hold_less_and_wait_for_each_other(tensor: int) -> None:
    h100 = hardware_named("h100:8")
    work = Workload(1000, 1000, 0, (100.0,), outputs=(64.0,), longest_output=64)
    one, many = (Placement("bf16", "bf16", tensor_parallel=n, max_rows=64, step_tokens=8192) for n in (1, tensor))
    shape = SHAPES["llama-8b"]
    assert float(memory(shape, work, many, 64, 8192, h100).total) <= float(
        memory(shape, work, one, 64, 8192, h100).total
    )
    alone, sharded = (simulate(StepModel(h100, shape, p), work).seconds for p in (one, many))
    assert alone / tensor <= sharded <= alone * 1.0001


def test_kv_slots_count_every_row_at_its_longest() -> None:
    work = Workload(100, 100, 80, (10.0, 24.0), outputs=(32.0,), longest_output=32)
    assert kv_slots(work, 16, 1024).tolist() == 80 + 16 * (24 + 31)
    assert kv_slots(work, 1000, 1024).tolist() == 80 + 100 * (24 + 31)
    scored = Workload(100, 100, 80, (24.0,), tail=2)
    assert kv_slots(scored, 1, 260).tolist() == 80 + 10 * 26


def test_a_finished_run_replaces_only_what_was_not_known() -> None:
    drawn = Workload(100, 50, 0, (20.0,), outputs=(1.0, 60.0), longest_output=60, sure=False)
    ran = drawn.as_run(25, (5.0, 9.0))
    assert (ran.rows, ran.distinct, ran.outputs, ran.sure) == (50, 25, (5.0, 9.0), True)
    scored = Workload(100, 50, 0, (20.0,), tail=2)
    assert not scored.as_run(50, (1.0,)).decodes  # an answer of labels draws nothing


def test_tokens_guessed_rightly_spare_passes_and_wrong_ones_cost() -> None:
    """A run that is over is priced by the passes that it took, with all tokens that were checked in them."""
    model = StepModel(CPU, SMALL, Placement(max_rows=2, step_tokens=256))
    work = Workload(4, 4, 0, (50.0,), outputs=(40.0,), longest_output=40)
    plain = simulate(model, work.as_run(4, work.outputs)).seconds
    half, all_own = (20.0,) * 4, (40.0,) * 4
    assert simulate(model, work.as_run(4, work.outputs, half, 2.0)).seconds < plain
    assert simulate(model, work.as_run(4, work.outputs, all_own, 60.0)).seconds > plain


def test_a_batch_ends_with_the_row_that_guessed_worst() -> None:
    """Rows are played with their own passes: their mean would end the run too early."""
    model = StepModel(CPU, SMALL, Placement(max_rows=4, step_tokens=256))
    work = Workload(4, 4, 0, (50.0,), outputs=(40.0,), longest_output=40)
    even, uneven = (work.as_run(4, work.outputs, turns, 1.0) for turns in ((16.0,) * 4, (40.0, 8.0, 8.0, 8.0)))
    slowest = work.as_run(4, work.outputs, (40.0,) * 4, 1.0)
    assert simulate(model, even).seconds < simulate(model, uneven).seconds <= simulate(model, slowest).seconds


def test_what_a_template_gained_counts_where_tokens_are_guessed() -> None:
    """An earlier run's gain is expected of small batches, and of none too large for guesses to pay."""
    work = Workload(64, 64, 0, (50.0,), outputs=(40.0,), longest_output=40)
    learnt = replace(work, gains=(1.0, 4.0), guesses=2.0)
    for rows, quicker in ((2, True), (64, False)):
        model = StepModel(CPU, SMALL, Placement(max_rows=rows, step_tokens=256))
        before, after = simulate(model, work).seconds, simulate(model, learnt).seconds
        assert after < before if quicker else after == before


def test_rows_of_one_length_share_a_call_of_attention() -> None:
    """Prompts of many lengths take a call for each, long ones one a row, and a step without prompts none."""
    prompt, started = np.array([0.0, 20.0, 800.0]), np.array([0.0, 1.0, 40.0])
    for own, calls in (((20.0,), [0, 1, 1]), ((10.0, 20.0, 40.0), [0, 1, 3]), ((400.0,), [0, 1, 40])):
        assert Workload(40, 40, 0, own).attention_calls(prompt, started).tolist() == calls


def test_what_is_computed_of_a_prompt_looks_at_what_is_not() -> None:
    """Half of every prompt is shared: the other half is computed, over three quarters of it on average."""
    step = np.array([100.0]), np.array([100.0]), np.array([2.0]), np.zeros(1), np.zeros(1)
    whole, half = (steps_of(Workload(8, 8, 0, (100.0,), fresh), *step).own_pairs[0] for fresh in (1.0, 0.5))
    assert (whole, half) == (100 * 50.5, 100 * 75.5)
