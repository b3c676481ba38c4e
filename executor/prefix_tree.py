"""The shared beginnings of a window of prompts, as a tree at token granularity whose nodes hold memory."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from dql.executor.block_pool import Block, Resident
from dql.executor.requests import Tokens
from dql.planner.prefix import shared_runs


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
    found = shared_runs(prompts, texts[len(prompts) :])
    nodes: list[Node] = []
    for run in found.runs:
        above = nodes[run.parent] if run.parent >= 0 else None
        node = Node(texts[run.text][run.start : run.end], run.start, run.end, above, run.rows, dense=run.dense)
        if run.kept >= 0:
            node.resident, node.done = residents[run.kept], node.length
        nodes.append(node)
    return PrefixTree(nodes, [nodes[owner] if owner >= 0 else None for owner in found.owners.tolist()], found.order)
