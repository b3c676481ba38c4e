"""When guessing tokens ahead pays: the rule that the engine follows step by step, and what EXPLAIN says of it."""

import numpy as np
from numpy.typing import ArrayLike, NDArray

FREE = {"cpu": 12, "cuda": 64}
"""Tokens whose arithmetic is taken to last as long as reading the weights, which a step of any size does.

SmolLM2 in fp32 on an AVX-512 core: a step of 64 rows takes 4.4 times as long as one of 1 row, which makes it 18. Less
is taken because a row that ends sooner spares the reading only where those beside it do too. Measured at 8 and 16:
texts that copy run about 4.5, 2.5 and (at 16) 1.6 times as fast with 1, 4 and 16 rows, a story that hardly does 1.4,
1.1 and 0.95 times. On a GPU not measured.
"""
PRIOR_RATE = 0.6  # share of guesses believed to be right before any was checked
MOST = 8  # guesses a row and step
DRAFT_STEP = 1024  # tokens of a draft model's pass
DRAFT_LANES, DRAFT_WIDTH = 8, 64  # the rows of a draft model come in such numbers, the slots of a row in multiples


def draft_width(tokens: ArrayLike) -> NDArray[np.int64]:
    """Slots that a row takes in a draft model whose text has so many tokens in the end, guesses after it included."""
    return np.asarray(-(-(np.asarray(tokens, np.int64) + MOST) // DRAFT_WIDTH) * DRAFT_WIDTH)


def needed(rows: int, free: int, cost: float = 0.0) -> float:
    """The chance to be right from which a guess pays while `rows` rows decode; `cost` in steps of making it."""
    return rows / (rows + free) + cost


def pays(rows: ArrayLike, kind: str) -> NDArray[np.bool_]:
    """Whether tokens are guessed while so many rows decode, by what is believed of guesses at first."""
    rows = np.asarray(rows, np.float64)
    return np.asarray(rows / (rows + FREE[kind]) <= PRIOR_RATE)


def speculation_line(rows: int, kind: str, draft: str | None) -> str:
    """What becomes of speculation in a run that decodes so many rows at once on this kind of hardware."""
    chance = needed(rows, FREE[kind])
    source = "the row's own text" if draft is None else f"draft {draft}"
    if chance < PRIOR_RATE:
        return f"speculation from {source} · a guess pays where it is right in {chance:.0%}"
    return f"no speculation from {source} with {rows:,} rows at once · a guess would have to be right in {chance:.0%}"
