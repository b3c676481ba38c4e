"""Puts the chosen placement into every call of a plan."""

from dataclasses import replace

from dql.planner.contract import Contract
from dql.planner.physical import Placement, QueryPlan, rewritten
from dql.planner.search import Choice, settled

_PINNED = {"quantization": "weights", "kv_cache": "kv_cache", "batch_size": "max_rows"}


def placement(contract: Contract, choice: Choice | None) -> Placement:
    """The chosen placement; where nothing could be counted, the engine's own sizes and what is pinned."""
    pinned = {name: value for setting, name in _PINNED.items() if (value := contract.setting(setting)) is not None}
    chosen = replace(Placement(), **pinned) if choice is None else choice.best.placement  # type: ignore[arg-type]
    return settled(chosen, contract)


def placed(query: QueryPlan, placement: Placement) -> QueryPlan:
    """The plan with all calls in this placement."""
    return rewritten(query, calls=lambda call: replace(call, placement=placement))
