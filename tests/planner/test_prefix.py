"""Tokens that a prefix tree computes, against counting every distinct beginning."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from dql.planner.lengths import draws, expected_outputs, mean, quantiles
from dql.planner.prefix import MIN_SAVED_TOKENS, computed_tokens

PROMPTS = st.lists(st.lists(st.integers(0, 3) | st.sampled_from([255, 256, 65_536]), max_size=6), max_size=12)


@given(PROMPTS)
def test_beginnings_are_counted_once_but_for_a_last_token_and_what_saves_too_little(prompts: list[list[int]]) -> None:
    asked = sorted({tuple(prompt) for prompt in prompts if prompt})
    inner = {prompt[:end] for prompt in asked for end in range(1, len(prompt))}
    least = len(inner) + len(asked)
    computed = computed_tokens([[np.array(prompt, np.int32) for prompt in asked]])
    assert least <= computed <= least + (MIN_SAVED_TOKENS - 1) * (len(asked) // 2)


@given(st.lists(st.integers(1, 500), min_size=1, max_size=300))
def test_quantiles_keep_the_mean_and_the_ends(lengths: list[int]) -> None:
    kept = quantiles(np.array(lengths))
    assert (kept[0], kept[-1]) == (min(lengths), max(lengths))
    assert min(lengths) <= mean(kept) <= max(lengths)


@given(st.integers(1, 400))
def test_any_stretch_of_draws_covers_the_distribution(count: int) -> None:
    drawn = draws(tuple(float(x) for x in range(65)), count)
    assert abs(drawn.mean() - 32) < 1e-6
    if count >= 64:
        assert abs(drawn[: count // 2].mean() - 32) < 4


def test_answers_are_never_longer_than_their_bound() -> None:
    assert max(expected_outputs(16)) == 16 and min(expected_outputs(16)) >= 1
    assert mean(expected_outputs(16)) < mean(expected_outputs(128)) < 128
