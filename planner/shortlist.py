"""Which of the priced plans are worth simulating: what the closed form says of bounds and objectives, with room."""

from collections.abc import Sequence
from math import log2
from operator import attrgetter

import numpy as np
import polars as pl

from dql.planner.candidates import KEYS, SIZES, PricedCall
from dql.planner.contract import Bound, Contract
from dql.planner.cost import spread
from dql.planner.hardware import Floats, Hardware
from dql.planner.physical import Placement

USUAL = {"cpu": (256, 1024), "cuda": (256, 8192)}  # rows and tokens of a step where nothing speaks for others
FIELDS = (*KEYS, *SIZES)
_GROUP = FIELDS[:-1]
_ROOMS = (1.0, 0.8, 0.6, 0.4)  # of a bound that plans to be simulated keep to by the closed form
_FIRST = 20  # plans that the closed form chooses
_TINY = 1e-300  # seconds; what takes none has no logarithm
_SAME = 1.03  # seconds that the closed form does not tell apart


def excess(priced: pl.DataFrame, contract: Contract, calls: Sequence[PricedCall], hardware: Hardware) -> pl.Series:
    """By how much the closed form misses bounds on speed at the worse end of its interval; at most 1 where it meets
    them. Guessed calls count as little here as they do in what is simulated.
    """
    found: Floats = np.zeros(priced.height)
    known = [call for call in calls if not call.work.guessed]
    if len(known) < len(calls) or not known:
        return pl.Series(found)
    give = 1 + max(spread(call.work, hardware) for call in known)
    seconds = priced["seconds"].to_numpy()
    tokens = sum(c.work.distinct * (c.work.shared + c.work.mean_own + c.work.mean_output) for c in known)
    hourly = (hardware.price or 0.0) * rented(hardware, contract)
    for bound in (bound for bound in contract.bounds if not undecided(bound, known)):
        match bound.name:
            case "latency":
                value = priced["latency"].to_numpy() * max(_stretch(c, bound) for c in known)
            case "ttft" | "tpot":
                value = priced[bound.name].to_numpy()
            case "deadline":
                value = seconds + bound.spent / give
            case "cost":
                value = seconds / 3600 * hourly
            case "throughput":
                amount = max(c.work.rows for c in known) if bound.unit.lower() == "rows/s" else tokens
                found = np.maximum(found, bound.value * seconds * give / max(amount, 1e-12))
                continue
            case _:
                continue
        found = np.maximum(found, value * give / max(bound.value, 1e-12))
    return pl.Series(found)


def undecided(bound: Bound, calls: Sequence[PricedCall]) -> bool:
    """Whether a plan that misses `bound` may keep it after all: with rows that were not counted, which keep a machine
    busier, or with fewer rows than guessed until a LIMIT ends the run."""
    if bound.name == "throughput":
        return any(call.work.at_least for call in calls)
    return bound.name in ("deadline", "cost") and any(call.work.unsure >= 1 for call in calls)


def _stretch(call: PricedCall, bound: Bound) -> float:
    """How much longer the answers at the bound's percentile are than usual."""
    lengths = call.work.outputs
    if len(lengths) < 2:
        return 1.0
    percentile = float((bound.qualifier or "p95")[1:]) / 100
    return float(np.interp(percentile, np.linspace(0, 1, len(lengths)), lengths)) / max(call.work.mean_output, 1.0)


def shortlist(marked: pl.DataFrame, contract: Contract, kind: str) -> pl.DataFrame:
    """The plans to simulate first: those that fit and are allowed, best objective first, some with room to bounds.

    A closed form is not exact: where the best that it lets through turn out to miss a bound, those that keep it with
    room are at hand, and those with the quickest rows however dear. It hardly tells step sizes apart: of otherwise
    equal plans one is taken.
    """
    key = "latency" if contract.objective[1] == "latency" else "seconds"
    usable = marked.filter("allowed")
    fitting = usable.filter("fits")
    if fitting.is_empty():
        return usable.sort("memory").head(1)
    unusual, memory, excess = _unusual(fitting, kind), fitting["memory"].to_numpy(), fitting["excess"].to_numpy()
    # within a few hundredths: the usual step is taken
    same = np.floor(np.log(np.maximum(fitting[key].to_numpy(), _TINY)) / np.log(_SAME))
    group = fitting.select(pl.struct(_GROUP).rle_id()).to_series().to_numpy()  # sizes of a step come last

    def ordered(*keys: Floats) -> list[int]:
        """The best of each group, the best first."""
        order = np.lexsort((memory, unusual, *reversed(keys)))
        _, first = np.unique(group[order], return_index=True)
        best: list[int] = order[np.sort(first)].tolist()
        return best

    best = [ordered(np.maximum(excess / room, 1.0), same) for room in _ROOMS]
    share = _FIRST // (len(best) + 1)
    quick = ordered(fitting["latency"].to_numpy())
    chosen = dict.fromkeys(place for part in (*best, quick) for place in part[:share]) | dict.fromkeys(best[0])
    return fitting[list(chosen)[:_FIRST]]


def neighbours(marked: pl.DataFrame, seeds: Sequence[Placement], known: Sequence[Placement], kind: str) -> pl.DataFrame:
    """The other step sizes of some plans, those near the usual one first; `known` plans are left out."""
    groups = set(map(attrgetter(*_GROUP), seeds))
    seen = set(map(attrgetter(*FIELDS), known))
    fitting = marked.filter(pl.col("allowed") & pl.col("fits"))
    rows = fitting.select(FIELDS).rows()
    places = [place for place, row in enumerate(rows) if row[: len(_GROUP)] in groups and row not in seen]
    unusual = _unusual(fitting, kind)
    return fitting[sorted(places, key=lambda place: unusual[place])]


def _unusual(plans: pl.DataFrame, kind: str) -> Floats:
    """How far the step size of each is from the engine's own."""
    found: Floats = np.abs(np.log2(plans["step_tokens"].to_numpy()) - log2(USUAL[kind][1]))
    return found


def rented(hardware: Hardware, contract: Contract) -> int:
    """Devices that are paid for: all of the machine's, or as many as are pinned."""
    pinned = contract.setting("devices")
    return pinned if isinstance(pinned, int) else hardware.devices
