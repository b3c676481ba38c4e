"""Takes cascades apart: a call of several models becomes one call for each, the later ones for rows where those before
are unsure, and a CASE that picks the answer. What follows knows calls, guards and expressions only.
"""

import re
from collections.abc import Mapping
from dataclasses import replace
from hashlib import blake2b

from dql.grammar import ast
from dql.grammar.walk import walk
from dql.planner.calls import CASCADED, DETAILS
from dql.planner.cascade import ALONE
from dql.planner.environment import Environment
from dql.planner.logical import Column, Infer, InferCall, LogicalPlan, Project, Stage, infer, transform_plan
from dql.planner.physical import QueryPlan, rewritten

_PREFIX = "dql_sure_"  # of the parameters that hold thresholds
SURE_ANSWER = "the first sure answer"  # what EXPLAIN calls the CASE
_SURE = re.compile(rf"\$({_PREFIX}[0-9a-f]+)\b")


def take_apart(plan: LogicalPlan, env: Environment) -> LogicalPlan:
    """The plan with each cascade as calls of single models."""

    def visit(node: LogicalPlan) -> LogicalPlan:
        if not isinstance(node, Infer) or not any(call.cascade for call in node.calls):
            return node
        stages = {call.out.name: _stages(call, env) for call in node.calls if call.cascade}
        below = infer(node.child, tuple(stages[c.out.name][0] if c.cascade else c for c in node.calls))
        for number in range(1, max(map(len, stages.values()))):
            below = infer(below, tuple(calls[number] for calls in stages.values() if number < len(calls)))
        answers = {call.out.name: _answer(call, stages[call.out.name]) for call in node.calls if call.cascade}
        return Project(below, node.columns, tuple(answers.get(c.name, c.ref) for c in node.columns))

    return transform_plan(plan, visit)


def in_two(plan: LogicalPlan, lower: str) -> LogicalPlan:
    """The plan with each call that knows how sure it is as a cascade of one model: first in the precision `lower`."""

    def visit(node: LogicalPlan) -> LogicalPlan:
        if not isinstance(node, Infer):
            return node
        calls = (replace(c, cascade=(c.model,), lower=lower) if c.op in CASCADED else c for c in node.calls)
        return replace(node, calls=tuple(calls))

    return transform_plan(plan, visit)


def with_thresholds(query: QueryPlan, thresholds: Mapping[str, float], other: float) -> QueryPlan:
    """The plan with these thresholds by the name of their parameter; `other` is for those that are not among them."""

    def filled(sql: str) -> str:
        return _SURE.sub(lambda found: repr(thresholds.get(found[1], other)), sql)

    return rewritten(query, sql=filled)


def reads_threshold(expr: ast.Expr) -> bool:
    """Whether an expression is a cascade's own and not the user's."""
    return any(isinstance(node, ast.Param) and node.name.startswith(_PREFIX) for node in walk(expr))


def _stages(call: InferCall, env: Environment) -> list[InferCall]:
    """One call for each model, in the order in which they are asked."""
    sure = _PREFIX + blake2b(repr(call.question).encode(), digest_size=8).hexdigest()
    plain, answer = replace(call, cascade=(), lower=""), "VARCHAR[]" if call.multi else _PLAIN[call.op]
    # where the last model answers alone, those before it are not asked at all
    guards: tuple[ast.Expr, ...] = (*call.guards, ast.Comparison(ast.Param(sure), "<", ast.Number(f"{ALONE:g}")))
    found: list[InferCall] = []
    for number, model in enumerate(call.cascade):
        out = env.new_column(call.text, DETAILS.format(answer))
        stage = Stage(sure, number, last=False, weights=call.lower)
        found.append(replace(plain, model=model, details=True, stage=stage, out=out, guards=guards))
        guards = (*guards, _unsure(out, sure))
    unsure = tuple(_unsure(c.out, sure) for c in found)
    last = Stage(sure, len(found), last=True)
    out = env.new_column(call.text, call.out.type)
    return [*found, replace(plain, stage=last, out=out, guards=(*call.guards, *unsure))]


_PLAIN = {"classify": "VARCHAR", "filter": "BOOLEAN"}


def _answer(call: InferCall, stages: list[InferCall]) -> ast.Expr:
    """The answer of the first model that is sure, else the last one's."""
    *before, last = stages
    whens = tuple(
        ast.When(
            ast.Comparison(_field(stage.out, "confidence"), ">=", ast.Param(_sure(stage))),
            stage.out.ref if call.details else _field(stage.out, "value"),
        )
        for stage in before
    )
    return ast.Case(None, whens, last.out.ref)


def _unsure(out: Column, sure: str) -> ast.Expr:
    """Whether a model's answer is not believed, one that it does not have included."""
    below = ast.Comparison(_field(out, "confidence"), "<", ast.Param(sure))
    return ast.Is(ast.Paren(below), "FALSE", negated=True)


def _field(out: Column, name: str) -> ast.Expr:
    return ast.Call(("struct_extract",), (out.ref, ast.String(name)))


def _sure(call: InferCall) -> str:
    assert call.stage is not None
    return call.stage.sure
