"""The order of fields that shares most, against all orders."""

from collections.abc import Sequence
from itertools import pairwise, permutations

from hypothesis import given, settings
from hypothesis import strategies as st

from dql.planner.row_text import sharing_order

ROWS = st.integers(1, 4).flatmap(
    lambda width: st.lists(
        st.tuples(*(st.sampled_from(["", "a", "bb", "long text", None]) for _ in range(width))), min_size=1, max_size=12
    )
)


def shared(rows: Sequence[Sequence[str | None]], order: Sequence[int]) -> int:
    """Characters that need not be computed again when the rows come sorted, one behind the other."""
    texts = sorted(tuple(row[place] or "" for place in order) for row in rows)
    saved = 0
    for one, other in pairwise(texts):
        for a, b in zip(one, other, strict=True):
            if a != b:
                break
            saved += len(a)
    return saved


@settings(deadline=None, max_examples=100)
@given(ROWS)
def test_the_order_is_one_and_shares_at_least_what_the_first_field_can(rows: list[tuple[str | None, ...]]) -> None:
    order = sharing_order(rows)
    assert sorted(order) == list(range(len(rows[0])))
    alone = max(shared([(row[place],) for row in rows], (0,)) for place in order)
    assert shared(rows, order) >= alone
    assert shared(rows, order) * len(order) >= max(shared(rows, other) for other in permutations(order))


def test_a_field_that_another_determines_follows_it() -> None:
    rows = [(f"own {i}", f"city {i % 6}", f"country {i % 6 // 3}") for i in range(30)]
    assert sharing_order(rows)[0] == 2
    assert shared(rows, sharing_order(rows)) == max(shared(rows, order) for order in permutations(range(3)))
