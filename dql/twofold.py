"""One model at two precisions: a lower one answers where it is sure, and the reference where it is not.

It is a cascade that the planner makes by itself under a bound on quality: priced before it is tested, calibrated on the
user's own rows, and taken where it costs less than the reference and than a lower precision that is proven as a whole.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from dql.cascades import ASSUMED, reached
from dql.planner.candidates import PricedCall
from dql.planner.cascade import ALONE, sample_size
from dql.planner.option import lossy_cache, preference
from dql.planner.plan import Planned
from dql.planner.search import Choice, lossy
from dql.proofs import alone
from dql.saving import gain, loading

if TYPE_CHECKING:
    from dql.estimate import Estimate

Weigh = Callable[[Sequence[PricedCall], Mapping[str, float]], Choice]
Ways = Mapping[str, Choice]  # the precision that is asked first → what that would cost, the cheapest first


def ways(reference: Choice, outs: Collection[str], share: float, weigh: Weigh) -> Ways:
    """What asking the calls `outs` in a lower precision first would cost, before anybody knows how many rows go on to
    the reference: of the precisions that an engine has those for which calibrating pays. share: of the contract's risk,
    how much may be taken."""
    contract, hardware = reference.contract, reference.hardware
    pinned = lossy_cache(hardware, contract) or contract.setting("quantization") is not None
    names = lossy(hardware, contract)
    seconds = _calibrating(reference, outs, 2 * len(names), share)  # each is tested as a whole, too
    if pinned or contract.wants_quality or seconds is None:
        return {}
    found = {}
    for name in names:
        plan = weigh(in_two(reference.calls, outs, name, ASSUMED), {})
        rescued = plan.best.feasible and not reference.best.feasible
        if rescued or gain(reference, plan)[0] > loading(plan) + seconds:
            found[name] = plan
    return dict(sorted(found.items(), key=lambda item: preference(item[1].best, contract)))


def in_two(calls: Sequence[PricedCall], outs: Collection[str], name: str, share: float) -> list[PricedCall]:
    """The calls where those in `outs` are asked in the precision `name` first, and for a share of the rows again."""
    found = []
    for call in calls:
        if call.out in outs:
            found.append(replace(call, out=f"{call.out} in {name}", run=f"{call.run} in {name}", weights=name))
            found.append(replace(call, work=reached(call.work, share)))
        else:
            found.append(call)
    return found


def _calibrating(reference: Choice, outs: Collection[str], tested: int, share: float) -> float | None:
    """Seconds that calibrating the calls `outs` takes, where one of `tested` may take its part of that share of the
    risk; None where there is nothing to calibrate, or too few rows."""
    bounds = reference.contract.bounds_on("quality")
    if not bounds:
        return None
    target = max(bound.value for bound in bounds)
    delta = min(1 - bound.confidence for bound in bounds) * share / max(tested, 1)
    calls = zip(reference.calls, reference.best.calls, strict=True)
    asked = [(sample_size(c.work.rows, target, delta), cost) for c, cost in calls if c.out in outs]
    if not asked or not all(rows for rows, _ in asked):
        return None
    seconds = sum(rows * cost.seconds / max(cost.rows, 1) for rows, cost in asked)
    # all that is asked is remembered: what the run would not have asked is the reference's surplus
    return seconds * (1 - ASSUMED)


def cheapest(found: "Estimate", tried: Ways, reference: str, predict: Callable[[Planned], "Estimate"]) -> "Estimate":
    """The estimate, or that of the first way to ask two precisions that is better and keeps its promise.

    Where nobody may calibrate yet, a way is taken if it is the only one that may turn out to keep the contract.
    """
    if found.choice is None or found.planned.in_two is None:
        return found
    lines: list[str] = []
    for name, hoped in tried.items():
        if not better(hoped, found.choice):
            continue
        other = predict(found.planned.in_two(name))
        said = [f"{name} first, {reference} where it is unsure: {line}" for line in other.settled.promises]
        if other.choice is None or not other.settled.calibrated:
            continue  # why nothing can be proven is said of the precision as a whole
        needed = other.choice.best.feasible and not found.choice.best.feasible
        if needed if other.settled.open else better(other.choice, found.choice):
            whole = alone(reference)
            kept = (line for line in found.quality if line != whole)
            before = [line.replace(f"{whole}: ", "no precision as a whole: ", 1) for line in kept]
            return replace(other, quality=(*before, *lines, *said))
        spares = not other.settled.open and any(sure < ALONE for sure in other.settled.thresholds.values())
        lines += [f"{line}, but too few rows are spared to pay" for line in said] if spares else said
    return replace(found, quality=(*found.quality, *lines))


def better(one: Choice, other: Choice) -> bool:
    """Whether a plan is preferred to another for the same contract."""
    return preference(one.best, one.contract) < preference(other.best, other.contract)
