from dql.planner.logical import Filter, Infer, LogicalPlan, column_names, transform_plan


def filter_before_inference(plan: LogicalPlan) -> LogicalPlan:
    """A filter that reads no answer goes below the calls: they run only for the rows it leaves."""

    def rewrite(node: LogicalPlan) -> LogicalPlan:
        if isinstance(node, Filter) and isinstance(infer := node.child, Infer):
            answers = {call.out.name for call in infer.calls}
            if not column_names(node.predicate) & answers:
                return Infer(rewrite(Filter(infer.child, node.predicate)), infer.calls)
        return node

    return transform_plan(plan, rewrite)
