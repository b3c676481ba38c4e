"""The prefix tree against its definition, on prompts that share beginnings by chance."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dql.executor.block_pool import Block, Resident
from dql.executor.prefix_tree import build_tree
from dql.executor.requests import Tokens
from dql.planner.prefix import LONG_TOKENS, common_prefixes, sort_prompts

texts = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=7), min_size=1, max_size=14)


def tokens(text: list[int]) -> Tokens:
    return np.array(text, np.int32)


@given(texts)
def test_sorting_and_common_prefixes(rows: list[list[int]]) -> None:
    prompts = [tokens(row) for row in rows]
    order = sort_prompts(prompts)
    assert [rows[i] for i in order] == sorted(rows)
    common = common_prefixes(prompts, order)
    for (left, right), shared in zip(pairwise(order), common, strict=True):
        differing = [i for i, (a, b) in enumerate(zip(rows[left], rows[right], strict=False)) if a != b]
        assert shared == (differing[0] if differing else min(len(rows[left]), len(rows[right])))


@given(texts)
def test_every_prompt_is_its_path_and_a_rest_of_its_own(rows: list[list[int]]) -> None:
    tree = build_tree([tokens(row) for row in rows])
    for row, parent in zip(rows, tree.parents, strict=True):
        path = [] if parent is None else parent.path()
        spelled = [token for node in path for token in node.tokens.tolist()]
        assert spelled == row[: len(spelled)]
        assert len(spelled) < len(row)
        assert [(node.start, node.end) for node in path] == list(pairwise([0, *(node.end for node in path)]))
    for place, node in enumerate(tree.nodes):
        below = [parent for parent in tree.parents if parent is not None and node in parent.path()]
        assert len(below) == node.rows
        assert (node.rows - 1) * node.length >= 2
        assert node.parent is None or node.parent in tree.nodes[:place]


@given(texts)
def test_no_sharing_is_missed(rows: list[list[int]]) -> None:
    """The tokens computed are as few as in a trie, but for nodes that save less than two tokens each."""
    tree = build_tree([tokens(row) for row in rows])
    computed = sum(node.length for node in tree.nodes)
    computed += sum(len(row) - (parent.end if parent else 0) for row, parent in zip(rows, tree.parents, strict=True))
    trie = {tuple(row[:end]) for row in rows for end in range(1, len(row))}
    assert computed <= len(trie) + len(rows) + len(rows)


def test_a_resident_prefix_is_not_computed_again() -> None:
    resident = Resident(np.arange(100, dtype=np.int32), Block(40, 100))
    prompts = [np.concatenate((np.arange(end), [7, 7, i])).astype(np.int32) for i, end in enumerate((100, 100, 60))]
    tree = build_tree(prompts, [resident])
    outer, inner = tree.nodes[:2]
    assert (outer.start, outer.end, outer.done, outer.slot) == (0, 60, 60, 40)
    assert (inner.start, inner.end, inner.done, inner.slot) == (60, 100, 40, 100)
    single = build_tree([np.arange(80, dtype=np.int32)], [resident])
    assert single.parents[0] is not None
    assert (single.parents[0].end, single.parents[0].done) == (79, 79)


def test_what_lies_above_a_dense_run_is_dense() -> None:
    long = np.arange(LONG_TOKENS, dtype=np.int32)
    rows = [np.concatenate(([1, 1], long, [i])) for i in range(2)] + [np.array([1, 1, i]) for i in range(2)]
    tree = build_tree([row.astype(np.int32) for row in rows])
    assert [(node.length, node.dense) for node in tree.nodes[:2]] == [(2, True), (LONG_TOKENS, True)]
