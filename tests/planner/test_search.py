"""The search: pinned settings, bounds and objectives over a fake machine."""

from dataclasses import replace

import pytest

from dql.errors import ConfigError, UnsupportedError
from dql.planner.candidate_table import COLUMNS, table
from dql.planner.candidates import PricedCall, Space, frame, price
from dql.planner.contract import Bound, Contract
from dql.planner.explain_cost import choice_lines
from dql.planner.hardware import Curve, Slowdown, hardware_named
from dql.planner.search import search
from dql.planner.workload import Workload
from tests.planner.fake_models import SHAPES, small_cpu

WORK = Workload(2000, 2000, 80, (12.0, 24.0, 36.0), outputs=(32.0,), longest_output=32)
CALL = PricedCall("a", "smollm2", SHAPES["smollm2"], WORK)


def bound(name: str, value: float, unit: str, op: str = "<", qualifier: str = "") -> Contract:
    return Contract((Bound(name, value, unit, op, qualifier),))


@pytest.mark.parametrize(
    "contract",
    [
        bound("latency", 5.5, "s", qualifier="p95"),
        bound("latency", 20, "s", qualifier="p99"),
        bound("ttft", 1, "s", qualifier="p95"),
        bound("tpot", 0.2, "s", qualifier="p50"),
        bound("throughput", 3, "rows/s", ">"),
        bound("throughput", 300, "tokens/s", ">="),
        bound("deadline", 900, "s"),
        bound("memory", 800 * 2**20, "MiB"),
    ],
    ids=lambda contract: str(contract.bounds[0]),
)
def test_the_chosen_plan_keeps_its_bound(contract: Contract) -> None:
    best = search([CALL], small_cpu(), contract).best
    assert best.feasible
    assert best.cost.excess(contract.bounds[0]) <= 1


@pytest.mark.parametrize("seconds", [3.8, 5.0, 10.0, 30.0])
def test_a_looser_bound_never_makes_the_job_longer(seconds: float) -> None:
    tight, loose = (
        search([CALL], small_cpu(), bound("latency", s, "s", qualifier="p95")).best for s in (seconds, 2 * seconds)
    )
    assert loose.cost.seconds <= tight.cost.seconds * 1.04


def test_figures_of_several_calls_add_up() -> None:
    scored = Workload(2000, 2000, 80, (24.0,), tail=2, labels=4)
    other = PricedCall("b", "smollm2", SHAPES["smollm2"], scored)
    both = search([CALL, other], small_cpu(), Contract()).best
    assert both.cost.seconds == pytest.approx(sum(cost.seconds for cost in both.calls))
    assert both.cost.latency[2] == pytest.approx(sum(cost.latency[2] for cost in both.calls))
    assert both.cost.memory == pytest.approx(max(cost.memory for cost in both.calls))


def test_one_model_at_two_precisions_takes_two_engines() -> None:
    pinned = Contract(pinned={"batch_size": 8, "quantization": "bf16"})
    one, two = ([replace(CALL, weights=weights), replace(CALL, out="b")] for weights in ("", "fp8"))
    alone, both = (search(calls, hardware_named("h100"), pinned, what_if=True).best for calls in (one, two))
    assert [call.at(both.placement).weights for call in two] == ["fp8", "bf16"]
    assert both.calls[0].seconds < both.calls[1].seconds
    assert both.cost.memory - alone.cost.memory > 0.4 * alone.cost.memory


def test_earlier_runs_correct_later_predictions() -> None:
    slower = PricedCall("a", "smollm2", SHAPES["smollm2"], WORK, factors={"fp32": 2.0})
    once, twice = (search([call], small_cpu(), Contract()).best.cost.seconds for call in (CALL, slower))
    assert twice == pytest.approx(2 * once, rel=0.01)


def test_rooms_for_late_rows_are_those_that_earlier_runs_needed() -> None:
    limit = bound("latency", 8, "s", qualifier="p95")
    late = [None, {"fp32": 0.0}, {"fp32": 0.8}]
    calls = [CALL if shares is None else replace(CALL, late=shares) for shares in late]
    unknown, calm, swaying = (search([call], replace(small_cpu(), sway=0.05), limit).best.cost for call in calls)
    assert [cost.sway for cost in (unknown, calm, swaying)] == [0.35, 0.05, 0.8]
    assert calm.seconds <= unknown.seconds * 1.04 and unknown.seconds < swaying.seconds


def test_determinism_has_its_price() -> None:
    """That of its own kind of step, and the same in the frame as in the simulation."""
    slower = Slowdown(Curve(((1.0, 2.0),)), Curve(((1.0, 3.0),)), 0.01)
    hardware = replace(small_cpu(), deterministic=slower)
    fixed = Contract(pinned={"deterministic": True})
    reads = replace(CALL, work=Workload(2000, 2000, 0, (24.0,), tail=0, labels=4))
    below = replace(CALL, work=replace(reads.work, shared=100))
    for call, low, high in ((reads, 1.9, 2.0), (below, 2.9, 3.0), (CALL, 2.0, 3.0)):
        plain, found = (search([call], hardware, contract) for contract in (Contract(), fixed))
        assert found.best.placement.deterministic and not plain.best.placement.deterministic
        assert low <= found.slower <= high + 1e-9 and plain.slower == pytest.approx(1)
        assert plain.best.cost.seconds * low < found.best.cost.seconds
        line = f"deterministic = true: {found.slower:.1f} × the seconds of the same plan without it"
        assert choice_lines(found)[-1] == line


def test_a_cost_bound_needs_a_price() -> None:
    contract = bound("cost", 2, "USD")
    with pytest.raises(ConfigError, match="needs a price"):
        search([CALL], small_cpu(), contract)
    best = search([CALL], small_cpu(price=3.6), contract).best
    assert best.cost.usd == pytest.approx(best.cost.seconds / 1000)


@pytest.mark.parametrize(
    ("name", "value"), [("quantization", "int4"), ("kv_cache", "fp8"), ("devices", 2), ("tensor_parallel", 3)]
)
def test_what_no_engine_runs_is_named(name: str, value: int | str) -> None:
    with pytest.raises(UnsupportedError, match=f"{name} = {value}"):
        search([CALL], small_cpu(), Contract(pinned={name: value}))


@pytest.mark.parametrize(
    "pinned", [{"devices": 2, "tensor_parallel": 4}, {"tensor_parallel": 4, "pipeline_parallel": 4}]
)
def test_pins_that_cannot_be_together_are_named(pinned: dict[str, int | str]) -> None:
    with pytest.raises(UnsupportedError, match="tensor_parallel = 4"):
        search([CALL], hardware_named("h100:8"), Contract(pinned=pinned), what_if=True)


@pytest.mark.parametrize(
    "pinned", [{"quantization": "fp32"}, {"devices": 1}, {"batch_size": 7}, {"kv_cache": "fp32"}, {"batch_size": 9999}]
)
def test_what_is_pinned_is_obeyed(pinned: dict[str, int | str]) -> None:
    place = search([CALL], small_cpu(), Contract(pinned=pinned)).best.placement
    assert place.max_rows == pinned.get("batch_size", place.max_rows)
    assert (place.weights, place.kv_cache, place.devices) == ("fp32", "fp32", 1)


def test_guessed_calls_are_shown_and_refuse_nothing() -> None:
    guess = PricedCall("b", "smollm2", SHAPES["smollm2"], replace(WORK, rows=10**6, distinct=10**6, guessed=True))
    best = search([CALL, guess], small_cpu(), bound("deadline", 900, "s")).best
    assert best.feasible and best.cost.seconds > 100 * 900 and best.cost.give > best.calls[0].seconds


def test_caches_that_are_switched_off_stay_off() -> None:
    off = Contract(pinned={"prefix_cache": False, "result_cache": False})
    place = search([CALL], small_cpu(), off).best.placement
    assert (place.prefix, place.reuse) == ("none", False)


@pytest.mark.parametrize(
    ("direction", "name"), [("maximize", "quality"), ("maximize", "throughput"), ("minimize", "cost")]
)
def test_objectives_that_no_bound_holds_back_want_few_seconds(direction: str, name: str) -> None:
    quickest = search([CALL], small_cpu(), Contract()).best.cost.seconds
    assert search([CALL], small_cpu(), Contract(objective=(direction, name))).best.cost.seconds <= 1.03 * quickest


def test_session_settings_are_obeyed_as_well() -> None:
    assert search([CALL], small_cpu(), Contract(defaults={"batch_size": 16})).best.placement.max_rows == 16


def test_a_memory_bound_caps_the_kv_cache() -> None:
    limit = 800 * 2**20
    best = search([CALL], small_cpu(), bound("memory", limit, "MiB")).best
    slots = best.placement.kv_slots
    assert slots is not None and slots >= 80 + best.placement.max_rows * (36 + 31)
    assert best.cost.memory < limit
    assert search([CALL], small_cpu(), Contract()).best.placement.kv_slots is None


@pytest.mark.parametrize("limit", [1, 400])
def test_a_plan_that_misses_its_memory_has_the_cache_it_is_planned_with(limit: float) -> None:
    """It is what best_effort runs: with no more than the bound leaves, no row would fit."""
    best = search([CALL], small_cpu(), bound("memory", limit, "MiB")).best
    free = search([CALL], small_cpu(), Contract()).best
    assert not best.feasible and best.placement.kv_slots is not None
    assert best.placement.kv_slots >= CALL.work.shared + CALL.work.lane
    assert best.cost.memory < free.cost.memory


def test_nothing_lossy_without_proof() -> None:
    h100 = hardware_named("h100")
    assert search([CALL], h100, Contract(), {"int4": 1.0}, what_if=True).best.placement.weights == "bf16"
    asked = bound("quality", 0.9, "", ">=")
    choice = search([CALL], h100, asked, {"int8": 0.89, "fp8": 0.2}, what_if=True)
    assert choice.best.placement.weights == "bf16" and choice.best.quality == 1.0


def test_the_table_lists_every_candidate_once() -> None:
    choice = search([CALL], small_cpu(), bound("latency", 5.5, "s", qualifier="p95"))
    rows = table(choice)
    assert len(rows) == choice.considered == len({row[:7] for row in rows})
    assert {len(row) for row in rows} == {len(COLUMNS)}
    assert [row[-1] for row in rows].count("chosen") == 1 and rows[0][-1] == "chosen"
    assert choice.feasible <= choice.considered


@pytest.mark.parametrize("contract", [Contract(), bound("latency", 30, "s", qualifier="p95")])
def test_the_next_best_plan_is_another_one(contract: Contract) -> None:
    """Plans of other sizes that take as long are no news."""
    choice = search([CALL], small_cpu(), contract)
    assert choice.next_best is not None and choice.next_best.feasible
    assert abs(choice.next_best.cost.seconds / choice.best.cost.seconds - 1) > 0.02


def test_the_frame_holds_no_more_devices_than_there_are() -> None:
    space = Space(("bf16",), ("bf16",), (8,), (512,), (1, 2, 4), (1, 2), (1, 2, 4), devices=4)
    found = frame(space)
    used = found["tensor_parallel"] * found["pipeline_parallel"] * found["data_parallel"]
    assert used.max() == 4 and len(found) == 9
    priced = price(found, [PricedCall("a", "llama-8b", SHAPES["llama-8b"], WORK)], hardware_named("h100:4"))
    assert priced.select("seconds", "latency", "memory").min_horizontal().min() > 0  # type: ignore[operator]
