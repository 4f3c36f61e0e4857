"""Bradley-Terry, its goodness of fit and what noise does to shares of intransitivity."""

import numpy as np
import pytest
from scipy import stats

from equilign.diagnosis.favourite import worst_loss
from equilign.diagnosis.rating import (
    draw_null,
    fit_errors,
    intransitivity,
    mean_squared_error,
    misfit,
    upper_p_value,
)
from equilign.games.bradley_terry import bradley_terry_prefs, fit_bradley_terry, simulate_wins
from equilign.games.build import prefs_from_counts
from tests.diagnosis.test_significance import circle, even_counts
from tests.games.real_games import EXPECTED, NAMES, real


@pytest.mark.parametrize("name", NAMES)
def test_real_fits(name):
    """Errors, favourite and Hodge share as an independent program found them."""
    data, expected = real(name), EXPECTED[name]
    fit = fit_bradley_terry(data.wins)
    errors = fit_errors(fit, data.wins)
    assert errors.mean == pytest.approx(expected["bt_mae"], abs=2e-6)
    assert errors.rms == pytest.approx(expected["bt_rmse"], abs=2e-6)
    assert errors.largest == pytest.approx(expected["bt_max"], abs=2e-5)
    # Where the fit rates two clubs equally, which side it is on is rounding.
    assert errors.wrong_side == pytest.approx(expected["bt_sign_err"], abs=0.01)
    assert fit.deviance == pytest.approx(expected["bt_deviance"], abs=2e-5, rel=1e-7)
    assert fit.degrees_of_freedom == expected["bt_df"]
    share = intransitivity(data.game.prefs, data.wins, data.ties, None).cyclic_share
    assert share == pytest.approx(expected["hodge_cyclic_frac"], abs=1e-6)
    scores = np.asarray(fit.scores)
    named = data.labels.index(expected["bt_argmax"])
    assert scores[named] == pytest.approx(scores.max(), abs=1e-9)
    loss = worst_loss(data.game.prefs, data.wins, named).loss
    assert 2 * loss == pytest.approx(max(expected["bt_argmax_exploit"], 0.0), abs=2e-6)


def random_ratings(seed, size, spread=0.7):
    return bradley_terry_prefs(np.random.default_rng(seed).normal(size=size) * spread)


def p_value(wins, ties=None, samples=99, seed=0):
    fit = fit_bradley_terry(wins)
    null = draw_null(fit, wins, ties, samples, np.random.default_rng(seed))
    return upper_p_value(float(fit.deviance), null.deviance)


def test_p_values_of_true_ratings_are_even():
    """Under the model p is uniform on 1/100 ... 1; 100 data sets with few comparisons."""
    rng = np.random.default_rng(0)
    counts = even_counts(6, 12)
    p = [p_value(simulate_wins(random_ratings(k, 6), counts, rng), seed=k) for k in range(100)]
    assert stats.kstest(p, "uniform").pvalue > 0.001
    assert 0.4 < np.mean(p) < 0.6


def test_known_ties_do_not_make_the_fit_look_too_good():
    rng = np.random.default_rng(1)
    counts, ties = even_counts(6, 30), even_counts(6, 12)
    truth = random_ratings(3, 6, 0.3)
    with_ties, without = [], []
    for k in range(50):
        wins = simulate_wins(truth, counts - ties, rng) + ties / 2
        with_ties.append(p_value(wins, ties, seed=k))
        without.append(p_value(wins, None, seed=k))
    assert 0.38 < np.mean(with_ties) < 0.62
    assert np.mean(without) > 0.7  # cautious, as said


def test_cycles_are_rejected_and_p_values_are_never_zero():
    wins = simulate_wins(circle(5, 0.7), even_counts(5, 200), np.random.default_rng(0))
    assert p_value(wins) == 0.01
    assert upper_p_value(2.0, np.array([1.0, 2.0, 3.0])) == 0.75
    assert upper_p_value(4.0, np.array([1.0, 2.0, 3.0])) == 0.25


def test_data_sets_have_the_counts_and_the_ties_of_the_data():
    rng = np.random.default_rng(2)
    counts = even_counts(4, 9)
    counts[0, 1] = counts[1, 0] = 0.0
    wins = simulate_wins(random_ratings(0, 4), counts, rng)
    fit = fit_bradley_terry(wins)
    calls = []
    null = draw_null(fit, wins, None, 35, rng, lambda done, total: calls.append((done, total)))
    assert len(null.deviance) == 35
    assert calls[-1] == (35, 35)
    assert (null.deviance >= 0).all()
    assert (null.cyclic_share <= 1).all()
    again = draw_null(fit, wins, None, 35, np.random.default_rng(5))
    same = draw_null(fit, wins, None, 35, np.random.default_rng(5))
    np.testing.assert_array_equal(again.deviance, same.deviance)


def test_drawn_data_with_ties_win_as_often_as_the_fit_says(monkeypatch):
    """Ties are kept, so decided comparisons must be more one-sided than the fit."""
    from equilign.diagnosis import rating

    wins = np.array([[0.0, 80.0, 85.0], [20.0, 0.0, 60.0], [15.0, 40.0, 0.0]])
    ties = even_counts(3, 24)
    drawn = []
    describe = rating._describe
    monkeypatch.setattr(
        rating, "_describe", lambda w, compared: drawn.append(w) or describe(w, compared)
    )
    fit = fit_bradley_terry(wins)
    draw_null(fit, wins, ties, 2000, np.random.default_rng(0))
    mean = np.concatenate(drawn).mean(axis=0)
    np.testing.assert_allclose(mean, 100 * fit.prefs * (1 - np.eye(3)), atol=0.5)


def test_mean_squared_error_by_hand():
    wins = np.array([[0.0, 3.0, 0.0], [1.0, 0.0, 1.0], [0.0, 1.0, 0.0]])
    fitted = np.full((3, 3), 0.5)
    # pair (0, 1): 4 comparisons off by 1/4; pair (1, 2): 2 comparisons, right
    assert mean_squared_error(wins[None], fitted[None])[0] == pytest.approx(4 / 16 / 6)


def test_misfit_is_found_where_it_is_and_bounded_where_it_is_not():
    rng = np.random.default_rng(3)

    def estimate(truth, number):
        wins = simulate_wins(truth, even_counts(len(truth), number), rng)
        fit = fit_bradley_terry(wins)
        null = draw_null(fit, wins, None, 200, rng)
        squared = float(mean_squared_error(wins[None], fit.prefs[None])[0])
        return misfit(squared, null.squared_error, wins.sum(), True)

    # A circle has no ratings: the fit is 1/2 everywhere and off by 0.1 on every pair.
    typical, bound = estimate(circle(7, 0.6), 400)
    assert typical == pytest.approx(0.1, abs=0.015)
    assert typical < bound < 0.13
    found = [estimate(random_ratings(k, 7), 400) for k in range(20)]
    assert np.median([t for t, _ in found]) < 0.01
    assert max(b for _, b in found) < 0.03
    assert misfit(0.04, np.zeros(3) + 0.01, 100.0, False) == pytest.approx((0.03**0.5, 0.2))


def test_the_bound_of_the_misfit_holds():
    """True misfit 0.05, few comparisons: the bound is above it in about 95 of 100 data sets."""
    rng = np.random.default_rng(4)
    truth = circle(9, 0.55)
    inside = 0
    for _ in range(100):
        wins = simulate_wins(truth, even_counts(9, 40), rng)
        fit = fit_bradley_terry(wins)
        null = draw_null(fit, wins, None, 99, rng)
        squared = float(mean_squared_error(wins[None], fit.prefs[None])[0])
        inside += misfit(squared, null.squared_error, wins.sum(), True)[1] >= 0.05
    assert inside >= 88


def test_sparse_data_look_intransitive_by_noise_alone():
    """Two comparisons a pair, as in a football season."""
    rng = np.random.default_rng(5)
    raw, corrected, p_values = [], [], []
    for k in range(20):
        wins = simulate_wins(random_ratings(k, 20), even_counts(20, 2), rng)
        null = draw_null(fit_bradley_terry(wins), wins, None, 50, rng)
        found = intransitivity(prefs_from_counts(wins), wins, None, null)
        assert abs(found.cyclic_share - found.under_bradley_terry) < 0.2
        raw.append(found.cyclic_share)
        corrected.append(found.corrected or 0.0)
        p_values.append(found.p_value)
    assert np.mean(raw) > 0.5
    assert np.mean(corrected) < 0.25
    assert np.mean(np.array(p_values) <= 0.1) < 0.4


def test_worst_loss_by_hand():
    prefs = np.array([[0.5, 0.6, 0.3], [0.4, 0.5, 0.9], [0.7, 0.1, 0.5]])
    alone = worst_loss(prefs, None, 0)
    assert (alone.opponent, alone.loss, alone.low, alone.high) == (
        2,
        pytest.approx(0.2),
        alone.loss,
        alone.loss,
    )
    wins = 100 * prefs * (1 - np.eye(3))
    known = worst_loss(prefs, wins, 0)
    level = 1 - 0.05 / 3
    exact = stats.binomtest(70, 100).proportion_ci(level, "exact")
    assert (known.low, known.high) == pytest.approx((exact.low - 0.5, exact.high - 0.5))
    wins[0, 2] = wins[2, 0] = 0.0
    assert worst_loss(prefs_from_counts(wins), wins, 0).high == 0.5  # never met


def test_bounds_of_the_worst_loss_hold_for_a_favourite_picked_from_the_data():
    rng = np.random.default_rng(6)
    truth = circle(7, 0.6)
    inside = 0
    for _ in range(200):
        wins = simulate_wins(truth, even_counts(7, 50), rng)
        favourite = int(fit_bradley_terry(wins).favourite)
        found = worst_loss(prefs_from_counts(wins), wins, favourite)
        inside += found.low <= 0.1 <= found.high
    assert inside >= 190
