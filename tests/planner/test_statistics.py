"""What is counted of rows, and what a sample's repeats say of more: labels stay few, texts go on being new."""

from collections import Counter
from dataclasses import replace

import numpy as np
import pyarrow as pa
import pytest

from dql.planner.logical import Labels
from dql.planner.physical import CallExec, FragmentExec, InferExec
from dql.planner.prompts import prompts
from dql.planner.statistics import Asked, count_calls, more_distinct, prompt_key
from tests.fake_session import FakeSession

CALL = CallExec("classify", (0,), True, ("body",), None, "_1", "VARCHAR[]", "m")


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


@pytest.mark.parametrize("truncate", [False, True])
@pytest.mark.parametrize("multi", [False, True])
def test_rows_are_those_about_which_anything_is_asked(session: FakeSession, multi: bool, truncate: bool) -> None:
    """Where several labels may hold each has a prompt, and of a row's some may be too long or have answers already."""
    labels = Labels(("bug", "praise, which is when somebody says how well something has been made", "spam"))
    call = replace(CALL, labels=labels, multi=multi)
    asks = prompts(call, session.registry.resolve(session.model))
    random = np.random.default_rng(3)
    texts = [f"{i % 30} {'x' * size}" for i, size in enumerate(random.integers(0, 40, 60).tolist())]
    limit = int(np.median([prompt.encode([texts]).lengths for prompt in asks]))
    about: list[list[bytes]] = [[] for _ in texts]  # the prompts that are asked about each row
    for prompt in asks:
        batch = prompt.encode([texts])
        batch = prompt.truncate(batch, limit)[0] if truncate else batch
        for row, keys in enumerate(about):
            keys += [batch.row(row).tobytes()] if len(batch.row(row)) <= limit else []
    seen = sorted({key for keys in about for key in keys})
    answered = frozenset(prompt_key(key) for key in random.permutation(np.array(seen, object))[: len(seen) // 2])

    rows = pa.record_batch({"body": texts})
    node = InferExec(FragmentExec("FROM t"), (call,))
    counted = count_calls(node, [Asked(asks, limit, truncate, answered)], lambda sql, size: iter([rows]))
    left = [[key for key in keys if prompt_key(key) not in answered] for keys in about]
    for found, wanted in ((counted.calls[0], about), (counted.left[0], left)):
        assert found.rows == sum(map(bool, wanted)) and found.distinct == len({k for keys in wanted for k in keys})
        assert found.asked == sum(map(len, wanted))
        assert found.prompt_tokens == sum(len(key) // 4 for keys in wanted for key in keys)
    assert 0 < counted.left[0].rows <= counted.calls[0].rows and counted.calls[0].too_long > 0
