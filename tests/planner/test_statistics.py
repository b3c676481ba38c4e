"""What a sample's repeats say of more rows: labels stay few, texts go on being new."""

from collections import Counter

import numpy as np
import pytest

from dql.planner.statistics import more_distinct


def grown(values: list[int], wanted: int) -> int:
    """The distinct values expected of `wanted` rows of which `values` were seen."""
    often = Counter(Counter(values).values())
    return more_distinct(len(set(values)), often[1], often[2], len(values), wanted)


def test_labels_stay_few_and_texts_do_not() -> None:
    assert grown([i % 5 for i in range(300)], 10**8) == 5
    assert grown(list(range(300)), 10**8) == 10**8
    texts = [*range(297), 0, 1, 2]  # three of three hundred come twice: by chance, not since all is seen
    assert grown(texts, 10**8) > 10**7


@pytest.mark.parametrize(("values", "rows"), [(1_000, 10_000), (1_000, 2_000), (20, 100)])
def test_a_population_that_is_nearly_seen_is_known(values: int, rows: int) -> None:
    drawn = np.random.default_rng(7).integers(0, values, rows).tolist()
    assert values * 0.9 <= grown(drawn, rows * 1000) <= values * 1.5


def test_more_rows_have_no_fewer_and_never_more_in_proportion() -> None:
    drawn = np.random.default_rng(7).zipf(1.3, 500).tolist()
    found = {rows: grown(drawn, rows) for rows in (500, 600, 1_000, 10_000, 10**6)}
    assert list(found.values()) == sorted(found.values()) and found[500] == len(set(drawn))
    assert all(count <= len(set(drawn)) * rows / 500 + 1 for rows, count in found.items())
