"""From a bound query to what runs: rules, lowering, and the whole story kept for EXPLAIN."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace

from dql.planner.binder import BoundQuery
from dql.planner.cascading import in_two, take_apart
from dql.planner.contract import Contract
from dql.planner.environment import Environment
from dql.planner.logical import LogicalPlan, Scan, user_names, walk_plan
from dql.planner.lower import Lowering
from dql.planner.optimizer import RULES, Applied, Rule, optimize
from dql.planner.physical import QueryPlan
from dql.planner.rules.learn_filter_order import learn_filter_order
from dql.planner.scope import Fields


@dataclass(frozen=True, slots=True)
class Planned:
    """A query's plans: as bound, as rewritten and by which rules, and as it will run. `tables` are read by its SQL.

    in_two: the same query with its labels asked in a lower precision first, and of the rows where that is unsure again.
    """

    fields: Fields
    contract: Contract
    bound: LogicalPlan
    logical: LogicalPlan
    applied: tuple[Applied, ...]
    tables: Mapping[str, LogicalPlan]
    query: QueryPlan
    in_two: Callable[[str], "Planned"] | None = field(default=None, compare=False, repr=False)


def plan_query(bound: BoundQuery, contract: Contract, env: Environment, rules: tuple[Rule, ...] = RULES) -> Planned:
    """Rewrite a bound query and lower it; plans that it reads as tables are rewritten too.

    `rules`: those to apply, but for the contract's `disabled_rules`. Where answers may change operands keep the order
    written: what is proven of one is proven on the rows that those before it let through.
    """
    disabled = contract.setting("disabled_rules")
    if isinstance(disabled, tuple):
        rules = tuple(rule for rule in rules if rule.__name__ not in disabled)
    if contract.may_lose:
        rules = tuple(rule for rule in rules if rule is not learn_filter_order)
    found = _planned(bound, contract, env, rules)
    first = env.next_number()

    def twofold(lower: str) -> Planned:
        plans = {name: (in_two(plan, lower), types) for name, (plan, types) in env.plans.items()}
        return _planned(replace(bound, plan=in_two(bound.plan, lower)), contract, env.with_plans(plans, first), rules)

    return replace(found, in_two=twofold)


def _planned(bound: BoundQuery, contract: Contract, env: Environment, rules: tuple[Rule, ...]) -> Planned:
    logical, applied = optimize(take_apart(bound.plan, env), rules)
    tables: dict[str, LogicalPlan] = {}
    for name, (plan, _) in env.plans.items():
        tables[name], more = optimize(take_apart(plan, env), rules)
        applied += more
    for plan in [logical, *tables.values()]:  # rules make tables as well
        tables |= {name: table for node in walk_plan(plan) if isinstance(node, Scan) for name, table in node.inputs}
    lowering = Lowering(env.params, tables, user_names([logical, *tables.values()]))
    names = tuple(f.name for f in bound.fields)
    types = tuple(f.type for f in bound.fields)
    query = QueryPlan(lowering.lower(logical), names, types)
    return Planned(bound.fields, contract, bound.plan, logical, applied, tables, query)
