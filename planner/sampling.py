"""Where random rows of a call's input can be drawn: from the SQL below it, through what runs row by row between."""

import re
from dataclasses import replace

from dql.planner.physical import FragmentExec, InferExec, MapExec, PhysicalPlan, SiftExec

_TWICE = re.compile(r"\b(nextval|setseed)\s*\(", re.IGNORECASE)
_MANY = re.compile(r"\bunnest\b", re.IGNORECASE)  # rows of one row depend on each other


def changes_state(sql: str) -> bool:
    """Whether SQL that is read twice leaves something else behind than read once."""
    return _TWICE.search(sql) is not None


def source(node: InferExec) -> FragmentExec | None:
    """The query whose random rows become, row by row, random rows of a node's input; None where there is none."""
    plan = node.child
    while isinstance(plan, MapExec | InferExec | SiftExec):
        if isinstance(plan, MapExec) and _MANY.search(plan.sql):
            return None
        plan = plan.child
    if not isinstance(plan, FragmentExec) or plan.inputs or changes_state(plan.sql):
        return None
    return plan


def over(plan: PhysicalPlan, below: FragmentExec) -> PhysicalPlan:
    """The plan of a node's input over other rows."""
    if isinstance(plan, MapExec | InferExec | SiftExec):
        return replace(plan, child=over(plan.child, below))
    return below
