from dql.planner.logical import (
    Aggregate,
    Column,
    Distinct,
    Filter,
    Infer,
    Limit,
    LogicalPlan,
    Project,
    Scan,
    Sort,
    Window,
    column_names,
    infer,
)


def prune_columns(plan: LogicalPlan) -> LogicalPlan:
    """Columns that nothing above reads are not carried, and calls whose answers nothing reads are not made."""
    return _prune(plan, {c.name for c in plan.columns})


def _prune(plan: LogicalPlan, wanted: set[str]) -> LogicalPlan:
    match plan:
        case Scan():
            return plan
        case Filter():
            return Filter(_prune(plan.child, wanted | column_names(plan.predicate)), plan.predicate)
        case Infer():
            calls = tuple(c for c in plan.calls if c.out.name in wanted)
            below = wanted - {c.out.name for c in plan.calls} | {n for c in calls for n in c.reads()}
            return infer(_narrow(_prune(plan.child, below), below), calls)
        case Window():
            kept = [i for i, c in enumerate(plan.added) if c.name in wanted]
            exprs = tuple(plan.exprs[i] for i in kept)
            read = {n for node in (*exprs, *plan.named) for n in column_names(node)}
            child = _prune(plan.child, wanted - {c.name for c in plan.added} | read)
            return Window(child, tuple(plan.added[i] for i in kept), exprs, plan.named) if kept else child
        case Project():
            kept = [i for i, c in enumerate(plan.outputs) if c.name in wanted] or [0]
            exprs = tuple(plan.exprs[i] for i in kept)
            child = _prune(plan.child, {n for e in exprs for n in column_names(e)})
            return Project(child, tuple(plan.outputs[i] for i in kept), exprs)
        case Aggregate():
            kept = [i for i, c in enumerate(plan.outputs) if c.name in wanted] or [0]
            exprs = tuple(plan.exprs[i] for i in kept)
            child = _prune(plan.child, {n for e in (*exprs, *plan.grouping) for n in column_names(e)})
            return Aggregate(child, tuple(plan.outputs[i] for i in kept), exprs, plan.grouping)
        case Distinct():
            read = {n for e in (*plan.on, *plan.keys) for n in column_names(e)}
            child = _prune(plan.child, wanted | read if plan.on else {c.name for c in plan.child.columns})
            return Distinct(child, plan.on, plan.keys)
        case Sort():
            return Sort(_prune(plan.child, wanted | {n for k in plan.keys for n in column_names(k)}), plan.keys)
        case Limit():
            return Limit(_prune(plan.child, wanted), plan.limit, plan.offset)
    raise TypeError(f"no such node: {type(plan).__name__}")


def _narrow(plan: LogicalPlan, wanted: set[str]) -> LogicalPlan:
    """`plan` without the columns that are not wanted; one stays, for the rows to be counted by."""
    kept: tuple[Column, ...] = tuple(c for c in plan.columns if c.name in wanted) or plan.columns[:1]
    return plan if len(kept) == len(plan.columns) else Project(plan, kept, tuple(c.ref for c in kept))
