from dql.planner.logical import Infer, Limit, LogicalPlan, Sort, column_names, infer, transform_plan, with_children


def inference_after_limit(plan: LogicalPlan) -> LogicalPlan:
    """Calls that ORDER BY does not read come after sorting and LIMIT: they run only for the rows that remain."""

    def rewrite(node: LogicalPlan) -> LogicalPlan:
        if not isinstance(node, Sort | Limit) or not isinstance(below := node.child, Infer):
            return node
        read = {n for key in node.keys for n in column_names(key)} if isinstance(node, Sort) else set()
        late = tuple(call for call in below.calls if call.out.name not in read)
        if not late:
            return node
        early = infer(below.child, tuple(call for call in below.calls if call.out.name in read))
        return Infer(rewrite(with_children(node, (early,))), late)

    return transform_plan(plan, rewrite)
