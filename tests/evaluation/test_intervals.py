"""Intervals: their arithmetic, and that they cover as often as they say."""

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from equilign.evaluation import Estimate, clustered_mean, wilson
from equilign.evaluation.coverage import Design, coverage

SEEDED = settings(derandomize=True, deadline=None)


FREE = (-np.inf, np.inf)


def test_without_ends_it_is_students_interval_by_hand():
    """Mean 0.5, sample deviation 0.1, three prompts; t(0.975, 2) = 4.302653 by the tables."""
    got = clustered_mean(np.array([0.4, 0.5, 0.6]), bounds=FREE)
    half = 4.302653 * 0.1 / math.sqrt(3)
    assert got.value == pytest.approx(0.5)
    assert (got.low, got.high) == pytest.approx((0.5 - half, 0.5 + half), abs=1e-7)
    assert got.count == 3


def test_clustered_mean_by_hand():
    """The two shares whose distance to 0.6 is t(0.975, 3) = 3.182446 of their own deviations.

    Numbers 0.5, 0.5, 0.6, 0.8: variance of the mean 0.02 / 4, that of one trial 0.24, so 48 trials.
    """
    got = clustered_mean(np.array([0.5, 0.5, 0.6, 0.8]))
    assert got.value == pytest.approx(0.6)
    trials = 0.24 / (0.02 / 4)
    for end in (got.low, got.high):
        assert abs(end - 0.6) == pytest.approx(
            3.182446 * math.sqrt(end * (1 - end) / trials), rel=1e-6
        )
    assert got.low < 0.6 < got.high
    assert got.high - 0.6 < 0.6 - got.low, "nearer to the end that is nearer"


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.99])
def test_clustered_mean_against_scipy(confidence):
    values = np.random.default_rng(0).uniform(0.3, 0.6, 25)
    got = clustered_mean(values, confidence, FREE)
    expected = stats.ttest_1samp(values, 0.0).confidence_interval(confidence)
    assert (got.low, got.high) == pytest.approx(tuple(expected), abs=1e-12)
    within = clustered_mean(values, confidence)  # far from both ends they agree
    assert (within.low, within.high) == pytest.approx(tuple(expected), abs=0.004)


@pytest.mark.parametrize("wins", [0, 1, 7, 19, 20])
def test_one_comparison_on_each_prompt_is_wilsons_interval_with_students_quantile(wins):
    count = 20
    got = clustered_mean(np.repeat([1.0, 0.0], [wins, count - wins]))
    t = stats.t.ppf(0.975, count - 1)
    # The variance of 0s and 1s has count - 1 in its denominator, Wilson's interval count.
    trials = count if wins in (0, count) else count - 1
    level = 2 * stats.norm.cdf(t) - 1
    expected = wilson(wins / count * trials, trials, level)
    assert (got.low, got.high) == pytest.approx((expected.low, expected.high), abs=1e-12)


@SEEDED
@given(
    values=st.lists(st.integers(0, 1000), min_size=1, max_size=30),
    low=st.floats(-3.0, 3.0),
    width=st.floats(0.1, 5.0),
)
def test_it_stays_within_its_range_and_moves_with_it(values, low, width):
    x = np.array(values) / 1000.0
    got, turned = clustered_mean(x), clustered_mean(1.0 - x)
    assert 0.0 <= got.low <= got.value + 1e-12
    assert got.value - 1e-12 <= got.high <= 1.0
    assert (turned.low, turned.high) == pytest.approx((1 - got.high, 1 - got.low), abs=1e-6)
    moved = clustered_mean(low + width * x, bounds=(low, low + width))
    ends = (low + width * got.low, low + width * got.high)
    assert (moved.low, moved.high) == pytest.approx(ends, abs=1e-5 * width)


def test_five_prompts_that_were_all_won_do_not_prove_that_all_are():
    """Student's interval has no width here."""
    got = clustered_mean(np.ones(5))
    t = 2.776445  # t(0.975, 4)
    assert (got.low, got.high) == (pytest.approx(5 / (5 + t * t), abs=1e-6), 1.0)
    assert clustered_mean(np.full(5, 0.5)) == Estimate(0.5, 0.5, 0.5, 5)


def test_numbers_outside_the_range_fall_back_to_students_interval():
    """Win rates that were corrected for length may leave it."""
    got = clustered_mean(np.array([1.1, 1.0, 1.3, 1.2]), bounds=(0.0, 1.0))
    assert got.high == 1.0
    assert got.low == pytest.approx(1.15 - 3.182446 * math.sqrt(0.05 / 3) / 2, abs=1e-6)
    cut = clustered_mean(np.array([-3.0, 4.0]), bounds=(-5.0, np.inf))
    assert cut.low == -5.0


def test_one_prompt_says_nothing_about_the_spread():
    assert clustered_mean(np.array([0.7])) == Estimate(0.7, 0.0, 1.0, 1)
    unbounded = clustered_mean(np.array([0.7]), bounds=(-np.inf, np.inf))
    assert (unbounded.low, unbounded.high) == (-np.inf, np.inf)


def test_no_prompt_is_refused():
    with pytest.raises(ValueError, match="at least one prompt"):
        clustered_mean(np.array([]))


# -- how often they hold the truth ----------------------------------------------------------


def student(values):
    """What a textbook says of a mean."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    mean = values.mean()
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half), len(values))


def design_name(design):
    return f"{design.prompts}-{design.alpha}-{design.beta}-{design.comparisons}-{design.ties}"


MANY = (1, 7)
"""Comparisons on a prompt: no two prompts alike."""
HOLDS = [
    Design(5, 1, 1, None),
    Design(5, 1, 1, MANY),
    Design(5, 4, 4, MANY, 0.3),
    Design(5, 2, 8, None),
    Design(5, 0.2, 3.8, MANY, 0.3),
    Design(20, 1, 1, (1, 1)),
    Design(20, 0.5, 0.5, MANY),
    Design(20, 8, 2, MANY),
    Design(20, 2, 8, (1, 1)),
    Design(20, 0.5, 4.5, MANY, 0.3),
    Design(20, 0.2, 3.8, MANY),
    Design(100, 1, 1, (1, 1)),
    Design(100, 0.5, 4.5, MANY),
    Design(100, 0.2, 3.8, None),
]
"""A mean of prompts' own rates, seen or compared, few or many prompts, ties or none."""
SAFE = [
    Design(5, 4, 4, (1, 1)),
    Design(5, 2, 8, MANY),
    Design(5, 0.5, 4.5, (1, 1)),
    Design(20, 0.2, 3.8, (1, 1)),
]
"""Near an end few yes-or-no verdicts take few values: the interval is wider than it need be."""


@pytest.mark.parametrize("design", HOLDS, ids=design_name)
def test_the_clustered_interval_covers(design):
    """4,000 evaluations: 93 to 97 %, and three standard errors (0.34 % each) of the simulation."""
    found = coverage(clustered_mean, design)
    assert 0.93 - 3 * found.error <= found.share <= 0.97 + 3 * found.error


@pytest.mark.parametrize("design", SAFE, ids=design_name)
def test_where_it_is_not_sharp_it_is_safe(design):
    assert coverage(clustered_mean, design, 2000).share > 0.97
    assert coverage(student, design, 500).share < 0.945


def test_students_interval_would_not_do():
    """Why it is not used: near an end, a few prompts vary less than prompts do."""
    design = Design(5, 0.5, 4.5, MANY)
    assert coverage(student, design, 1000).share < 0.83
    assert coverage(clustered_mean, design, 1000).share > 0.93


def test_what_no_interval_from_mean_and_variance_can_do():
    """Documented: rates that are seen exactly, nearly all of them at 0, on five prompts."""
    assert 0.75 < coverage(clustered_mean, Design(5, 0.2, 3.8, None), 1000).share < 0.9


def test_comparisons_on_one_prompt_are_not_independent():
    """Eight on each of twenty prompts; as 160 prompts they would give a far shorter interval."""
    rng = np.random.default_rng(1)
    hits = 0
    for _ in range(1000):
        luck = rng.uniform(0.1, 0.9, (20, 1))
        wins = (rng.uniform(size=(20, 8)) < luck).astype(float)
        flat = clustered_mean(wins.ravel())
        hits += flat.low <= 0.5 <= flat.high
    assert hits / 1000 < 0.88


def test_simulated_evaluations_have_the_mean_that_they_are_judged_by():
    """Were it another one, coverage would be of something else."""
    for design in (Design(3, 2, 5, (1, 4), 0.4), Design(3, 2, 5, (2, 2)), Design(3, 2, 5, None)):
        means = design.draw(np.random.default_rng(0), 40000)
        error = means.std() / means.size**0.5
        assert abs(means.mean() - design.truth) < 4 * error
    assert Design(3, 1, 3, (1, 1), 0.5).truth == pytest.approx(0.375)


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
