"""Which of several models a query's calls run on: `USING ANY` leaves it to the planner."""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from itertools import islice, product

from dql.planner.logical import Infer, LogicalPlan, transform_plan
from dql.planner.physical import CallExec, rewritten
from dql.planner.plan import Planned
from dql.planner.statistics import infer_nodes

Chosen = Mapping[tuple[str, ...], str]  # the models named together → the one that answers
_MOST = 64  # ways to choose that are weighed


def choices(planned: Planned) -> Iterator[Chosen]:
    """Every way to choose, what was named first coming first; one empty way where nothing is left to choose."""
    calls = [call for node in infer_nodes(planned.query.root) for call in node.calls]
    named = list(dict.fromkeys(models_of(call) for call in calls if call.alternatives))
    for way in islice(product(*named), _MOST):
        yield dict(zip(named, way, strict=True))


def models_of(call: CallExec) -> tuple[str, ...]:
    """The models that may answer a call."""
    return (call.model, *call.alternatives)


def on_models(planned: Planned, chosen: Chosen) -> Planned:
    """The plans with nothing left to choose."""

    def logical(node: LogicalPlan) -> LogicalPlan:
        if not isinstance(node, Infer):
            return node
        calls = tuple(
            replace(c, model=chosen.get((c.model, *c.alternatives), c.model), alternatives=()) for c in node.calls
        )
        return replace(node, calls=calls)

    two = planned.in_two
    return replace(
        planned,
        in_two=None if two is None else lambda lower: on_models(two(lower), chosen),
        logical=transform_plan(planned.logical, logical),
        tables={name: transform_plan(plan, logical) for name, plan in planned.tables.items()},
        query=rewritten(planned.query, calls=lambda call: on_model(call, chosen)),
    )


def on_model(call: CallExec, chosen: Chosen) -> CallExec:
    """One call with nothing left to choose."""
    return replace(call, model=chosen.get(models_of(call), call.model), alternatives=())


def said(chosen: Chosen) -> str:
    """The models of a way to choose, in words."""
    return ", ".join(dict.fromkeys(chosen.values()))
