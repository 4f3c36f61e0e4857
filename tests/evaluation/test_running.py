"""Means of numbers that arrive one by one are those of all of them together."""

import numpy as np
import pytest

from equilign.evaluation.intervals import clustered_mean
from equilign.evaluation.running import RunningMean


def fed(values):
    mean = RunningMean()
    for value in values:
        mean.add(value)
    return mean


@pytest.mark.parametrize("size", [2, 3, 50])
@pytest.mark.parametrize("shift", [0.0, 1e6])
def test_it_is_the_clustered_mean(size, shift):
    values = shift + np.random.default_rng(size).uniform(0.2, 0.8, size)
    bounds = (-np.inf, np.inf)
    found, wanted = fed(values).estimate(bounds), clustered_mean(values, bounds=bounds)
    assert found.value == pytest.approx(wanted.value, rel=1e-13)
    assert found.high - found.low == pytest.approx(wanted.high - wanted.low, rel=1e-7)
    assert found.count == wanted.count == size


def test_within_a_range_too():
    values = np.random.default_rng(0).uniform(0.8, 1.0, 9)
    found, wanted = fed(values).estimate(), clustered_mean(values)
    assert (found.low, found.high) == pytest.approx((wanted.low, wanted.high), abs=1e-12)
    assert wanted.high < 1.0
    assert fed([1.0] * 5).estimate() == clustered_mean(np.ones(5))


def test_one_prompt_says_nothing():
    one = fed([0.7]).estimate()
    assert (one.value, one.low, one.high, one.count) == (0.7, 0.0, 1.0, 1)
    assert RunningMean().estimate() is None


def test_no_verdict_does_not_count():
    assert fed([0.2, np.nan, 0.4]) == fed([0.2, 0.4])
    assert fed([np.nan]).estimate() is None
