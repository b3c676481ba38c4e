"""Sizes for each of a query's runs: calls that an engine answers together have one batch and step size, others theirs.

Bounds tie the runs together: a row's latency is the sum over its calls, a job's seconds are all runs'. So each run has
a menu of sizes with their costs, and of two menus what is kept of their combinations is what no other combination beats
in all figures that a bound or the objective adds up (their Pareto front), run after run.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import log2

import polars as pl

from dql.planner.candidates import KEYS, PricedCall, Space, frame, price
from dql.planner.contract import Bound, Contract
from dql.planner.cost import Cost, together
from dql.planner.option import Option, Weighing, objective, preference
from dql.planner.physical import Placement
from dql.planner.shortlist import USUAL
from dql.planner.simulate import PERCENTILES

NEAR = 1.03  # plans within this of the best are equal for all one can tell
_FRONT = 48  # combinations that go on to the next run
_COMPOSED = 12  # combinations that are weighed to the last bound
_APART = ("ttft", "tpot", "memory")  # bounds that each run keeps or misses by itself

Sizes = tuple[int, int]  # rows at once, tokens of a step
Menu = Mapping[Sizes, tuple[Placement, Sequence[Cost]]]


@dataclass(frozen=True, slots=True)
class _Combination:
    """Sizes for some of the runs. missed: the worst factor by which a run misses a bound of its own, at least 1;
    sums: of seconds, then of the latencies that matter."""

    sizes: tuple[Sizes, ...]
    missed: float
    sums: tuple[float, ...]


def by_runs(
    best: Option,
    options: Sequence[Option],
    weighing: Weighing,
    space: Space,
    alone: Callable[[Sequence[PricedCall]], list[Option]],
) -> Option:
    """`best`, a plan of one placement for all calls, or a better one that gives each run sizes of its own.

    options: simulated plans of one placement; space: the sizes that are open in the precision and sharding of `best`;
    alone: simulated plans there for some calls that run by themselves. Sizes of their own are chosen where they pay
    noticeably, or where bounds are kept by them alone.
    """
    runs: dict[str, list[int]] = {}
    for number, call in enumerate(weighing.calls):
        runs.setdefault(call.run, []).append(number)
    if len(runs) < 2 or (best.feasible and weighing.contract.wants_quality):
        return best
    if best.feasible and not weighing.contract.bounds and not _promising(best, list(runs.values()), weighing, space):
        return best
    menus = [_menu(members, best, options, alone([weighing.calls[i] for i in members])) for members in runs.values()]
    front = [_Combination((), 1.0, (0.0,) * (1 + len(_latencies(weighing.contract))))]
    for members, menu in zip(runs.values(), menus, strict=True):
        dishes = [_dish(sizes, costs, members, weighing) for sizes, (_, costs) in menu.items()]
        front = _pareto([_joined(one, other) for one in front for other in dishes])
    front.sort(key=lambda found: _promise(found, weighing))

    def compose(chosen: Sequence[Sizes]) -> Option:
        return _composed(chosen, list(runs.values()), menus, weighing)

    mixed = min(
        (compose(found.sizes) for found in front[:_COMPOSED]), key=lambda option: preference(option, weighing.contract)
    )
    if not _better(mixed, best, weighing.contract):
        return best
    chosen = [_sizes(mixed.places[members[0]]) for members in runs.values()]
    return _usual(mixed, chosen, menus, weighing, compose)


def _promising(best: Option, runs: Sequence[Sequence[int]], weighing: Weighing, space: Space) -> bool:
    """Whether sizes of their own would save noticeably, by the closed form."""
    figure = "latency" if weighing.contract.objective[1] == "latency" else "seconds"
    rows, tokens = _sizes(best.placement)
    now = least = 0.0
    for members in runs:
        some, fixed = [weighing.calls[i] for i in members], best.placement.deterministic
        priced = price(frame(space), some, weighing.hardware, deterministic=fixed)
        same = priced.filter((pl.col("max_rows") == rows) & (pl.col("step_tokens") == tokens))
        now += float(same[figure][0])
        least += float(priced[figure].to_numpy().min())
    return now > least * NEAR


def _better(mixed: Option, best: Option, contract: Contract) -> bool:
    """Whether a plan of several sizes is noticeably better than one that is simpler."""
    if mixed.feasible and best.feasible:
        return objective(mixed, contract) * NEAR < objective(best, contract)
    return mixed.feasible or preference(mixed, contract)[0] * NEAR < preference(best, contract)[0]


def _menu(members: Sequence[int], best: Option, options: Sequence[Option], alone: Sequence[Option]) -> Menu:
    """Sizes of one run, with the placement and the costs of its calls, `members`."""
    wanted = _shards(best.places[0])
    found = {
        _sizes(o.places[0]): (o.places[0], [o.calls[i] for i in members])
        for o in options
        if _shards(o.places[0]) == wanted
    }
    return found | {_sizes(o.places[0]): (o.places[0], o.calls) for o in alone}


def _dish(sizes: Sizes, costs: Sequence[Cost], members: Sequence[int], weighing: Weighing) -> _Combination:
    """What one run at these sizes adds to a plan."""
    contract = weighing.contract
    counted = [c for i, c in zip(members, costs, strict=True) if not weighing.calls[i].work.guessed]
    known = together(counted, max(c.memory for c in costs))
    apart = [known.excess(bound, 1.0) for bound in contract.bounds if bound.name in _APART] if counted else []
    late = (sum(figure(c) for c in counted) for figure in _latencies(contract))
    return _Combination((sizes,), max(1.0, *apart, 1.0), (sum(c.seconds for c in costs), *late))


def _latencies(contract: Contract) -> list[Callable[[Cost], float]]:
    """The figures of a row's latency that bounds or the objective look at."""

    def figure(bound: Bound) -> Callable[[Cost], float]:
        return lambda cost: cost.of(bound)

    found = [figure(bound) for bound in contract.bounds_on("latency")]
    if contract.objective[1] == "latency":
        found.append(lambda cost: cost.latency[PERCENTILES.index("p95")])
    return found


def _joined(one: _Combination, other: _Combination) -> _Combination:
    sums = tuple(a + b for a, b in zip(one.sums, other.sums, strict=True))
    return _Combination((*one.sizes, *other.sizes), max(one.missed, other.missed), sums)


def _pareto(found: list[_Combination]) -> list[_Combination]:
    """Those that no other beats in all figures, thinned out evenly where they are many."""
    kept: list[_Combination] = []
    for each in sorted(found, key=lambda c: (c.missed, *c.sums)):
        if not any(_beats(other, each) for other in kept):
            kept.append(each)
    if len(kept) <= _FRONT:
        return kept
    kept.sort(key=lambda c: c.sums)
    return [kept[round(i * (len(kept) - 1) / (_FRONT - 1))] for i in range(_FRONT)]


def _beats(one: _Combination, other: _Combination) -> bool:
    return one.missed <= other.missed and all(a <= b for a, b in zip(one.sums, other.sums, strict=True))


def _promise(found: _Combination, weighing: Weighing) -> tuple[float, float]:
    """What to expect of a combination: by how much bounds are missed, then the objective."""
    contract, (seconds, *late) = weighing.contract, found.sums
    missed = found.missed
    for bound, reached in zip(contract.bounds_on("latency"), late, strict=False):
        missed = max(missed, reached / max(bound.value, 1e-12))
    return missed, late[-1] if contract.objective[1] == "latency" else seconds


def _composed(
    chosen: Sequence[Sizes], runs: Sequence[Sequence[int]], menus: Sequence[Menu], weighing: Weighing
) -> Option:
    places: dict[int, Placement] = {}
    costs: dict[int, Cost] = {}
    for sizes, members, menu in zip(chosen, runs, menus, strict=True):
        place, figures = menu[sizes]
        places |= dict.fromkeys(members, place)
        costs |= dict(zip(members, figures, strict=True))
    order = range(len(weighing.calls))
    return weighing.composed([places[i] for i in order], [costs[i] for i in order])


def _usual(
    best: Option,
    chosen: list[Sizes],
    menus: Sequence[Menu],
    weighing: Weighing,
    compose: Callable[[Sequence[Sizes]], Option],
) -> Option:
    """Of plans as good as the best, one nearer to the engine's own sizes, run by run."""
    limit = objective(best, weighing.contract) * NEAR
    for run, menu in enumerate(menus):
        for sizes in sorted(menu, key=lambda each: unusual(each, weighing.hardware.kind)):
            if sizes == chosen[run]:
                break
            other = [*chosen[:run], sizes, *chosen[run + 1 :]]
            option = compose(other)
            if option.feasible >= best.feasible and objective(option, weighing.contract) <= limit:
                if not option.feasible and preference(option, weighing.contract) > preference(best, weighing.contract):
                    continue
                best, chosen = option, other
                break
    return best


def unusual(sizes: Sizes, kind: str) -> float:
    """How far sizes are from the engine's own, in doublings."""
    rows, tokens = USUAL[kind]
    return abs(log2(sizes[0] / rows)) + abs(log2(sizes[1] / tokens))


def _sizes(placement: Placement) -> Sizes:
    return placement.max_rows, placement.step_tokens


def _shards(placement: Placement) -> tuple[object, ...]:
    return tuple(getattr(placement, name) for name in KEYS)
