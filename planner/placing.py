"""Puts the chosen placement into every call of a plan."""

from dataclasses import replace

from dql.planner.contract import Contract
from dql.planner.hardware import Kind
from dql.planner.physical import Placement, QueryPlan, rewritten
from dql.planner.search import KV, REFERENCE, Choice, settled

_PINNED = {"quantization": "weights", "kv_cache": "kv_cache", "batch_size": "max_rows"}


def placement(contract: Contract, choice: Choice | None, kind: Kind) -> Placement:
    """The chosen placement; where nothing could be counted, the usual one on such a device with what is pinned."""
    pinned = {name: value for setting, name in _PINNED.items() if (value := contract.setting(setting)) is not None}
    if choice is not None:
        return settled(choice.best.placement, contract)
    usual = Placement(weights=REFERENCE[kind], kv_cache=KV[kind][0], device=kind)
    return settled(replace(usual, **pinned), contract)  # type: ignore[arg-type]


def placed(query: QueryPlan, placement: Placement) -> QueryPlan:
    """The plan with all calls in this placement."""
    return rewritten(query, calls=lambda call: replace(call, placement=placement))
