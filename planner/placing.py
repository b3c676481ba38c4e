"""Puts the chosen placement into every call of a plan."""

from dataclasses import replace

from dql.planner.contract import Contract
from dql.planner.physical import (
    CallExec,
    ConditionExec,
    ConditionsExec,
    FragmentExec,
    InferExec,
    LimitExec,
    MapExec,
    PhysicalPlan,
    Placement,
    QueryPlan,
    SiftExec,
)
from dql.planner.search import Choice, settled

_PINNED = {"quantization": "weights", "kv_cache": "kv_cache", "batch_size": "max_rows"}


def placement(contract: Contract, choice: Choice | None) -> Placement:
    """The chosen placement; where nothing could be counted, the engine's own sizes and what is pinned."""
    pinned = {name: value for setting, name in _PINNED.items() if (value := contract.setting(setting)) is not None}
    chosen = replace(Placement(), **pinned) if choice is None else choice.best.placement  # type: ignore[arg-type]
    return settled(chosen, contract)


def placed(query: QueryPlan, placement: Placement) -> QueryPlan:
    """The plan with all calls in this placement."""
    return replace(query, root=_placed(query.root, placement))


def _placed(node: PhysicalPlan, placement: Placement) -> PhysicalPlan:
    match node:
        case InferExec():
            return replace(node, child=_placed(node.child, placement), calls=_calls(node.calls, placement))
        case SiftExec():
            conditions = _conditions(node.conditions, placement)
            return replace(node, child=_placed(node.child, placement), conditions=conditions)
        case MapExec() | LimitExec():
            return replace(node, child=_placed(node.child, placement))
        case FragmentExec():
            return replace(node, inputs=tuple((name, _placed(child, placement)) for name, child in node.inputs))
    return node


def _calls(calls: tuple[CallExec, ...], placement: Placement) -> tuple[CallExec, ...]:
    return tuple(replace(call, placement=placement) for call in calls)


def _conditions(node: ConditionsExec, placement: Placement) -> ConditionsExec:
    return replace(node, parts=tuple(_part(part, placement) for part in node.parts))


def _part(part: ConditionExec | ConditionsExec, placement: Placement) -> ConditionExec | ConditionsExec:
    if isinstance(part, ConditionsExec):
        return _conditions(part, placement)
    steps = tuple(replace(step, calls=_calls(step.calls, placement)) for step in part.steps)
    return replace(part, steps=steps)
