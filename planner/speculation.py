"""When guessing tokens ahead pays: the rule that the engine follows step by step, and what EXPLAIN says of it."""

FREE = {"cpu": 16, "cuda": 128}
"""Tokens whose arithmetic takes as long as reading the weights, which a step of any size does.

Measured on two AVX-512 cores in fp32: a step of 64 rows takes 4.4 times as long as one of 1 row (18). On a GPU about
what an H100 has in bf16 once its launches are counted; not measured yet.
"""
PRIOR_RATE = 0.6  # share of guesses believed to be right before any was checked


def needed(rows: int, free: int, cost: float = 0.0) -> float:
    """The chance to be right from which a guess pays while `rows` rows decode; `cost` in steps of making it."""
    return rows / (rows + free) + cost


def speculation_line(rows: int, kind: str, draft: str | None) -> str:
    """What becomes of speculation in a run that decodes so many rows at once on this kind of hardware."""
    chance = needed(rows, FREE[kind])
    source = "the row's own text" if draft is None else f"draft {draft}"
    if chance < PRIOR_RATE:
        return f"speculation from {source} · a guess pays where it is right in {chance:.0%}"
    return f"no speculation from {source} with {rows:,} rows at once · a guess would have to be right in {chance:.0%}"
