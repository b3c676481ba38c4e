"""Filters with inference whose conditions may be asked in any order: AND and OR have none in SQL.

A row must meet a tree of conditions. Each part of it is asked about the rows that the parts before it left open,
whichever those are, so the guards that say so for the order written can go.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from dql.grammar import ast
from dql.planner.logical import (
    Column,
    Filter,
    Infer,
    InferCall,
    LogicalPlan,
    Project,
    Unary,
    column_names,
    is_repeatable,
)

Stages = tuple[tuple[InferCall, ...], ...]


@dataclass(frozen=True, slots=True)
class Condition:
    """What must be TRUE of a row: a predicate over the answers of calls, which are asked stage by stage."""

    predicate: ast.Expr
    stages: Stages = ()

    @property
    def calls(self) -> tuple[InferCall, ...]:
        """Its calls, in the order in which they are asked."""
        return tuple(call for stage in self.stages for call in stage)


@dataclass(frozen=True, slots=True)
class Conditions:
    """Parts of which all, or with `any` one, must be TRUE of a row. No part reads what another asks."""

    parts: tuple["Condition | Conditions", ...]
    any: bool = False

    @property
    def calls(self) -> tuple[InferCall, ...]:
        """The calls of all parts, as written."""
        return tuple(call for part in self.parts for call in part.calls)

    @property
    def answered(self) -> tuple[InferCall, ...]:
        """Calls that have been asked about every row of which the whole is TRUE."""
        parts = () if self.any else self.parts
        return tuple(call for part in parts for call in (part.calls if isinstance(part, Condition) else part.answered))

    @property
    def predicate(self) -> ast.Expr:
        """All of it as one expression."""
        found = (part.predicate for part in self.parts)
        terms = tuple(ast.Paren(p) if isinstance(p, ast.And | ast.Or) else p for p in found)
        return ast.Or(terms) if self.any else ast.And(terms)


@dataclass(frozen=True, slots=True)
class Sift(Unary):
    """Rows that meet the conditions, asked in an order that is learnt on the way.

    Its columns are its child's and those answers which every such row has that are read above.
    """

    conditions: Conditions
    kept: tuple[Column, ...] = ()

    @property
    def columns(self) -> tuple[Column, ...]:
        return (*self.child.columns, *self.kept)

    @property
    def computed(self) -> tuple[Column, ...]:
        return (*self.child.columns, *(call.out for call in self.conditions.calls))


def chain(node: Filter) -> tuple[list[Condition], LogicalPlan]:
    """The conditions of filters on top of each other, the lowest first, none reading another's answers, and the plan
    below them.
    """
    links: list[Condition] = []  # the topmost first
    below: LogicalPlan = node
    while isinstance(below, Filter) and (found := _link(below)) is not None:
        link, child = found
        outs = {call.out.name for call in link.calls}
        readers = [other for other in links if _reads(other) & outs]
        if any(other.stages for other in readers):
            break
        for other in readers:
            links.remove(other)
            link = replace(link, predicate=ast.And((ast.Paren(link.predicate), ast.Paren(other.predicate))))
        links.append(link)
        below = child
    return links[::-1], below


def sifted(node: Filter, read_above: set[str]) -> Sift | None:
    """A chain of filters with inference as one; None where order makes no difference.

    read_above: columns that are read above the chain; what an OR asks of only some rows cannot be among them.
    """
    links, below = chain(node)
    parts: list[Condition | Conditions] = []
    for link in links:
        split = None if {call.out.name for call in link.calls} & read_above else _split(link)
        parts += split.parts if split is not None and not split.any else [split or link]
    whole = parts[0] if len(parts) == 1 else Conditions(tuple(parts))
    if not isinstance(whole, Conditions) or not _has_order(whole):
        return None
    kept = tuple(call.out for call in whole.answered if call.out.name in read_above)
    return Sift(below, whole, kept)


def _has_order(conditions: Conditions) -> bool:
    """Whether two parts that ask something stand side by side."""
    within = [part for part in conditions.parts if isinstance(part, Conditions)]
    return sum(bool(part.calls) for part in conditions.parts) > 1 or any(map(_has_order, within))


def _link(node: Filter) -> tuple[Condition, LogicalPlan] | None:
    """A filter with the calls right below it, and what lies below those; None where it must stay as it is."""
    stages: list[tuple[InferCall, ...]] = []
    child = _wide(node.child)
    while isinstance(child, Infer):
        stages.insert(0, child.calls)
        child = _wide(child.child)
    if any(call.stage is not None for stage in stages for call in stage):
        return None  # a cascade is calibrated on the rows that reach it in the order written
    exprs = (node.predicate, *(e for stage in stages for call in stage for e in (call.prompt, *call.guards)))
    if not all(map(is_repeatable, exprs)):
        return None
    return Condition(node.predicate, tuple(stages)), child


def _wide(plan: LogicalPlan) -> LogicalPlan:
    """`plan` without projections that only leave columns out."""
    while isinstance(plan, Project) and plan.exprs == tuple(column.ref for column in plan.outputs):
        plan = plan.child
    return plan


def _reads(condition: Condition) -> set[str]:
    return column_names(condition.predicate) | {name for call in condition.calls for name in call.reads()}


def _split(condition: Condition) -> Conditions | None:
    """An AND or OR as its operands, each with its own calls; None where operands share calls or there are none."""
    predicate = _bare(condition.predicate)
    if not isinstance(predicate, ast.And | ast.Or):
        return None
    decided = "TRUE" if isinstance(predicate, ast.Or) else "FALSE"
    asides = [ast.Is(_bare(term), decided, negated=True) for term in predicate.terms]
    parts: list[Condition | Conditions] = []
    taken: set[str] = set()
    for term in predicate.terms:
        stages = _needed(term, condition.stages, asides)
        outs = {call.out.name for stage in stages for call in stage}
        found = Condition(term, stages)
        if outs & taken or _reads(found) & ({call.out.name for call in condition.calls} - outs):
            return None
        taken |= outs
        parts.append(_split(found) or found)
    if taken != {call.out.name for call in condition.calls}:
        return None
    return Conditions(tuple(parts), any=decided == "TRUE")


def _needed(term: ast.Expr, stages: Stages, asides: Sequence[ast.Is]) -> Stages:
    """The calls that a term reads, directly or in a prompt, without the guards that say what its siblings are not."""
    wanted = column_names(term)
    needed: list[tuple[InferCall, ...]] = []
    for stage in reversed(stages):
        kept = [
            replace(call, guards=tuple(g for g in call.guards if not _is_aside(g, asides)))
            for call in stage
            if call.out.name in wanted
        ]
        wanted |= {name for call in kept for name in call.reads()}
        needed.insert(0, tuple(kept))
    return tuple(stage for stage in needed if stage)


def _is_aside(guard: ast.Expr, asides: Sequence[ast.Is]) -> bool:
    return isinstance(guard, ast.Is) and replace(guard, operand=_bare(guard.operand)) in asides


def _bare(expr: ast.Expr) -> ast.Expr:
    while isinstance(expr, ast.Paren):
        expr = expr.expr
    return expr
