"""Puts the chosen placement into every call of a plan."""

from dataclasses import replace

from dql.planner.contract import Contract
from dql.planner.physical import FragmentExec, InferExec, LimitExec, MapExec, PhysicalPlan, Placement, QueryPlan
from dql.planner.search import Choice


def placement(contract: Contract, choice: Choice | None) -> Placement:
    """The chosen placement; where nothing could be counted, the engine's own sizes and what is pinned."""
    rows = contract.setting("batch_size")
    usual = Placement(max_rows=rows) if isinstance(rows, int) else Placement()
    chosen = usual if choice is None else choice.best.placement
    return replace(chosen, deterministic=bool(contract.setting("deterministic")))


def placed(query: QueryPlan, placement: Placement) -> QueryPlan:
    """The plan with all calls in this placement."""
    return replace(query, root=_placed(query.root, placement))


def _placed(node: PhysicalPlan, placement: Placement) -> PhysicalPlan:
    match node:
        case InferExec():
            calls = tuple(replace(call, placement=placement) for call in node.calls)
            return replace(node, child=_placed(node.child, placement), calls=calls)
        case MapExec() | LimitExec():
            return replace(node, child=_placed(node.child, placement))
        case FragmentExec():
            return replace(node, inputs=tuple((name, _placed(child, placement)) for name, child in node.inputs))
    return node
