"""What one plan saves over another, and what it takes before its first row: whether to find out more pays is told by
these.
"""

from dql.planner.search import Choice

_LOAD = 2e-9  # seconds that a parameter takes to load in another precision


def gain(reference: Choice, other: Choice) -> tuple[float, float]:
    """Seconds that the other plan saves, and what a row takes with both."""
    one, two = reference.best.cost, other.best.cost
    return one.seconds - two.seconds, (one.seconds + two.seconds) / max(one.rows, 1)


def loading(plan: Choice) -> float:
    """Seconds that loading its models in another precision takes."""
    return sum({c.model: c.shape.parameters * _LOAD for c in plan.calls}.values())
