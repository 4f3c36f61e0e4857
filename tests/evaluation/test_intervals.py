"""Intervals: their arithmetic, and that they cover as often as they say."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from equilign.evaluation import Estimate, clustered_mean, wilson

SEEDED = settings(derandomize=True, deadline=None)


def test_clustered_mean_by_hand():
    """Mean 0.5, sample deviation 0.1, three prompts; t(0.975, 2) = 4.302653 by the tables."""
    got = clustered_mean(np.array([0.4, 0.5, 0.6]))
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert got.value == pytest.approx(0.5)
    assert (got.low, got.high) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-7)
    assert got.count == 3


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
def test_clustered_mean_against_scipy(confidence):
    values = np.random.default_rng(0).uniform(0.3, 0.6, 25)
    got = clustered_mean(values, confidence)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(confidence)
    assert (got.low, got.high) == pytest.approx(tuple(expected), abs=1e-12)


def test_the_interval_is_cut_to_the_range():
    got = clustered_mean(np.array([0.0, 1.0]))
    assert got == Estimate(0.5, 0.0, 1.0, 2)
    free = clustered_mean(np.array([0.0, 1.0]), bounds=(-np.inf, np.inf))
    half = 12.706205 * math.sqrt(0.5) / math.sqrt(2)
    assert (free.low, free.high) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-6)
    assert clustered_mean(np.array([-3.0, 4.0]), bounds=(-5.0, 5.0)).low == -5.0


def test_one_prompt_says_nothing_about_the_spread():
    assert clustered_mean(np.array([0.7])) == Estimate(0.7, 0.0, 1.0, 1)
    unbounded = clustered_mean(np.array([0.7]), bounds=(-np.inf, np.inf))
    assert (unbounded.low, unbounded.high) == (-np.inf, np.inf)


def test_no_prompt_is_refused():
    with pytest.raises(ValueError, match="at least one prompt"):
        clustered_mean(np.array([]))


def coverage_of_the_mean(interval, prompts=20, answers=8, runs=2000):
    """How often the interval holds the true mean when answers share their prompt's luck."""
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(runs):
        luck = rng.uniform(0.1, 0.9, (prompts, 1))  # true mean 1/2
        wins = (rng.uniform(size=(prompts, answers)) < luck).astype(float)
        estimate = interval(wins)
        hits += estimate.low <= 0.5 <= estimate.high
    return hits / runs


def test_the_clustered_interval_covers_and_an_unclustered_one_does_not():
    assert 0.93 <= coverage_of_the_mean(lambda w: clustered_mean(w.mean(axis=1))) <= 0.97
    assert coverage_of_the_mean(lambda w: clustered_mean(w.ravel())) < 0.88


def test_few_prompts_are_covered_too():
    """Five prompts: Student's t holds where a normal interval would fail."""
    assert 0.93 <= coverage_of_the_mean(lambda w: clustered_mean(w.mean(axis=1)), prompts=5) <= 0.97

    def normal(wins):
        values = wins.mean(axis=1)
        half = 1.96 * values.std(ddof=1) / math.sqrt(len(values))
        return Estimate(values.mean(), values.mean() - half, values.mean() + half, 5)

    assert coverage_of_the_mean(normal, prompts=5) < 0.92


# -- Wilson -------------------------------------------------------------------------------


@pytest.mark.parametrize("confidence", [0.8, 0.95, 0.99])
@pytest.mark.parametrize(
    ("successes", "trials"), [(0, 1), (1, 1), (0, 10), (3, 10), (10, 10), (64, 128), (5, 1000)]
)
def test_wilson_against_scipy(successes, trials, confidence):
    got = wilson(successes, trials, confidence)
    expected = stats.binomtest(successes, trials).proportion_ci(confidence, method="wilson")
    assert (got.low, got.high) == pytest.approx((expected.low, expected.high), abs=1e-12)
    assert got.value == successes / trials
    assert got.count == trials


def test_wilson_with_ties_that_count_one_half():
    got = wilson(2.5, 10)
    assert got.value == 0.25
    assert wilson(2, 10).low < got.low < wilson(3, 10).low
    assert wilson(2, 10).high < got.high < wilson(3, 10).high


@SEEDED
@given(trials=st.integers(1, 500), data=st.data())
def test_wilson_holds_its_own_share(trials, data):
    """To the last bit, at 0 and 1 too: a plot's error bars must not be negative."""
    successes = data.draw(st.integers(0, 2 * trials)) / 2
    got, mirrored = wilson(successes, trials), wilson(trials - successes, trials)
    assert 0.0 <= got.low <= got.value <= got.high <= 1.0
    assert (mirrored.low, mirrored.high) == pytest.approx((1 - got.high, 1 - got.low), abs=1e-12)


@pytest.mark.parametrize("share", [0.05, 0.3, 0.5, 0.9])
def test_wilson_covers_on_average_as_often_as_it_says(share):
    """Exactly, over the binomial law; the normal interval covers 0.87 at share 0.05."""
    trials = 60
    law = stats.binom.pmf(np.arange(trials + 1), trials, share)
    intervals = [wilson(k, trials) for k in range(trials + 1)]
    covered = sum(p for p, e in zip(law, intervals, strict=True) if e.low <= share <= e.high)
    assert 0.93 <= covered <= 0.975


def test_wilson_needs_a_trial():
    with pytest.raises(ValueError, match="at least one trial"):
        wilson(0, 0)
