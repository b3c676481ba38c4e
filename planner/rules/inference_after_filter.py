from dataclasses import dataclass, replace

from dql.grammar import ast
from dql.planner.logical import (
    Column,
    Filter,
    Infer,
    InferCall,
    LogicalPlan,
    Project,
    column_names,
    infer,
    is_repeatable,
    over_outputs,
    transform_plan,
)


def inference_after_filter(plan: LogicalPlan) -> LogicalPlan:
    """Calls that a filter with inference does not read come after it: they run for the rows that pass."""
    return transform_plan(plan, lambda node: (_later(node) or node) if isinstance(node, Filter) else node)


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Inference and projections on top of each other, as one projection over stages of calls over a base."""

    base: LogicalPlan
    outputs: tuple[Column, ...]
    exprs: tuple[ast.Expr, ...]
    stages: tuple[tuple[InferCall, ...], ...] = ()
    projects: bool = False


def _later(node: Filter) -> LogicalPlan | None:
    below = _stretch(node.child)
    predicate = over_outputs(node.predicate, below.outputs, below.exprs) if below is not None else None
    if below is None or predicate is None:
        return None
    needed = column_names(predicate)
    early: list[tuple[InferCall, ...]] = []
    late: list[tuple[InferCall, ...]] = []
    for stage in reversed(below.stages):
        early.insert(0, tuple(call for call in stage if call.out.name in needed))
        late.insert(0, tuple(call for call in stage if call.out.name not in needed))
        needed |= {name for call in early[0] for name in call.reads()}
    if not any(early) or not any(late):
        return None
    plan = below.base
    for stage in early:
        plan = infer(plan, stage)
    plan = Filter(plan, predicate)
    for stage in late:
        plan = infer(plan, stage)
    return Project(plan, below.outputs, below.exprs) if below.projects else plan


def _stretch(plan: LogicalPlan) -> _Stretch | None:
    """None where an expression may not be moved: it is drawn afresh, or a query."""
    if not isinstance(plan, Infer | Project):
        return _Stretch(plan, plan.columns, tuple(column.ref for column in plan.columns))
    below = _stretch(plan.child)
    if below is None:
        return None
    if isinstance(plan, Project):
        moved: list[ast.Expr] = []
        for expr in plan.exprs:
            found = over_outputs(expr, below.outputs, below.exprs)
            if found is None or not is_repeatable(found):
                return None
            moved.append(found)
        return replace(below, outputs=plan.outputs, exprs=tuple(moved), projects=True)
    calls = tuple(_over(call, below) for call in plan.calls)
    known = tuple(call for call in calls if call is not None)
    if len(known) < len(calls):
        return None
    outs = tuple(call.out for call in known)
    outputs, exprs = (*below.outputs, *outs), (*below.exprs, *(out.ref for out in outs))
    return replace(below, outputs=outputs, exprs=exprs, stages=(*below.stages, known))


def _over(call: InferCall, below: _Stretch) -> InferCall | None:
    """The call over the columns below all projections."""
    prompt = over_outputs(call.prompt, below.outputs, below.exprs)
    guards = tuple(over_outputs(guard, below.outputs, below.exprs) for guard in call.guards)
    kept = tuple(guard for guard in guards if guard is not None)
    return replace(call, prompt=prompt, guards=kept) if prompt is not None and len(kept) == len(guards) else None
