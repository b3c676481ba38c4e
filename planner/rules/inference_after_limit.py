from dql.planner.logical import (
    Distinct,
    Infer,
    Limit,
    LogicalPlan,
    Project,
    Sort,
    column_names,
    infer,
    over_outputs,
    transform_plan,
    with_children,
)


def inference_after_limit(plan: LogicalPlan) -> LogicalPlan:
    """Calls come after sorting, LIMIT and DISTINCT ON that do not read them: they run for the rows that remain."""
    return transform_plan(plan, _rewrite)


def _rewrite(node: LogicalPlan) -> LogicalPlan:
    if not isinstance(node, Sort | Limit | Distinct) or (isinstance(node, Distinct) and not node.on):
        return node
    below = node.child
    if isinstance(below, Project) and _infers(below.child):
        moved = _below(node, below)
        return Project(_rewrite(moved), below.outputs, below.exprs) if moved is not None else node
    if not isinstance(below, Infer):
        return node
    read = _reads(node)
    late = tuple(call for call in below.calls if call.out.name not in read)
    if not late:
        return node
    early = infer(below.child, tuple(call for call in below.calls if call.out.name in read))
    return Infer(_rewrite(with_children(node, (early,))), late)


def _infers(plan: LogicalPlan) -> bool:
    """Whether calls lie below, with only projections between."""
    while isinstance(plan, Project):
        plan = plan.child
    return isinstance(plan, Infer)


def _reads(node: Sort | Limit | Distinct) -> set[str]:
    keys = () if isinstance(node, Limit) else node.keys
    on = node.on if isinstance(node, Distinct) else ()
    return {name for part in (*keys, *on) for name in column_names(part)}


def _below(node: Sort | Limit | Distinct, project: Project) -> LogicalPlan | None:
    """The node over the input of a projection, or None where that would change what it sees."""
    if isinstance(node, Limit):
        return with_children(node, (project.child,))
    keys = tuple(over_outputs(key, project.outputs, project.exprs) for key in node.keys)
    on = tuple(over_outputs(e, project.outputs, project.exprs) for e in (node.on if isinstance(node, Distinct) else ()))
    if None in keys or None in on:
        return None
    kept_keys, kept_on = tuple(k for k in keys if k is not None), tuple(e for e in on if e is not None)
    return Distinct(project.child, kept_on, kept_keys) if isinstance(node, Distinct) else Sort(project.child, kept_keys)
