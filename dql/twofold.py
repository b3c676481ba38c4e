"""One model at two precisions: a lower one answers where it is sure, and the reference where it is not.

It is a cascade that the planner makes by itself under a bound on quality: priced before it is tested, calibrated on the
user's own rows, and taken where it costs less than the reference and than a lower precision that is proven as a whole.
"""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from dql.cascades import ASSUMED, reached
from dql.planner.candidates import PricedCall
from dql.planner.cascade import ALONE
from dql.planner.option import preference
from dql.planner.plan import Planned
from dql.planner.search import Choice
from dql.proofs import alone

if TYPE_CHECKING:
    from dql.estimate import Estimate

Weigh = Callable[[Sequence[PricedCall], Mapping[str, float]], Choice]
Ways = Mapping[str, Choice]  # the precision that is asked first → what that would cost, the cheapest first


def ways(reference: Choice, outs: Collection[str], lower: Iterable[str], weigh: Weigh) -> Ways:
    """What asking the calls `outs` in each of these precisions first would cost, before anybody knows how many rows
    go on to the reference."""

    def asked(name: str) -> list[PricedCall]:
        found = []
        for call in reference.calls:
            if call.out in outs:
                found.append(replace(call, out=f"{call.out} in {name}", run=f"{call.run} in {name}", weights=name))
                found.append(replace(call, work=reached(call.work, ASSUMED)))
            else:
                found.append(call)
        return found

    priced = {name: weigh(asked(name), {}) for name in lower}
    return dict(sorted(priced.items(), key=lambda item: preference(item[1].best, reference.contract)))


def cheapest(found: "Estimate", tried: Ways, reference: str, predict: Callable[[Planned], "Estimate"]) -> "Estimate":
    """The estimate, or that of the first way to ask two precisions that is better and keeps its promise.

    Where nobody may calibrate yet, a way is taken if it is the only one that may turn out to keep the contract.
    """
    if found.choice is None or found.planned.in_two is None:
        return found
    lines: list[str] = []
    for name, hoped in tried.items():
        if not _better(hoped, found.choice):
            continue
        other = predict(found.planned.in_two(name))
        said = [f"{name} first, {reference} where it is unsure: {line}" for line in other.settled.promises]
        if other.choice is None or not other.settled.calibrated:
            continue  # why nothing can be proven is said of the precision as a whole
        needed = other.choice.best.feasible and not found.choice.best.feasible
        if needed if other.settled.open else _better(other.choice, found.choice):
            before = [line for line in found.quality if line != alone(reference)]
            return replace(other, quality=(*before, *lines, *said))
        spares = not other.settled.open and any(sure < ALONE for sure in other.settled.thresholds.values())
        lines += [f"{line}, but too few rows are spared to pay" for line in said] if spares else said
    return replace(found, quality=(*found.quality, *lines))


def _better(one: Choice, other: Choice) -> bool:
    return preference(one.best, one.contract) < preference(other.best, other.contract)
