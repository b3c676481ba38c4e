"""How much of a set of prompts is shared: the number of distinct beginnings, which is what a prefix tree computes."""

from collections.abc import Iterable

import numpy as np


def tree_tokens(prompts: Iterable[bytes]) -> int:
    """Tokens that are left when every beginning that prompts share is counted once; `prompts` hold int32 ids.

    Any order of single tokens that is total will do, so the bytes are compared as they lie.
    """
    ordered = sorted(prompts)
    if not ordered:
        return 0
    lengths = np.array([len(prompt) // 4 for prompt in ordered], np.int64)
    flat = np.frombuffer(b"".join(ordered), np.int32)
    starts = np.concatenate(([0], np.cumsum(lengths)))[:-1]
    compared = np.minimum(lengths[:-1], lengths[1:])
    if not compared.sum():
        return int(lengths.sum())
    ends = np.cumsum(compared)
    within = np.arange(ends[-1]) - np.repeat(ends - compared, compared)
    differs = flat[np.repeat(starts[:-1], compared) + within] != flat[np.repeat(starts[1:], compared) + within]
    places = np.flatnonzero(differs)
    first = np.append(places, ends[-1])[np.searchsorted(places, ends - compared)] - (ends - compared)
    return int(lengths.sum() - np.minimum(first, compared).sum())
