"""Draft models that the plan has no memory for: what EXPLAIN says of them."""

import numpy as np

from dql.planner.memory import peak
from dql.planner.option import MACHINE_MEMORY
from dql.planner.search import Choice
from dql.planner.speculation import speculation_line
from dql.planner.units import bytes_text


def guesses_line(choice: Choice, out: str, rows: int, draft: str | None) -> str:
    """What becomes of speculation in the call with the column `out`, which decodes so many rows at once."""
    if draft is None or choice.place(out).draft_slots != 0:
        return speculation_line(rows, choice.hardware.kind, draft)
    needed = bytes_text(_with_drafts(choice))
    return f"no speculation from draft {draft} · with it the plan takes {needed}, {_over(choice)}"


def _with_drafts(choice: Choice) -> float:
    """Bytes of the chosen plan if the drafts guessed all the same."""
    placed = zip(choice.calls, choice.best.places, strict=True)
    parts = (call.memory(place, place.max_rows, place.step_tokens, choice.hardware) for call, place in placed)
    return float(np.max(peak(parts)))


def _over(choice: Choice) -> str:
    bound = choice.contract.bound("memory")
    if bound is not None and bound.value < choice.hardware.memory:
        return f"and the bound is {bound}"
    return f"and {MACHINE_MEMORY} is {bytes_text(choice.hardware.memory)}"
