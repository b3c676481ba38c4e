"""The rules, in order, and the loop that applies them until none changes the plan."""

from collections.abc import Callable
from dataclasses import dataclass

from dql.planner.logical import LogicalPlan
from dql.planner.rules.cheap_before_dear import cheap_before_dear
from dql.planner.rules.equal_calls_once import equal_calls_once
from dql.planner.rules.filter_before_inference import filter_before_inference
from dql.planner.rules.inference_after_filter import inference_after_filter
from dql.planner.rules.inference_after_limit import inference_after_limit
from dql.planner.rules.join_on_labels import join_on_labels
from dql.planner.rules.learn_filter_order import learn_filter_order
from dql.planner.rules.order_fields import order_fields
from dql.planner.rules.prune_columns import prune_columns
from dql.planner.rules.stop_in_order import stop_in_order

Rule = Callable[[LogicalPlan], LogicalPlan]

RULES: tuple[Rule, ...] = (
    filter_before_inference,
    cheap_before_dear,
    inference_after_filter,
    inference_after_limit,
    stop_in_order,
    equal_calls_once,
    order_fields,
    prune_columns,
    join_on_labels,
    learn_filter_order,
)
_LAST = (join_on_labels, learn_filter_order)  # they hide the filters that the others look for


@dataclass(frozen=True, slots=True)
class Applied:
    """A rule that changed the plan, with the plan before and after."""

    rule: str
    before: LogicalPlan
    after: LogicalPlan


def optimize(plan: LogicalPlan, rules: tuple[Rule, ...] = RULES) -> tuple[LogicalPlan, tuple[Applied, ...]]:
    """The plan after all rules, and what each of them did."""
    applied: list[Applied] = []

    def apply(rule: Rule, plan: LogicalPlan) -> LogicalPlan:
        after = rule(plan)
        if after != plan:
            applied.append(Applied(rule.__name__, plan, after))
        return after

    start: LogicalPlan | None = None
    while plan != start:
        start = plan
        for rule in (rule for rule in rules if rule not in _LAST):
            plan = apply(rule, plan)
    for rule in (rule for rule in rules if rule in _LAST):
        plan = apply(rule, plan)
    return plan, tuple(applied)
