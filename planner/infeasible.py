"""What to say of a contract that no plan meets: which bound binds, the nearest plan, what would make it possible."""

from collections.abc import Iterator, Sequence
from dataclasses import replace

from dql.errors import PlanError
from dql.planner.contract import BOUND_KINDS, Bound, Contract
from dql.planner.explain_cost import sizes_text, spent_text
from dql.planner.hardware import hardware_named, shipped
from dql.planner.option import MACHINE_MEMORY, Option, reference_of
from dql.planner.search import Choice, search
from dql.planner.units import bytes_text, interval_text, rate_text, usd_text

_FEWEST = (64, 32, 16, 8, 4, 2, 1)
_ROUND = 1.05  # a relaxed bound leaves so much room
_COUNTS = (1, 8)  # devices of a machine that are tried
_SHRINK = ("latency", "deadline", "throughput", "cost", "memory")  # bounds that shorter answers help to keep


def infeasible(choice: Choice, quality: Sequence[str] = ()) -> PlanError:
    """The error for a choice whose best plan misses its contract. quality: what is certain of the answers, told where
    that is why."""
    bounds = _missed(choice)
    named = " and ".join(str(b) for b in bounds) or MACHINE_MEMORY
    models = ", ".join(dict.fromkeys(call.model for call in choice.calls))
    reached = ", ".join(_reached(choice.best, bound) for bound in bounds) or _held(choice)
    lines = [
        f"no plan meets {named} on {choice.hardware} with {models}",
        f"  nearest: {placement_text(choice)} → {reached}",
    ]
    reference = reference_of(choice.hardware, choice.contract)
    if any(bound.name == "quality" for bound in bounds):
        lines += [f"  nothing is proven: {line.removeprefix(f'{reference} answers: ')}" for line in quality]
    elif choice.contract.wants_quality:
        lines += [f"  {line}" for line in quality]
    if ways := list(_ways(choice, bounds)):
        lines.append(f"  meet it with: {' · '.join(ways)}")
    span = next((bound.span for bound in bounds), None)
    return PlanError("\n".join(lines), span=span, hint="or take the nearest plan: WITH best_effort = true")


def placement_text(choice: Choice) -> str:
    """The placement in words: 'fp32, batch 128, 1,024 tokens a step'."""
    place = choice.best.placement
    shards = [
        f"{name} {count}"
        for name, count in (
            ("tensor parallel", place.tensor_parallel),
            ("pipeline", place.pipeline_parallel),
            ("replicas", place.data_parallel),
        )
        if count > 1
    ]
    return ", ".join([place.weights, *shards, ", then ".join(sizes_text(choice, ", "))])


def _missed(choice: Choice) -> list[Bound]:
    """The missed bounds, the one that binds most first."""
    missed = [b for b in choice.contract.bounds if str(b) in choice.best.misses]
    return sorted(missed, key=lambda b: -choice.best.misses[str(b)])


def _held(choice: Choice) -> str:
    return f"{bytes_text(choice.best.cost.memory)} of {bytes_text(choice.hardware.memory)}"


def _reached(option: Option, bound: Bound) -> str:
    """The figure of a plan that a bound speaks of, with its interval."""
    cost = option.cost
    match bound.name:
        case "latency" | "ttft" | "tpot":
            worst = cost.of(bound)
            middle = worst / (1 + cost.slack_of(bound))
            return f"{bound.name} {bound.qualifier or 'p95'} {interval_text(middle, worst - middle)}"
        case "deadline":
            return interval_text(bound.spent + cost.seconds, cost.give) + spent_text(bound)
        case "throughput":
            rate = cost.rows_per_second if bound.unit.lower() == "rows/s" else cost.tokens_per_second
            return f"{rate_text(rate)} {bound.unit}"
        case "cost":
            return usd_text(cost.usd or 0.0)
        case "memory":
            return bytes_text(cost.memory)
    return f"quality {option.quality:.3g}" if option.quality else "no proof of quality"


def _ways(choice: Choice, bounds: list[Bound]) -> Iterator[str]:
    """Contracts near to the asked one that can be met."""
    unproven = not choice.best.quality and any(bound.name == "quality" for bound in bounds)
    if unproven:
        pins = [name for name in ("quantization", "kv_cache") if choice.contract.is_pinned(name)]
        yield " and ".join([f"{name} left out" for name in pins] or ["more rows to prove it on"])
    elif bounds:
        yield ", ".join(_relaxed(choice.best, bound) for bound in bounds)
    if (fewer := _fewer_tokens(choice, bounds)) is not None:
        yield fewer
    if MACHINE_MEMORY in choice.best.misses and not choice.contract.bound("quality"):
        yield "quality >= 0.95, which lets lower precisions be tried · a pinned quantization"
    if not unproven and (device := _device(choice)) is not None:
        yield f"a device: EXPLAIN (ON '{device}') …"


def _relaxed(option: Option, bound: Bound) -> str:
    """The bound at a value that the nearest plan keeps, in the unit that it was written in, rounded to its side."""
    kind = BOUND_KINDS[bound.name]
    value = option.cost.of(bound, option.quality)
    room = value * _ROUND if kind.upper else value / _ROUND
    unit = next(u for u in kind.units if u.lower() == bound.unit.lower())
    if bound.unit in ("ms", "s", "min") and kind.units[unit] * 1000 <= room:
        unit = next(u for u in ("s", "min", "h") if room < kind.units[u] * 1000 or u == "h")
    return str(replace(bound, value=_two_digits(room / kind.units[unit], kind.upper) * kind.units[unit], unit=unit))


def _two_digits(value: float, up: bool) -> float:
    digits = float(f"{value:.1e}")
    step = 10.0 ** (len(str(int(max(value, 1)))) - 2) if value >= 1 else value / 10
    if up and digits < value:
        digits += step
    elif not up and digits > value:
        digits -= step
    return float(f"{digits:.2g}")


def _fewer_tokens(choice: Choice, bounds: list[Bound]) -> str | None:
    """The largest `max_tokens` under the present one that makes the contract possible, or goes half the way to it."""
    longest = max((call.work.longest_output for call in choice.calls), default=0)
    if not all(bound.name in _SHRINK for bound in bounds) or longest < 2:
        return None
    for count in (n for n in _FEWEST if n < longest):
        if (shorter := _shorter(choice, count)).best.feasible:
            return f"max_tokens = {count}"
        if max(shorter.best.misses.values()) < max(choice.best.misses.values()) / 4:
            return f"max_tokens = {count} and {', '.join(_relaxed(shorter.best, bound) for bound in _missed(shorter))}"
    return None


def _shorter(choice: Choice, count: int) -> Choice:
    calls = [replace(call, work=call.work.with_max_tokens(count)) for call in choice.calls]
    return search(calls, choice.hardware, choice.contract, what_if=choice.hardware.shipped)


def _device(choice: Choice) -> str | None:
    """The first of the shipped machines, by price, that meets the contract."""
    pinned = {name: value for name, value in choice.contract.pinned.items() if name not in ("quantization", "kv_cache")}
    contract = Contract(choice.contract.bounds, choice.contract.objective, pinned)
    known = [hardware_named(f"{name}:{count}") for name in shipped() for count in _COUNTS]
    known = [h for h in known if h.kind != "cpu" and h.price is not None and str(h) != str(choice.hardware)]
    for hardware in sorted(known, key=lambda h: (h.price or 0.0) * h.devices):
        if search(choice.calls, hardware, contract, what_if=True).best.feasible:
            return str(hardware)
    return None
