"""From a contract to a placement: price the space in closed form, simulate the best few, take the best of them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import polars as pl

from dql.errors import ConfigError, UnsupportedError
from dql.planner.candidates import ROWS, STEP_TOKENS, PricedCall, Space, frame, price
from dql.planner.contract import Contract
from dql.planner.hardware import Hardware
from dql.planner.option import REFERENCE, Option, Weighing, lossy_cache, objective, preference, reference_of
from dql.planner.physical import Placement
from dql.planner.runs import NEAR, by_runs, unusual
from dql.planner.shortlist import FIELDS, excess, neighbours, shortlist

SIMULATED = 32
_BARELY = 1.5  # a bound missed by so much may be kept at another step size
_LOSSY = {"cpu": ("bf16", "int8"), "cuda": ("fp8", "int8", "int4")}
KV = {"cpu": ("fp32", "bf16"), "cuda": ("bf16", "fp8")}


@dataclass(frozen=True, slots=True)
class Choice:
    """The outcome: `best`, the plans that were simulated in order of preference, and how many were weighed at all.

    feasible: how many of the weighed plans meet the contract, by the closed form where they were not simulated.
    """

    best: Option
    options: tuple[Option, ...]
    considered: int
    feasible: int
    hardware: Hardware
    contract: Contract
    calls: tuple[PricedCall, ...]
    candidates: pl.DataFrame = field(compare=False)

    @property
    def holds(self) -> bool:
        """Whether the best plan has the memory that it takes, also where its rows are only guessed."""
        return bool(self.best.cost.memory <= _limit(self.hardware, self.contract))

    @property
    def decodes(self) -> bool:
        """Whether a call generates; otherwise the batch size means nothing."""
        return any(call.work.decodes for call in self.calls)

    def place(self, out: str) -> Placement:
        """Where a call runs, by the column of its answer; one without figures runs where the longest does."""
        known = (call.at(place) for call, place in zip(self.calls, self.best.places, strict=True) if call.out == out)
        return next(known, self.best.placement)

    @property
    def slower(self) -> float:
        """Predicted seconds over those of the same placements without `deterministic = true`."""
        weighing = Weighing(self.calls, self.hardware, self.contract, {})
        places = [replace(place, deterministic=False) for place in self.best.places]
        return self.best.cost.seconds / max(weighing.seconds(places), 1e-12)

    @property
    def next_best(self) -> Option | None:
        """The best other plan that meets the contract and takes noticeably longer or shorter."""
        best = self.best
        others = (o for o in self.options if o.feasible == best.feasible)
        unlike = [o for o in others if _headline(o.placement) != _headline(best.placement)]
        ratios = ((o, o.cost.seconds / max(best.cost.seconds, 1e-12)) for o in unlike)
        return next((o for o, ratio in ratios if not 1 / NEAR <= ratio <= NEAR), None)


def _headline(placement: Placement) -> tuple[object, ...]:
    """What sets one plan apart from another in a few words."""
    return placement.weights, placement.devices, placement.max_rows


def search(
    calls: Sequence[PricedCall],
    hardware: Hardware,
    contract: Contract,
    agreement: Mapping[str, float] | None = None,
    *,
    what_if: bool = False,
    sizes_of: Placement | None = None,
) -> Choice:
    """The cheapest plan for the calls of a query: one precision and sharding, and sizes for each run. It may miss the
    contract: see `best.misses`. Drafts guess ahead where a plan with them keeps the bounds that one without them does.

    agreement: measured lower bounds of the share of answers that a precision leaves as they are. what_if: the hardware
    need not be here, so that sharding and lossy precisions are weighed too. sizes_of: only the sizes are open, all else
    is this placement's. Raises UnsupportedError for pinned settings that no engine of this hardware has, ConfigError
    where a bound needs a price that nobody gave.
    """
    alone = [replace(call, draft=None) for call in calls]
    guesses = any(call.draft is not None for call in calls) and (sizes_of is None or sizes_of.draft_slots != 0)
    some = agreement or {}
    found = _search(calls if guesses else alone, hardware, contract, some, what_if=what_if, sizes_of=sizes_of)
    if not guesses or (found.best.feasible and found.holds):
        return found
    plain = _search(alone, hardware, contract, some, what_if=what_if, sizes_of=sizes_of)
    missed = [preference(choice.best, contract)[0] for choice in (plain, found)]
    if (missed[0], not plain.holds) >= (missed[1], not found.holds):
        return found
    off = (
        replace(p, draft_slots=None if c.draft is None else 0) for c, p in zip(calls, plain.best.places, strict=True)
    )
    return replace(plain, best=replace(plain.best, places=tuple(off)), calls=tuple(calls))


def _search(
    calls: Sequence[PricedCall],
    hardware: Hardware,
    contract: Contract,
    agreement: Mapping[str, float],
    *,
    what_if: bool,
    sizes_of: Placement | None,
) -> Choice:
    """`search`, with the drafts that the calls have."""
    check_price(hardware, contract)
    space = _with_tested(space_of(hardware, contract, what_if=what_if), hardware, contract, agreement)
    if sizes_of is not None:
        space = _resized(space, sizes_of)
    if calls and not any(call.work.decodes for call in calls):
        space = replace(space, max_rows=space.max_rows[:1])  # rows that only score never wait for each other
    priced = price(frame(space), calls, hardware, deterministic=bool(contract.setting("deterministic")))
    weights = _allowed(hardware, contract, agreement) if sizes_of is None else (sizes_of.weights,)
    allowed = pl.col("weights").is_in(list(weights))
    marked = priced.with_columns(
        allowed=allowed,
        fits=pl.col("memory") < _limit(hardware, contract),
        excess=excess(priced, contract, calls, hardware),
    )

    weighing = Weighing(tuple(calls), hardware, contract, agreement)

    def simulated(rows: pl.DataFrame) -> list[Option]:
        places = (Placement(**{name: row[name] for name in FIELDS}) for row in rows.iter_rows(named=True))
        return [weighing.simulated(place) for place in places]

    def alone(some: Sequence[PricedCall]) -> list[Option]:
        like = best.places[0]
        return list(_search(some, hardware, contract, agreement, what_if=what_if, sizes_of=like).options)

    options = simulated(shortlist(marked, contract, hardware.kind))
    near = neighbours(marked, _seeds(options, contract), [o.placement for o in options], hardware.kind)
    options += simulated(near.head(SIMULATED - len(options)))
    options.sort(key=lambda option: preference(option, contract))
    best = _usual_near(options, contract, hardware.kind)
    best = by_runs(best, options, weighing, _resized(space, best.places[0]), alone)
    feasible = marked.filter(pl.col("allowed") & pl.col("fits") & (pl.col("excess") <= 1)).height
    exact = sum(o.feasible for o in options)
    count = 0 if not exact else max(feasible, exact)
    return Choice(best, tuple(options), marked.height, count, hardware, contract, tuple(calls), marked)


def check_price(hardware: Hardware, contract: Contract) -> None:
    """Raises ConfigError where a bound needs a price that nobody gave."""
    if hardware.price is None and (bound := contract.bound("cost")) is not None:
        hint = "set DQL_PRICE_PER_HOUR to this machine's USD per hour"
        raise ConfigError("a bound on cost needs a price", span=bound.span, hint=hint)


def _limit(hardware: Hardware, contract: Contract) -> float:
    """Bytes that a plan may take."""
    bound = contract.bound("memory")
    return min(hardware.memory, hardware.memory if bound is None else bound.value)


def _with_tested(space: Space, hardware: Hardware, contract: Contract, agreement: Mapping[str, float]) -> Space:
    """The space with the precisions whose agreement is known, unless one is pinned."""
    if contract.setting("quantization") is not None:
        return space
    tested = (p for p in agreement if p in hardware.peak and p not in space.weights)
    return replace(space, weights=(*space.weights, *tested))


def lossy(hardware: Hardware, contract: Contract) -> tuple[str, ...]:
    """Precisions that may answer otherwise than the reference, of those that an engine of this hardware has; the pinned
    one alone where one is. With a pinned cache that may, every precision does."""
    reference = None if lossy_cache(hardware, contract) else reference_of(hardware, contract)
    pinned = contract.setting("quantization")
    every = (pinned,) if pinned is not None else (REFERENCE[hardware.kind], *_LOSSY[hardware.kind])
    return tuple(str(p) for p in every if p in hardware.peak and p != reference)


def space_of(hardware: Hardware, contract: Contract, *, what_if: bool) -> Space:
    """The points that the contract leaves open on this hardware. What is pinned has one value."""
    reference = reference_of(hardware, contract)
    weights = _pinned(contract, "quantization", hardware, what_if)
    kv_cache = _pinned(contract, "kv_cache", hardware, what_if)
    devices = _pinned_count(contract, "devices", hardware, what_if)
    tensor = _pinned_count(contract, "tensor_parallel", hardware, what_if)
    pipeline = _pinned_count(contract, "pipeline_parallel", hardware, what_if)
    _check_shards(contract, max(tensor, 1) * max(pipeline, 1), devices or hardware.devices)
    rows = contract.setting("batch_size")
    powers = tuple(1 << n for n in range(10) if 1 << n <= hardware.devices)
    others = tuple(p for p in _LOSSY[hardware.kind] if p in hardware.peak) if what_if else ()
    return Space(
        weights=(str(weights),) if weights else (reference, *others),
        kv_cache=(str(kv_cache),) if kv_cache else (REFERENCE[hardware.kind],),
        max_rows=(int(rows),) if isinstance(rows, int) else ROWS,
        step_tokens=STEP_TOKENS[hardware.kind],
        tensor_parallel=(tensor,) if tensor else powers,
        pipeline_parallel=(pipeline,) if pipeline else powers,
        data_parallel=powers,
        devices=devices or hardware.devices,
    )


def _resized(space: Space, placement: Placement) -> Space:
    """The sizes of a space, with everything else as in `placement`."""
    return replace(
        space,
        weights=(placement.weights,),
        kv_cache=(placement.kv_cache,),
        tensor_parallel=(placement.tensor_parallel,),
        pipeline_parallel=(placement.pipeline_parallel,),
        data_parallel=(placement.data_parallel,),
    )


def _pinned(contract: Contract, name: str, hardware: Hardware, what_if: bool) -> object:
    """A pinned precision, checked against what the hardware (and, unless `what_if`, the engine) has."""
    value = contract.setting(name)
    if value is None:
        return None
    can = hardware.peak if name == "quantization" else KV[hardware.kind]
    if value not in can:
        known = ", ".join(can)
        raise UnsupportedError(
            f"{name} = {value} does not run on {hardware}",
            span=contract.places.get(name),
            hint=f"it runs {known}"
            + ("" if what_if else "; EXPLAIN (ON 'h100') … prices other machines")
            + _taken_back(name, contract),
        )
    return value


def _pinned_count(contract: Contract, name: str, hardware: Hardware, what_if: bool) -> int:
    """A pinned number of devices or shards; 0 where it is open."""
    value, devices = contract.setting(name), hardware.devices
    if not isinstance(value, int):
        return 0
    if value > devices or value & (value - 1):
        hint = "leave it out" if value > devices else "it is a power of two"
        more = "" if what_if else ", or price other machines with EXPLAIN (ON 'h100:8') …"
        has = (
            f"the machine has {devices} device{'s' if devices > 1 else ''}"
            if hardware.shipped
            else "a query runs on 1 device"
        )
        raise UnsupportedError(
            f"{name} = {value}, and {has}",
            span=contract.places.get(name),
            hint=hint + more + _taken_back(name, contract),
        )
    return value


def _taken_back(name: str, contract: Contract) -> str:
    """How to be rid of a setting that no query shows."""
    return f"; RESET {name} takes back what SET gave" if name in contract.of_session else ""


def _check_shards(contract: Contract, shards: int, devices: int) -> None:
    """Complain about pinned numbers that each could be, but not together."""
    if shards <= devices:
        return
    names = ("tensor_parallel", "pipeline_parallel", "devices")
    pins = ", ".join(f"{name} = {value}" for name in names if (value := contract.setting(name)) is not None)
    span = next((contract.places[name] for name in names if name in contract.places), None)
    what = f"{pins}: one model takes {shards} devices, and has {devices}"
    raise UnsupportedError(what, span=span, hint="leave one of them out")


def _allowed(hardware: Hardware, contract: Contract, agreement: Mapping[str, float]) -> tuple[str, ...]:
    """Precisions that may be chosen: the reference, what is pinned, and what is known to keep the quality bound."""
    reference, pinned = reference_of(hardware, contract), contract.setting("quantization")
    if pinned is not None:
        return (str(pinned),)
    bounds = contract.bounds_on("quality")
    certified = (p for p, share in agreement.items() if all(share >= bound.value for bound in bounds))
    return (reference, *certified) if contract.may_lose else (reference,)


def _seeds(options: Sequence[Option], contract: Contract) -> list[Placement]:
    """The best plans simulated so far, and of those that barely miss a bound the best and the nearest."""
    ordered = sorted(options, key=lambda option: preference(option, contract))
    barely = [o for o in options if o.misses and max(o.misses.values()) <= _BARELY]
    found = [*ordered[:2], *sorted(barely, key=lambda option: objective(option, contract))[:1]]
    found += sorted(barely, key=lambda option: max(option.misses.values()))[:1]
    return [option.placement for option in found]


def _usual_near(options: Sequence[Option], contract: Contract, kind: str) -> Option:
    """Of the plans that are as good as the best, the one nearest to the engine's own sizes."""
    first = options[0]
    if not first.feasible or contract.wants_quality:
        return first
    limit = objective(first, contract) * NEAR
    near = [o for o in options if o.feasible and objective(o, contract) <= limit]
    return min(near, key=lambda o: unusual((o.placement.max_rows, o.placement.step_tokens), kind))
