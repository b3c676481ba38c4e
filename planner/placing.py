"""Puts the chosen placements into the calls of a plan."""

from dataclasses import replace

from dql.planner.contract import Contract
from dql.planner.hardware import Kind
from dql.planner.option import REFERENCE, settled
from dql.planner.physical import CallExec, Placement, QueryPlan, rewritten
from dql.planner.search import KV, Choice

_PINNED = {"quantization": "weights", "kv_cache": "kv_cache", "batch_size": "max_rows"}


def placement(contract: Contract, choice: Choice | None, kind: Kind, out: str = "") -> Placement:
    """Where the call with the column `out` runs, without one the longest call.

    Where nothing could be counted, the usual placement on such a device with what is pinned.
    """
    if choice is not None:
        return settled(choice.place(out), contract)
    pinned = {name: value for setting, name in _PINNED.items() if (value := contract.setting(setting)) is not None}
    usual = Placement(weights=REFERENCE[kind], kv_cache=KV[kind][0], device=kind)
    return settled(replace(usual, **pinned), contract)  # type: ignore[arg-type]


def placed(query: QueryPlan, placement: Placement) -> QueryPlan:
    """The plan with all calls in this placement, but for the precision of those that have their own."""
    return rewritten(query, calls=lambda call: replace(call, placement=_own(call, placement)))


def as_chosen(query: QueryPlan, contract: Contract, choice: Choice | None, kind: Kind) -> QueryPlan:
    """The plan with every call where the choice has it."""

    def put(call: CallExec) -> CallExec:
        return replace(call, placement=_own(call, placement(contract, choice, kind, call.out)))

    return rewritten(query, calls=put)


def _own(call: CallExec, placement: Placement) -> Placement:
    """A plan's placement, for a call of a cascade in the precision that it is asked in."""
    lower = call.stage.weights if call.stage is not None else ""
    return replace(placement, weights=lower) if lower else placement
