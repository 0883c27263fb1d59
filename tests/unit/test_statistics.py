"""Intervals, p values and their correction."""

from __future__ import annotations

import math
import tracemalloc

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from penchant_pipelines.statistics import Bootstrap, by_user, holm, middle, resamples


def test_the_interval_is_that_of_theory_for_normal_values() -> None:
    values = np.random.default_rng(1).normal(0.3, 1.0, 400)
    mean, low, high = Bootstrap(400, seed=0).interval(values)
    assert mean == pytest.approx(values.mean())
    error = values.std() / math.sqrt(400)
    assert low == pytest.approx(mean - 1.96 * error, abs=0.01)
    assert high == pytest.approx(mean + 1.96 * error, abs=0.01)


def test_an_interval_narrows_with_more_users() -> None:
    draw = np.random.default_rng(1)
    few, many = (Bootstrap(count).interval(draw.normal(0.3, 1.0, count)) for count in (20, 2000))
    for mean, low, high in (few, many):
        assert low < mean < high
    assert many[1] == pytest.approx(0.3 - 1.96 / 2000**0.5, abs=0.05)
    assert many[2] - many[1] < (few[2] - few[1]) / 4


@pytest.mark.parametrize("count", [5, 12, 30])
def test_of_few_users_the_interval_and_p_are_those_of_student(count: int) -> None:
    values = np.random.default_rng(count).normal(0.4, 1.0, count)
    draws = Bootstrap(count, draws=40_000)
    mean, low, high = draws.interval(values)
    expected = stats.ttest_1samp(values, 0)
    half = (high - low) / 2
    assert half == pytest.approx(expected.confidence_interval().high - mean, rel=0.12)
    assert draws.difference(values, np.zeros(count))[3] == pytest.approx(expected.pvalue, abs=0.05)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=5, max_size=20), st.floats(-1, 1))
def test_p_is_small_where_the_interval_says_so(values: list[float], away: float) -> None:
    gain = np.array(values) + away
    _, low, high, p = Bootstrap(len(gain), draws=5000).difference(gain, np.zeros(len(gain)))
    if p < 0.045:
        assert low > 0 or high < 0
    if p > 0.055:
        assert low <= 0 <= high
    assert 0 < p <= 1


def test_one_user_tells_of_nobody_else() -> None:
    values = np.array([0.2, np.nan])
    mean, low, high = Bootstrap(2).interval(values)
    assert mean == 0.2
    assert math.isnan(low)
    assert math.isnan(high)
    assert Bootstrap(2).difference(values, np.zeros(2))[3] == 1.0
    ratio = Bootstrap(2).ratio(np.array([1.0, 0.0]), np.array([2.0, 0.0]))
    assert ratio[0] == 0.5
    assert math.isnan(ratio[1])


def test_differences_are_paired() -> None:
    """Users differ widely, the methods by little but always: unpaired this could not be seen."""
    dice = np.random.default_rng(2)
    theirs = dice.normal(0, 10, 100)
    ours = theirs + dice.normal(0.5, 0.5, 100)
    draws = Bootstrap(100, seed=0)
    gain, low, high, p = draws.difference(ours, theirs)
    assert 0 < low < gain < high
    assert p < 0.001
    back = draws.difference(theirs, ours)
    assert back[:3] == pytest.approx((-gain, -high, -low))
    assert draws.difference(ours, ours)[3] == 1.0


def test_p_agrees_with_the_t_test() -> None:
    gain = np.random.default_rng(3).normal(0.2, 1.0, 120)
    p = Bootstrap(120, seed=0, draws=20_000).difference(gain, np.zeros(120))[3]
    assert p == pytest.approx(stats.ttest_1samp(gain, 0).pvalue, abs=0.02)


def test_users_without_a_value_are_left_out() -> None:
    values = np.array([0.2, np.nan, 0.4, np.nan])
    mean, low, high = Bootstrap(4, seed=0).interval(values)
    assert (mean, low, high) == pytest.approx((0.3, 0.2, 0.4))
    assert all(math.isnan(n) for n in Bootstrap(4, seed=0).difference(values, np.full(4, np.nan)))


def test_many_users_take_a_byte_each_and_draw() -> None:
    users, draws = 3000, 250
    values = np.random.default_rng(4).random(users)
    tracemalloc.start()
    found = Bootstrap(users, seed=5, draws=draws).interval(values)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 5 * users * draws
    means = [times @ values / users for times in resamples(users, 5, draws)]
    assert found == pytest.approx((values.mean(), *middle(np.array(means), users)), rel=1e-9)


def test_holm_by_hand() -> None:
    corrected = holm({"a": 0.01, "b": 0.04, "c": 0.03, "d": math.nan, "e": 0.5})
    assert corrected["a"] == pytest.approx(0.04)
    assert corrected["c"] == pytest.approx(0.09)
    assert corrected["b"] == pytest.approx(0.09)  # 2 × .04 = .08, but never below the one before
    assert corrected["e"] == pytest.approx(0.5)
    assert math.isnan(corrected["d"])


def test_means_by_user_leave_out_what_is_not_there() -> None:
    found = by_user(np.array([1.0, 0.0, np.nan, 3.0]), np.array([0, 0, 0, 2]), 3)
    assert found[[0, 2]] == pytest.approx([0.5, 3.0])
    assert math.isnan(found[1])


def test_a_ratio_is_that_of_the_sums_and_its_interval_that_of_theory() -> None:
    dice = np.random.default_rng(4)
    signals = dice.integers(50, 150, 400).astype(float)
    alarms = dice.poisson(signals * 0.02).astype(float)
    ratio, low, high = Bootstrap(400, seed=0).ratio(alarms, signals)
    assert ratio == alarms.sum() / signals.sum()
    error = math.sqrt(alarms.sum()) / signals.sum()
    assert low == pytest.approx(ratio - 1.96 * error, rel=0.03)
    assert high == pytest.approx(ratio + 1.96 * error, rel=0.03)
    assert all(math.isnan(value) for value in Bootstrap(2, seed=0).ratio(np.zeros(2), np.zeros(2)))
