"""What calls above other inference will ask, before anyone knows: rows by selectivity, prompts by what lies below.

A guess is there to be seen in EXPLAIN, with a wide interval. No plan is refused for one, and when the run reaches the
call its sizes are planned anew with what came.
"""

import re
from collections.abc import Mapping, Sequence
from math import inf, prod

from dql.planner.lengths import mean
from dql.planner.physical import (
    CallExec,
    ConditionExec,
    ConditionsExec,
    FragmentExec,
    InferExec,
    LimitExec,
    MapExec,
    PhysicalPlan,
    SiftExec,
)
from dql.planner.statistics import CallStatistics, condition_steps
from dql.prompts import CompiledPrompt

PASSES = 0.5  # of the rows pass a filter that reads an answer, as long as nobody has seen it
_WHERE = re.compile(r"\b(WHERE|HAVING|QUALIFY|ON)\b", re.IGNORECASE)
_NAME = re.compile(r"\b_\d+\b")


def guessed(
    node: InferExec,
    compiled: Mapping[str, Sequence[CompiledPrompt]],
    known: Mapping[str, CallStatistics],
    answers: Mapping[str, float],
    passes: Mapping[str, float],
    before: InferExec | None = None,
) -> dict[str, CallStatistics]:
    """Statistics of a node's calls by their columns; {} where the calls below are not known either.

    known: statistics of the calls below; answers: mean tokens of an answer, by its column; passes: the share of rows
    that a filter let through in earlier runs, by its column. before: the node that runs before this one; where it is
    another step of the same filter, this one is asked about what it lets through.
    """
    below = [call for child in _children(node) for call in calls_below(child) if call.out in known]
    share = _selectivity(node.child, below, passes)
    if not below and before is not None and _source(before) == _source(node):
        below = [call for call in before.calls if call.out in known]
        share = prod(passes.get(call.out, PASSES) for call in below)
    if not below:
        return {}
    rows = min(max(known[call.out].rows for call in below) * share, _limit(node.child))
    texts = [_text_tokens(known[call.out]) for call in below if call.holes]
    usual = sum(texts) / len(texts) if texts else 0.0
    found = {}
    for call in node.calls:
        read = _names_in(node.child)
        tokens = sum(_hole_tokens(hole, read, answers, usual) for hole in call.holes)
        reached = rows * PASSES if call.guard is not None else rows
        found[call.out] = _statistics(round(reached), compiled[call.out], tokens)
    return found


def _statistics(rows: int, prompts: Sequence[CompiledPrompt], tokens: float) -> CallStatistics:
    length = min((prompt.constant_tokens for prompt in prompts), default=0) + tokens
    shared = min((prompt.constant_prefix_tokens for prompt in prompts), default=0)
    asked = rows * len(prompts)
    return CallStatistics(
        rows=rows,
        asked=asked,
        distinct=asked,
        prompt_tokens=round(asked * length),
        distinct_tokens=round(asked * length),
        shared=shared,
        longest=round(length),
        prompts=max(len(prompts), 1),
        exact=False,
        computed=round(shared + asked * (length - shared)),
        lengths=(length,),
        once=asked,
        guessed=True,
    )


def _selectivity(plan: PhysicalPlan, below: Sequence[CallExec], passes: Mapping[str, float]) -> float:
    """The share of rows that filters between a node and the calls below let through."""
    share = 1.0
    while not isinstance(plan, InferExec):
        if isinstance(plan, SiftExec):
            return share * sifted(plan.conditions, passes)
        if isinstance(plan, MapExec | FragmentExec):
            share *= passing(plan.sql, below, passes)[1]
        children = _children(plan)
        if len(children) != 1:
            break
        plan = children[0]
    return share


def _limit(plan: PhysicalPlan) -> float:
    """The most rows that LIMITs between a node and the calls below let through."""
    most = inf
    while isinstance(plan, MapExec | LimitExec):
        if isinstance(plan, LimitExec) and plan.limit is not None:
            most = min(most, plan.limit)
        plan = plan.child
    return most


def passing(sql: str, below: Sequence[CallExec], passes: Mapping[str, float]) -> tuple[list[CallExec], float]:
    """The calls that a filter of SQL reads, and the share of rows that it lets through."""
    if not _WHERE.search(sql):
        return [], 1.0
    read = [call for call in below if re.search(rf"\b{call.out}\b", sql.partition("WHERE")[2])]
    return read, prod(passes.get(call.out, PASSES) for call in read)


def sifted(conditions: ConditionExec | ConditionsExec, passes: Mapping[str, float]) -> float:
    """The share of rows that meet conditions, taken as independent of each other."""
    if isinstance(conditions, ConditionExec):
        return prod(passes.get(call.out, PASSES) for step in conditions.steps for call in step.calls)
    shares = [sifted(part, passes) for part in conditions.parts]
    return 1 - prod(1 - share for share in shares) if conditions.any else prod(shares)


def _hole_tokens(hole: str, sql: str, answers: Mapping[str, float], usual: float) -> float:
    """Tokens of the text in a hole: an answer's where its column is computed from one, else as below."""
    source = re.search(rf"([^,]*?)\bAS\s+\"?{re.escape(hole)}\b", sql)
    names = [hole, *(_NAME.findall(source[1]) if source else ())]
    return next((answers[name] for name in names if name in answers), usual)


def _text_tokens(statistics: CallStatistics) -> float:
    return max(mean(statistics.lengths or (1.0,)) - statistics.shared, 1.0)


def _names_in(plan: PhysicalPlan) -> str:
    return plan.sql if isinstance(plan, MapExec | FragmentExec) else ""


def _source(node: InferExec) -> PhysicalPlan | str:
    """What a step of a filter reads, whatever columns it computes of it."""
    child = node.child
    if isinstance(child, MapExec):
        return child.child.sql if isinstance(child.child, FragmentExec) else child.child
    return child.sql.partition("(")[2].removesuffix(")") if isinstance(child, FragmentExec) else child


def _children(plan: PhysicalPlan) -> list[PhysicalPlan]:
    if isinstance(plan, FragmentExec):
        return [child for _, child in plan.inputs]
    child = getattr(plan, "child", None)
    return [child] if isinstance(child, PhysicalPlan) else []


def calls_below(plan: PhysicalPlan) -> list[CallExec]:
    """The calls of the inference nodes that are reached first."""
    if isinstance(plan, InferExec):
        return list(plan.calls)
    if isinstance(plan, SiftExec):
        return [call for step in condition_steps(plan.conditions) for call in step.calls]
    return [call for child in _children(plan) for call in calls_below(child)]
