"""How many rows are asked about before a LIMIT is met: what it wants over the share that the filters let through.

Such a run takes small windows first, each twice the one before, and ends with the one that brings the last row.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from dql.planner.guess import calls_below, passing, sifted
from dql.planner.physical import CallExec, FragmentExec, InferExec, LimitExec, MapExec, PhysicalPlan, SiftExec
from dql.planner.statistics import condition_steps
from dql.planner.windows import WINDOW_ROWS

FIRST_ROWS = 16  # of a run that a LIMIT may end


@dataclass(frozen=True, slots=True)
class Early:
    """Rows that calls below a LIMIT are asked about until it is met. known: earlier runs told what filters let through;
    without them it is a guess."""

    rows: int
    known: bool


@dataclass(frozen=True, slots=True)
class _Wanted:
    """Rows that a node is to yield, and whether that is known."""

    rows: float
    known: bool = True

    def before(self, share: float, read: Sequence[CallExec], passes: Mapping[str, float]) -> "_Wanted":
        """The same before a filter over the answers of `read` that lets `share` of its rows through."""
        return _Wanted(self.rows / max(share, 1e-9), self.known and all(call.out in passes for call in read))


def early(root: PhysicalPlan, passes: Mapping[str, float]) -> dict[str, Early]:
    """By the columns of calls that a LIMIT may end early. passes: see `guessed`."""
    found: dict[str, Early] = {}

    def visit(plan: PhysicalPlan, wanted: _Wanted | None) -> None:
        match plan:
            case LimitExec():
                visit(plan.child, _limited(plan, wanted))
            case MapExec():
                read, share = passing(plan.sql, calls_below(plan.child), passes)
                visit(plan.child, wanted and wanted.before(share, read, passes))
            case SiftExec():
                calls = [call for step in condition_steps(plan.conditions) for call in step.calls]
                below = wanted and wanted.before(sifted(plan.conditions, passes), calls, passes)
                note(calls, below)
                visit(plan.child, below)
            case InferExec():
                note(plan.calls, wanted)
                visit(plan.child, wanted)
            case FragmentExec():
                for _, child in plan.inputs:
                    visit(child, None)

    def note(calls: Sequence[CallExec], wanted: _Wanted | None) -> None:
        if wanted is not None:
            found.update({call.out: Early(_windows(wanted.rows), wanted.known) for call in calls})

    visit(root, None)
    return found


def _limited(plan: LimitExec, wanted: _Wanted | None) -> _Wanted | None:
    if plan.limit is None:
        return wanted and replace(wanted, rows=wanted.rows + plan.offset)
    return _Wanted(plan.offset + min(plan.limit, plan.limit if wanted is None else wanted.rows))


def _windows(rows: float) -> int:
    """Rows of the windows that hold so many."""
    asked, window = 0, FIRST_ROWS
    while asked < rows:
        if window == WINDOW_ROWS:
            return asked + WINDOW_ROWS * -int(-(rows - asked) // WINDOW_ROWS)
        asked, window = asked + window, min(2 * window, WINDOW_ROWS)
    return asked
