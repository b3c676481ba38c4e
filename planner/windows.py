"""Windows: the rows that the executor asks about at once, and the prompts of these that an engine plans at once.

What prompts begin with is computed once within a window, and of what was computed before the longest beginnings stay.
"""

from collections.abc import Iterator, Sequence
from itertools import groupby

from dql.planner.prefix import Tokens, sort_prompts

WINDOW_ROWS = 8192  # rows after which the executor lets its batch run dry
PLANNED, PLANNED_TOKENS = 4096, 1 << 20  # most prompts that an engine plans at once, and about the most tokens of these


def planned(prompts: Sequence[Tokens], rows: Sequence[int]) -> Iterator[list[Tokens]]:
    """Different prompts as an engine plans them, window by window; `rows`, ascending, first asked each.

    More prompts of the executor's window than an engine takes at once are sorted, so that those that begin alike come
    together. Windows that end by the bytes of their rows, and first rows that run by themselves, are passed over.
    """
    for _, same in groupby(range(len(rows)), key=lambda place: rows[place] // WINDOW_ROWS):
        asked = [prompts[place] for place in same]
        if len(asked) > PLANNED:
            asked = [asked[place] for place in sort_prompts(asked).tolist()]
        window, tokens = list[Tokens](), 0
        for prompt in asked:
            if len(window) == PLANNED or tokens >= PLANNED_TOKENS:
                yield window
                window, tokens = [], 0
            window.append(prompt)
            tokens += len(prompt)
        yield window
