"""Sizes for each run of a query, against one size for all of them."""

from dataclasses import replace
from itertools import product

import pytest

from dql.planner.candidates import PricedCall
from dql.planner.contract import Bound, Contract
from dql.planner.explain_cost import sizes_text
from dql.planner.option import Weighing, preference
from dql.planner.search import Choice, search
from dql.planner.workload import Workload
from tests.planner.fake_models import SHAPES, small_cpu

SHAPE = SHAPES["smollm2"]
SCORES = Workload(rows=20_000, distinct=20_000, shared=80, own=(200.0, 300.0, 600.0), tail=1, labels=3)
SHORT = Workload(
    rows=2000, distinct=2000, shared=80, own=(20.0, 30.0, 60.0), outputs=(10.0, 20.0, 60.0), longest_output=64
)
LONG = replace(SHORT, own=(400.0, 800.0, 2000.0), outputs=(2.0, 4.0), longest_output=8)
WORKS = {"scores": SCORES, "short": SHORT, "long": LONG}
TIGHT = Contract(bounds=(Bound("memory", 955e6, "MB", "<"),))
CONTRACTS = [
    Contract(),
    TIGHT,
    Contract(bounds=(Bound("latency", 15, "s", "<"),)),
    Contract(bounds=(Bound("latency", 90, "s", "<", "p50"), Bound("latency", 120, "s", "<", "p99"))),
    Contract(bounds=(Bound("ttft", 2, "s", "<"), Bound("deadline", 12, "h", "<"))),
    Contract(objective=("minimize", "latency")),
]


def choose(contract: Contract, *names: str, together: bool = False) -> Choice:
    calls = [PricedCall(name, "smollm2", SHAPE, WORKS[name], "all" if together else name) for name in names]
    return search(calls, small_cpu(), contract)


@pytest.mark.parametrize("contract", CONTRACTS, ids=lambda c: ", ".join(map(str, c.bounds)) or c.objective[1])
@pytest.mark.parametrize("names", [("scores", "short"), ("short", "long")])
def test_sizes_of_their_own_are_never_worse(contract: Contract, names: tuple[str, ...]) -> None:
    apart, one = choose(contract, *names).best, choose(contract, *names, together=True).best
    assert preference(apart, contract)[0] <= preference(one, contract)[0]
    if apart.feasible and one.feasible:
        assert preference(apart, contract)[1] <= preference(one, contract)[1] * (1 + 1e-9)
    assert apart.cost.seconds == pytest.approx(sum(c.seconds for c in apart.calls))
    assert apart.cost.latency[2] == pytest.approx(sum(c.latency[2] for c in apart.calls))


def test_a_run_whose_rows_are_short_keeps_its_batch_beside_one_of_long_rows() -> None:
    apart, one = choose(TIGHT, "short", "long"), choose(TIGHT, "short", "long", together=True)
    assert apart.best.feasible and one.best.feasible
    assert apart.place("short").max_rows > apart.place("long").max_rows
    assert apart.best.cost.seconds < 0.97 * one.best.cost.seconds
    assert len(sizes_text(apart, ", ")) == 2 and len(sizes_text(one, ", ")) == 1
    held = Bound("memory", 955e6, "MB", "<")
    assert apart.best.cost.of(held) <= held.value


def test_calls_that_run_together_have_one_placement() -> None:
    calls = [PricedCall(n, "smollm2", SHAPE, WORKS[n], "first" if n != "long" else "second") for n in WORKS]
    choice = search(calls, small_cpu(), TIGHT)
    assert choice.place("scores") == choice.place("short") != choice.place("long")
    assert len({(p.weights, p.kv_cache, p.devices) for p in choice.best.places}) == 1


def test_no_pair_of_simulated_sizes_is_noticeably_better() -> None:
    """The front leaves nothing out: every pair of the sizes that were weighed, composed by brute force."""
    choice = choose(TIGHT, "short", "long")
    weighing = Weighing(choice.calls, choice.hardware, TIGHT, {})
    menus = [[(o.places[0], o.calls[i]) for o in choice.options] for i in range(2)]
    pairs = (weighing.composed([a[0], b[0]], [a[1], b[1]]) for a, b in product(*menus))
    assert min(pair.cost.seconds for pair in pairs if pair.feasible) >= choice.best.cost.seconds / 1.03
