"""Intervals and tests, against what is known about the means of samples."""

import math

import numpy as np
import pytest
from scipy import stats

from encoder.evaluation.significance import compare, confidence_interval


def test_an_interval_is_as_wide_as_the_standard_error_says() -> None:
    values = np.random.default_rng(1).uniform(size=400)
    low, high = confidence_interval(values)
    error = values.std() / math.sqrt(len(values))
    assert low == pytest.approx(values.mean() - 1.96 * error, abs=0.1 * error)
    assert high == pytest.approx(values.mean() + 1.96 * error, abs=0.1 * error)
    assert confidence_interval(values) == (low, high)  # seeded
    assert confidence_interval(values, seed=1) != (low, high)


def test_intervals_hold_the_true_mean_as_often_as_they_say() -> None:
    generator = np.random.default_rng(2)
    held = 0
    for _ in range(60):
        low, high = confidence_interval(generator.beta(2, 1, size=80))
        held += low <= 2 / 3 <= high
    assert held >= 52  # of 60; fewer come once in a hundred times


def test_values_that_do_not_vary_have_no_interval() -> None:
    assert confidence_interval(np.full(7, 0.25)) == (0.25, 0.25)


def test_a_paired_difference_is_tested_like_a_t_test_does() -> None:
    generator = np.random.default_rng(3)
    baseline = generator.uniform(size=300)
    better = baseline + generator.normal(0.02, 0.15, size=300)
    found = compare(better, baseline)
    assert found.mean == pytest.approx((better - baseline).mean())
    expected = stats.ttest_rel(better, baseline).pvalue
    assert found.p_randomization == pytest.approx(expected, abs=0.01)
    assert found.p_bootstrap == pytest.approx(expected, abs=0.01)
    assert found.significant == (found.low > 0)
    reverse = compare(baseline, better)
    assert reverse.mean == -found.mean
    assert reverse.p_randomization == pytest.approx(found.p_randomization, abs=0.005)


def test_pairing_finds_a_small_difference_that_is_everywhere() -> None:
    baseline = np.random.default_rng(4).uniform(size=50)
    found = compare(baseline + 0.01, baseline)
    assert found.significant
    assert found.p_randomization < 0.001
    assert (found.low, found.high) == (pytest.approx(0.01), pytest.approx(0.01))


def test_no_difference_is_not_significant() -> None:
    values = np.random.default_rng(5).uniform(size=50)
    found = compare(values, values)
    assert (found.mean, found.p_bootstrap, found.p_randomization, found.significant) == (0, 1, 1, False)


def test_other_queries_do_not_compare() -> None:
    with pytest.raises(ValueError, match="same queries"):
        compare(np.ones(3), np.ones(4))
