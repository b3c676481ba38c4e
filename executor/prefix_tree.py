"""The shared beginnings of a window of prompts, as a tree at token granularity.

Built from the sorted prompts: neighbours' common prefix lengths are one vectorised comparison, and the intervals of
prompts that share more than their surroundings are the tree's nodes (the lcp-interval tree of suffix-array practice,
Abouelhoda, Kurtz, Ohlebusch 2004).
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dql.executor.block_pool import Block, Resident
from dql.executor.requests import Tokens

MIN_SAVED_TOKENS = 2  # a node that saves fewer tokens of prefill costs more in bookkeeping
DENSE_ROWS, DENSE_TOKENS = 8, 32  # from so many rows over so many tokens, attention over the node is one dense product
LONG_TOKENS = 512  # a run that is never copied into the rows below it


@dataclass(slots=True, eq=False)
class Node:
    """Tokens `start` … `end` − 1 that all prompts below share; their keys and values exist once.

    dense: the rows below attend to these slots together, and so to all dense nodes above. Otherwise the node is short:
    the rows below read it together with their own tokens.
    """

    tokens: Tokens  # from `start` on
    start: int
    end: int
    parent: "Node | None"
    rows: int
    precise: int = 0  # tokens that the prompts below begin with in a higher precision
    dense: bool = False
    block: Block | None = None
    done: int = 0  # tokens whose keys and values are stored
    waiting: int = 0  # rows below that have yet to read this node, or still do
    readers: int = 0  # rows in flight below a dense node
    resident: Resident | None = None

    @property
    def length(self) -> int:
        """Tokens of this node alone."""
        return self.end - self.start

    @property
    def slot(self) -> int:
        """The first of its slots."""
        if self.resident is not None:
            return self.resident.block.start + self.start
        if self.block is None:
            raise RuntimeError("a node without memory has no slots")
        return self.block.start

    def path(self) -> "list[Node]":
        """This node's ancestors and itself, from the root."""
        nodes: list[Node] = []
        node: Node | None = self
        while node is not None:
            nodes.append(node)
            node = node.parent
        return nodes[::-1]


@dataclass(frozen=True, slots=True)
class PrefixTree:
    """nodes: in depth-first order. parents: the deepest node over each prompt. order: prompts as sorted."""

    nodes: list[Node]
    parents: list[Node | None]
    order: NDArray[np.int64]


def build_tree(prompts: Sequence[Tokens], residents: Sequence[Resident] = ()) -> PrefixTree:
    """The tree over `prompts`; each keeps at least its last token to itself. Nodes inside a resident are computed."""
    texts = [*prompts, *(resident.tokens for resident in residents)]
    if not prompts:
        return PrefixTree([], [], np.empty(0, np.int64))
    order = sort_prompts(texts)
    lengths = np.array([len(text) for text in texts], np.int64)
    usable = lengths - (np.arange(len(texts)) < len(prompts))
    common = common_prefixes(texts, order)
    common = np.minimum(common, np.minimum(usable[order[:-1]], usable[order[1:]]))
    is_prompt = np.concatenate(([0], np.cumsum(order < len(prompts))))
    nodes: list[Node] = []
    owner = np.full(len(texts), -1, np.int64)
    opened: list[tuple[int, int]] = []  # (right end, node) of the kept intervals around the current one
    for depth, left, right in _intervals(common):
        while opened and opened[-1][0] < left:
            opened.pop()
        parent = nodes[opened[-1][1]] if opened else None
        start = parent.end if parent else 0
        rows = int(is_prompt[right + 1] - is_prompt[left])
        covering = [residents[i - len(prompts)] for i in order[left : right + 1].tolist() if i >= len(prompts)]
        covering = [resident for resident in covering if len(resident.tokens) >= depth]
        if rows == 0 or (rows - (not covering)) * (depth - start) < MIN_SAVED_TOKENS:
            continue
        node = Node(texts[order[left]][start:depth], start, depth, parent, rows)
        if covering:
            node.resident, node.done = covering[0], depth - start
        node.dense = (rows >= DENSE_ROWS and depth - start >= DENSE_TOKENS) or depth - start >= LONG_TOKENS
        opened.append((right, len(nodes)))
        owner[left : right + 1] = len(nodes)
        nodes.append(node)
    for node in reversed(nodes):  # what lies above a dense run is attended to densely as well
        if node.dense and node.parent is not None:
            node.parent.dense = True
    parents: list[Node | None] = [None] * len(prompts)
    for rank, index in enumerate(order.tolist()):
        if index < len(prompts) and owner[rank] >= 0:
            parents[index] = nodes[owner[rank]]
    return PrefixTree(nodes, parents, order[order < len(prompts)])


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
