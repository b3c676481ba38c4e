from dql.planner.logical import Filter, Infer, InferCall, LogicalPlan, column_names, transform_plan


def cheap_before_dear(plan: LogicalPlan) -> LogicalPlan:
    """Of two semantic filters the cheaper comes first, so that the dearer sees fewer rows; AND has no order in SQL."""

    def rewrite(node: LogicalPlan) -> LogicalPlan:
        match node:
            case Filter(Infer(Filter(Infer(child, first), first_test), second), second_test):
                answers = {call.out.name for call in first}
                reads = {n for call in second for n in call.reads()} | column_names(second_test)
                if not reads & answers and price(second) < price(first):
                    return Filter(Infer(rewrite(Filter(Infer(child, second), second_test)), first), first_test)
        return node

    return transform_plan(plan, rewrite)


def price(calls: tuple[InferCall, ...]) -> int:
    """Tokens decoded or scored per row at most: the order of magnitude that separates a label from a paragraph."""
    return sum(call.decoding.max_tokens if call.op == "generate" else max(2, len(call.labels.names)) for call in calls)
