"""A draft's weights, keys and values stand in the plan's memory, and it does not guess where they do not fit."""

from dataclasses import replace

import pytest

from dql.planner.candidates import Draft, PricedCall
from dql.planner.contract import Bound, Contract
from dql.planner.drafting import guesses_line
from dql.planner.memory import draft_slots
from dql.planner.search import Choice, search
from dql.planner.workload import Workload
from tests.planner.fake_models import SHAPES, small_cpu

LARGE = SHAPES["smollm2"]
SMALL = replace(LARGE, num_layers=6, hidden_size=192, num_heads=3, num_kv_heads=3, head_dim=64, intermediate_size=512)
WORK = Workload(200, 200, 80, (12.0, 24.0, 36.0), outputs=(32.0,), longest_output=32)
ALONE = PricedCall("a", "large", LARGE, WORK)
CALL = replace(ALONE, draft=Draft("small", SMALL))
SMALL_BYTES = (2 * SMALL.embedding_parameters + SMALL.layer_parameters) * 4  # the head lies packed beside its rows


def found(call: PricedCall, mib: float | None = None) -> Choice:
    bounds = () if mib is None else (Bound("memory", mib * 2**20, "MiB", "<="),)
    return search([call], small_cpu(), Contract(bounds))


@pytest.mark.parametrize("rows", [1, 16, 64])
def test_memory_is_that_of_both_models(rows: int) -> None:
    contract = Contract(pinned={**Contract().pinned, "batch_size": rows})
    both, one = (search([call], small_cpu(), contract).best for call in (CALL, ALONE))
    slots = float(draft_slots(WORK, rows))
    assert slots >= min(rows, 200) * (80 + 36 + 32)  # whole texts: a draft shares no run
    least = SMALL_BYTES + slots * SMALL.kv_bytes_per_token(4)
    assert least < both.cost.memory - one.cost.memory < least + 192 * 2**20
    assert both.placement.draft_slots is None


def test_a_bound_is_kept_with_the_draft_where_it_can_be() -> None:
    for mib in (1100, 1600):
        choice = found(CALL, mib)
        best, slots = choice.best, choice.best.placement.draft_slots
        assert slots is not None and best.feasible and slots == draft_slots(WORK, best.placement.max_rows)
        slot = LARGE.kv_bytes_per_token(4)
        small = SMALL_BYTES + slots * SMALL.kv_bytes_per_token(4)
        assert best.placement.kv_slots is not None
        assert best.placement.kv_slots * slot + small < mib * 2**20
        assert "no speculation from draft small · with" not in guesses_line(choice, "a", 4, "small")


def test_without_room_for_the_draft_the_plan_is_that_without_it() -> None:
    least = found(ALONE, 1).best.cost.memory / 2**20  # the nearest plan to a bound that none keeps
    choice, alone = found(CALL, least + 20), found(ALONE, least + 20)
    assert choice.best.feasible
    assert choice.best.places == (replace(alone.best.placement, draft_slots=0),)
    assert choice.best.cost == alone.best.cost
    line = guesses_line(choice, "a", 4, "small")
    assert line.startswith("no speculation from draft small · with it the plan takes ")
    assert line.endswith(f"and the bound is {choice.contract.bounds[0]}")


def test_a_machine_too_small_for_both_runs_the_one() -> None:
    least = found(ALONE, 1).best.cost.memory
    choice = search([CALL], replace(small_cpu(), memory=least + 20 * 2**20), Contract())
    assert choice.best.feasible and choice.best.placement.draft_slots == 0
    assert "the machine's memory is" in guesses_line(choice, "a", 4, "small")


def test_other_bounds_that_are_missed_leave_the_draft_on() -> None:
    choice = search([CALL], small_cpu(), Contract((Bound("deadline", 0.001, "s", "<"),)))
    assert not choice.best.feasible and choice.best.placement.draft_slots is None
