"""What prompts share, and what is left to compute of them: the shape of the engine's prefix tree.

Built from the sorted prompts: neighbours' common prefix lengths are one vectorised comparison, and the intervals of
prompts that share more than their surroundings are the tree's nodes (the lcp-interval tree of suffix-array practice,
Abouelhoda, Kurtz, Ohlebusch 2004). The engine hangs its memory on the same runs that are counted before it runs.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Tokens = NDArray[np.int32]

MIN_SAVED_TOKENS = 2  # a run that saves fewer tokens of prefill costs more in bookkeeping
DENSE_ROWS, DENSE_TOKENS = 8, 32  # from so many rows over so many tokens, attention over the run is one dense product
LONG_TOKENS = 512  # a run that is never copied into the rows below it


@dataclass(slots=True)
class Run:
    """Tokens `start` … `end` − 1 that `rows` prompts share below the run `parent`, a number or −1; `text` has them.

    kept: the number of the resident that holds their keys and values already, or −1. dense: attended to by all rows
    together, and kept for windows to come where it has no parent.
    """

    text: int
    start: int
    end: int
    parent: int
    rows: int
    kept: int = -1
    dense: bool = False


@dataclass(frozen=True, slots=True)
class SharedRuns:
    """runs: in depth-first order. owners int64 [prompts]: the deepest run over each, or −1. order: prompts sorted."""

    runs: list[Run]
    owners: NDArray[np.int64]
    order: NDArray[np.int64]


def shared_runs(prompts: Sequence[Tokens], residents: Sequence[Tokens] = ()) -> SharedRuns:
    """The runs that `prompts` share, where each keeps at least its last token to itself, and that `residents` hold.

    Texts are numbered prompts first.
    """
    texts = [*prompts, *residents]
    if not prompts:
        return SharedRuns([], np.empty(0, np.int64), np.empty(0, np.int64))
    order = sort_prompts(texts)
    usable = np.array([len(text) for text in texts], np.int64) - (np.arange(len(texts)) < len(prompts))
    common = np.minimum(common_prefixes(texts, order), np.minimum(usable[order[:-1]], usable[order[1:]]))
    is_prompt = np.concatenate(([0], np.cumsum(order < len(prompts))))
    runs: list[Run] = []
    owners = np.full(len(texts), -1, np.int64)
    opened: list[tuple[int, int]] = []  # (right end, number) of the kept intervals around the current one
    for depth, left, right in _intervals(common):
        while opened and opened[-1][0] < left:
            opened.pop()
        parent = opened[-1][1] if opened else -1
        start = runs[parent].end if opened else 0
        rows = int(is_prompt[right + 1] - is_prompt[left])
        kept = _resident(order[left : right + 1], usable, len(prompts), depth) if residents else -1
        if rows == 0 or (rows - (kept < 0)) * (depth - start) < MIN_SAVED_TOKENS:
            continue
        dense = (rows >= DENSE_ROWS and depth - start >= DENSE_TOKENS) or depth - start >= LONG_TOKENS
        opened.append((right, len(runs)))
        owners[order[left : right + 1]] = len(runs)
        runs.append(Run(int(order[left]), start, depth, parent, rows, kept, dense))
    for run in reversed(runs):  # what lies above a dense run is attended to densely as well
        if run.dense and run.parent >= 0:
            runs[run.parent].dense = True
    return SharedRuns(runs, owners[: len(prompts)], order[order < len(prompts)])


def _resident(texts: NDArray[np.int64], lengths: NDArray[np.int64], prompts: int, depth: int) -> int:
    """The number of the first resident among `texts` that reaches `depth`, or −1."""
    found = texts[(texts >= prompts) & (lengths[texts] >= depth)]
    return int(found[0]) - prompts if len(found) else -1


def computed_tokens(windows: Iterable[Sequence[Tokens]]) -> int:
    """Prompt tokens that an engine computes whose memory is empty and suffices, window by window: every run that
    prompts of a window share once, and not again what was kept of an earlier window.
    """
    total, residents = 0, list[Tokens]()
    for prompts in windows:
        found = shared_runs(prompts, residents)
        ends = np.array([*(run.end for run in found.runs), 0], np.int64)  # the last for prompts that share nothing
        total += sum(map(len, prompts)) - int(ends[found.owners].sum())
        total += sum(run.end - run.start for run in found.runs if run.kept < 0)
        residents += [
            ([*prompts, *residents][run.text])[: run.end]
            for run in found.runs
            if run.parent < 0 and run.dense and run.kept < 0
        ]
    return total


def sort_prompts(texts: Sequence[Tokens]) -> NDArray[np.int64]:
    """The order that sorts token sequences lexicographically, a prefix before what it begins."""
    keys = [np.ascontiguousarray(text, dtype=">u4").tobytes() for text in texts]
    return np.array(sorted(range(len(texts)), key=keys.__getitem__), np.int64)


def common_prefixes(texts: Sequence[Tokens], order: NDArray[np.int64]) -> NDArray[np.int64]:
    """Tokens that each text shares with the one before it in `order`: [texts − 1]."""
    if len(texts) < 2:
        return np.empty(0, np.int64)
    lengths = np.array([len(text) for text in texts], np.int64)
    starts = np.concatenate(([0], np.cumsum(lengths)[:-1]))
    flat = np.concatenate(list(texts)) if lengths.sum() else np.empty(0, np.int32)
    left, right = order[:-1], order[1:]
    compared = np.minimum(lengths[left], lengths[right])
    ends = np.cumsum(compared)
    within = np.arange(ends[-1]) - np.repeat(ends - compared, compared)
    differs = flat[np.repeat(starts[left], compared) + within] != flat[np.repeat(starts[right], compared) + within]
    # the first difference of each pair: the next one at or after the pair's first comparison
    places = np.flatnonzero(differs)
    found = np.searchsorted(places, ends - compared)
    first = np.append(places, ends[-1] + lengths.max(initial=0))[found] - (ends - compared)
    shared: NDArray[np.int64] = np.minimum(first, compared)
    return shared


def _intervals(common: NDArray[np.int64]) -> list[tuple[int, int, int]]:
    """(depth, left, right) of every maximal run of sorted texts that shares `depth` > 0 tokens, outer ones first."""
    found: list[tuple[int, int, int]] = []
    stack: list[tuple[int, int]] = [(0, 0)]  # depth, left
    for rank, depth in enumerate([*common.tolist(), 0]):
        left = rank
        while stack[-1][0] > depth:
            inner, left = stack.pop()
            found.append((inner, left, rank))
        if stack[-1][0] < depth:
            stack.append((depth, left))
    return sorted(found, key=lambda interval: (interval[1], -interval[2], interval[0]))
