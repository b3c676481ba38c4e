"""Runs that do not go as planned: sizes follow a bound, and what is left is planned anew. The truth is a formula."""

from dataclasses import replace

import pytest

from dql.planner.adapt import Adviser, Watch
from dql.planner.candidates import PricedCall
from dql.planner.contract import Bound, Contract
from dql.planner.measured import Measured
from dql.planner.search import search
from dql.planner.simulate import simulate
from dql.planner.step_model import StepModel
from dql.planner.workload import Workload
from tests.planner.fake_models import SHAPES, small_cpu

SHAPE = SHAPES["smollm2"]
GENERATES = Workload(2000, 2000, 80, (12.0, 24.0, 36.0), outputs=(32.0,), longest_output=32)
SCORES = Workload(2000, 2000, 80, (24.0,), tail=1, labels=3)


def watch(work: Workload, *bounds: Bound, pinned: dict[str, int] | None = None) -> Watch:
    contract = Contract(bounds, pinned=pinned or {})
    choice = search([PricedCall("a", "smollm2", SHAPE, work)], small_cpu(), contract)
    found = Adviser(choice).watch(["a"])
    assert found is not None
    return found


def under(limit: float, name: str = "latency") -> Bound:
    return Bound(name, limit, "s", "<", "p95")


def play(seen: Watch, rows: int, seconds: float, per_row: float, per_token: float = 0.0) -> list[float]:
    """Latencies of `rows` rows where one takes `seconds`, and so much more for each row at once and token of a step."""
    taken: list[float] = []
    changes: list[str] = []
    now = 0.0
    while len(taken) < rows:
        latency = seconds + per_row * seen.max_rows + per_token * seen.step_tokens
        admitted, now = seen.max_rows, now + latency
        for _ in range(admitted):
            taken.append(latency)
            seen.note("a", latency, latency / 2, 32, now=now, changes=changes)
    return taken


@pytest.mark.parametrize(("seconds", "per_row"), [(3.4, 0.3), (3.0, 0.25), (1.0, 2.9)])
def test_a_batch_that_takes_too_long_shrinks_until_the_bound_holds(seconds: float, per_row: float) -> None:
    seen = watch(GENERATES, under(4.0))
    latencies = play(seen, 2000, seconds, per_row)
    assert sum(x < 4.0 for x in latencies) >= 0.95 * len(latencies)
    assert seen.max_rows >= 1 and latencies[-1] < 4.0


def test_a_batch_far_below_its_bound_grows_but_not_beyond_the_cheapest() -> None:
    seen = watch(GENERATES, under(4.0))
    before = seen.max_rows
    play(seen, 5000, 0.1, 0.001)
    free = search([PricedCall("a", "smollm2", SHAPE, GENERATES)], small_cpu(), Contract()).best.placement
    assert before < seen.max_rows <= free.max_rows


def test_rows_that_score_take_shorter_steps() -> None:
    seen = watch(SCORES, under(2.0))
    before = seen.step_tokens
    latencies = play(seen, 1000, 0.1, 0.0, per_token=2.5 / before)
    assert latencies[0] > 2 > latencies[-1] and 32 <= seen.step_tokens < before


def test_a_pinned_batch_stays() -> None:
    seen = watch(GENERATES, under(30.0), pinned={"batch_size": 64})
    play(seen, 2000, 31.0, 0.0)
    assert seen.max_rows == 64


def test_without_bounds_on_rows_nothing_follows() -> None:
    seen = watch(GENERATES, Bound("deadline", 3600.0, "s", "<"))
    sizes = seen.max_rows, seen.step_tokens
    play(seen, 500, 100.0, 1.0)
    assert (seen.max_rows, seen.step_tokens) == sizes


def measured(work: Workload, rows: int, factor: float, drawn: int) -> Measured:
    """A run of the first rows that took `factor` times what the cost model says."""
    found = Measured()
    for _ in range(rows):
        found.note(1.0, 0.5, drawn)
    place = search([PricedCall("a", "smollm2", SHAPE, work)], small_cpu(), Contract()).best.placement
    ran = work.as_run(rows, (float(drawn),))
    found.seconds = factor * simulate(StepModel(small_cpu(), SHAPE, place), ran).seconds
    return found


def test_rows_that_came_before_a_change_ran_as_planned() -> None:
    found = Measured()
    for _ in range(3):
        found.note(1.0, 0.5, 4)
    found.changes.append("batch 8 → 4")
    found.note(0.5, 0.2, 4)
    assert found.planned == 3 and len(found.latencies) == 4


@pytest.mark.parametrize(("factor", "changes"), [(1.0, 0), (1.15, 0), (0.9, 0), (1.5, 1), (0.5, 1)])
def test_the_rest_is_planned_anew_where_seconds_were_off(factor: float, changes: int) -> None:
    seen = watch(GENERATES)
    first = measured(GENERATES, 40, factor, 32)
    seen.look({"a": first})
    assert len(first.changes) == changes
    seen.look({"a": first})
    assert len(first.changes) == changes  # the figures are the measured ones now


def test_lengths_of_the_first_answers_replace_the_prior() -> None:
    unknown = replace(GENERATES, outputs=(10.0, 60.0, 128.0), longest_output=128, sure=False)
    seen = watch(unknown)
    first = measured(unknown, 40, 1.0, 3)
    seen.look({"a": first})
    assert first.changes[0].startswith("after 40 rows: 3 tokens an answer; ")
    seen.look({"a": first})
    assert len(first.changes) == 1


def test_calls_that_were_guessed_are_planned_when_their_prompts_are_here() -> None:
    seen = watch(replace(GENERATES, exact=False, guessed=True), Bound("deadline", 60.0, "s", "<"))
    changes: list[str] = []
    seen.arrive({"a": [200] * 3}, changes)
    seen.arrive({"a": [200] * 3}, changes)
    assert changes[0].startswith("reached with 3 prompts: ") and len(changes) == 1


@pytest.mark.parametrize(("rows", "parts"), [(2000, [40, 1960]), (60, [60]), (1, [1])])
def test_a_long_call_runs_its_first_rows_by_themselves_once(rows: int, parts: list[int]) -> None:
    seen = watch(GENERATES)
    assert list(seen.parts(rows)) == parts
    assert list(seen.parts(2000)) == [2000]


def test_of_a_few_hundred_rows_as_many_run_first_as_say_something() -> None:
    few = replace(GENERATES, rows=500, distinct=500, outputs=(128.0,), longest_output=128)
    assert list(watch(few).parts(500)) == [16, 484]
    assert list(watch(replace(few, rows=300, distinct=300)).parts(300)) == [300]


def test_a_short_call_runs_in_one_part() -> None:
    assert list(watch(replace(GENERATES, rows=100, distinct=100)).parts(100)) == [100]
