"""Statistics of quality: bounds hold as often as they say, and testing stops when it may."""

from itertools import pairwise
from math import exp

import numpy as np
import pytest

from benchmarks.quality import DELTA, simulate
from dql.planner.cascade import ALONE, calibrate, first_sure, sample_size
from dql.planner.certify import certify, first_look, most_rows
from dql.planner.quality import Betting, agree, at_most, clopper_pearson, least_rows, log_binomial


@pytest.mark.parametrize(
    ("op", "one", "other", "same"),
    [
        ("classify", "bug", "bug", True),
        ("classify", ["a", "b"], ["b", "a"], False),
        ("filter", True, False, False),
        ("filter", None, False, False),
        ("generate", None, None, True),
        ("generate", "A cat.", "A cat", False),
        ("generate", {"price": 3.5}, {"price": 3.5}, True),
        ("score", 3.0, 3.2, True),
        ("score", 3.0, 3.21, False),
        ("embed", [1.0, 0.0], [2.0, 0.2], True),
        ("embed", [1.0, 0.0], [1.0, 0.2], False),
        ("embed", [0.0, 0.0], [0.0, 0.0], True),
    ],
)
def test_the_same_answer(op: str, one: object, other: object, same: bool) -> None:
    assert agree(op, one, other, (1, 5)) is same


@pytest.mark.parametrize("n", [1, 7, 60, 1000])
def test_the_bound_fails_in_no_more_than_delta_of_all_samples(n: int) -> None:
    for p in (0.5, 0.9, 0.95, 0.999):
        chances = np.exp(log_binomial(n, p))
        assert chances.sum() == pytest.approx(1)
        wrong = [clopper_pearson(k, n, 0.05) > p for k in range(n + 1)] if n < 100 else []
        assert not wrong or chances[wrong].sum() <= 0.05
        assert at_most(n // 2, n, p) == pytest.approx(chances[: n // 2 + 1].sum())


def test_rows_that_all_agree() -> None:
    assert clopper_pearson(128, 128, 0.05) == pytest.approx(0.05 ** (1 / 128)) == pytest.approx(0.977, abs=1e-3)
    assert clopper_pearson(0, 10, 0.05) == 0
    assert (least_rows(0.95, 0.05), least_rows(1.0, 0.05)) == (59, float("inf"))
    few, enough = Betting(), Betting()
    few.add([1.0] * 59)
    enough.add([1.0] * int(first_look(0.95, 0.05)))
    assert enough.proves(0.95, 0.05) and not few.proves(0.95, 0.05)


def test_rows_are_drawn_without_replacement() -> None:
    """All rows of a table seen prove its mean, which no sample from an endless one does."""
    seen, endless = Betting(100), Betting()
    for betting in (seen, endless):
        betting.add(np.random.default_rng(0).permutation([1.0] * 97 + [0.0] * 3).tolist())
    assert 0.95 < seen.bound(0.05) <= 0.97 and endless.bound(0.05) < 0.93


def test_money_that_believes_less_is_never_poorer() -> None:
    betting = Betting(500)
    betting.add(np.random.default_rng(0).beta(8, 1, 200).tolist())
    capitals = [betting.log_capital(mean) for mean in np.linspace(0.05, 0.99, 40)]
    assert all(more >= less - 1e-9 for more, less in pairwise(capitals))
    assert betting.log_capital(betting.bound(0.05)) == pytest.approx(-np.log(0.05), abs=1e-6)
    assert exp(Betting().log_capital(0.5)) == 1 and Betting().bound(0.05) == 0


def test_testing_stops_when_it_is_clear() -> None:
    asked: list[tuple[int, int]] = []

    def draw(value: float, start: int, end: int) -> list[float]:
        asked.append((start, end))
        return [value] * (end - start)

    good = certify(lambda a, b: draw(1.0, a, b), 0.95, 0.05, 1000)
    assert good.proves(0.95, 0.05) and good.rows == first_look(0.95, 0.05) and good.estimate == 1
    assert not good.proves(0.95, 0.01)  # more certain than was tested
    bad = certify(lambda a, b: draw(0.0, a, b), 0.95, 0.05, 1000)
    assert not bad.proves(0.95, 0.05) and bad.rows == good.rows
    assert [start for start, _ in asked] == [0, 0]
    assert certify(lambda a, b: [], 0.95, 0.05, 0).rows == 0


def test_what_is_to_be_compared_is_drawn_as_often() -> None:
    """Whatever fewer rows would prove; but no more where the target is out of reach."""

    def all_alike(start: int, end: int) -> list[float]:
        return [1.0] * (end - start)

    for target in (0.0, 0.95):
        assert certify(all_alike, target, 0.05, 1000, least=256).rows == 256
    assert certify(lambda a, b: [0.0] * (b - a), 0.95, 0.05, 1000, least=256).rows == 256
    assert [most_rows(rows, 0.0, 0.05, 256) for rows in (300, 1000, 10**6)] == [0, 100, 256]


def test_small_tables_and_certainty_are_not_tested() -> None:
    assert most_rows(500, 0.95, 0.05) == 0 and most_rows(1000, 0.95, 0.05) == 100
    assert most_rows(10**6, 1.0, 0.05) == 0 == sample_size(10**6, 1.0, 0.05)
    assert sample_size(200, 0.95, 0.05) == 0 and sample_size(10**6, 0.95, 0.05) == 4 * 59


def test_a_cascade_asks_the_last_model_where_no_other_is_sure() -> None:
    sure = np.array([[0.9, 0.6, 0.3], [0.99, 0.95, 0.3]])
    assert first_sure(sure, 0.9).tolist() == [0, 1, 2]
    assert first_sure(sure, ALONE).tolist() == [2, 2, 2]


def test_a_cascade_goes_as_low_as_can_be_proven() -> None:
    sure = np.linspace(0.5, 1, 400)[None]
    right = calibrate(sure, np.ones((1, 400), bool), 0.95, 0.95)
    assert right.threshold == 0 and right.asked == 0 and right.lost == 0
    half = calibrate(sure, sure > 0.75, 0.95, 0.95)
    assert 0.7 < half.threshold < 0.77 and half.asked == pytest.approx((sure < half.threshold).mean())
    assert calibrate(sure, np.zeros((1, 400), bool), 0.95, 0.95).asked > 0.95
    few = calibrate(sure[:, ::10], np.ones((1, 40), bool), 0.95, 0.95)
    assert few.alone and few.asked == 1
    assert calibrate(np.zeros((1, 0)), np.zeros((1, 0), bool), 0.95, 0.95).alone


@pytest.mark.parametrize(("least", "most"), [(0.5, 0.52), (0.2, 0.23), (0.9999, 1.0), (0.0, 1e-4)])
def test_a_cascade_tells_confidences_apart_that_lie_close(least: float, most: float) -> None:
    """Small models are hardly sure, and others always: within a hundredth, what is right is told from what is not."""
    sure = np.linspace(least, most, 400)[None]
    middle = (least + most) / 2
    found = calibrate(sure, sure >= middle, 0.95, 0.95)
    lost = (sure < middle) & (sure >= found.threshold)
    assert 0 < lost.sum() == found.lost < 0.05 * 400 and found.asked == pytest.approx(0.5, abs=0.05)


def test_a_cascade_ends_at_the_first_threshold_that_fails() -> None:
    """Two models share one: where the first begins to be believed too much is lost, and below it all would be well."""
    sure = np.array([[0.6] * 400, [0.8] * 400])
    right = np.stack([np.ones(400, bool), np.arange(400) % 5 > 0])
    assert calibrate(sure[:1], right[:1], 0.95, 0.95).threshold == 0
    assert calibrate(sure, right, 0.95, 0.95).asked == 1


@pytest.mark.slow
def test_promises_are_broken_no_more_often_than_they_may_be() -> None:
    """The benchmark with fewer trials; with 1,000 it is in benchmarks/results."""
    for outcome in simulate(60):
        assert outcome.broken <= outcome.allowed, outcome
    assert DELTA == 0.05
