"""The Bradley-Terry fit against scipy, closed forms and reference values of real games.

The reference values were worked out by another maximum-likelihood program; they are read here
and nowhere in the library.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit, logit, xlogy

from equilign.errors import ConfigError, DataError, PreferenceMatrixError
from equilign.games.bradley_terry import (
    bradley_terry_prefs,
    fit_bradley_terry,
    simulate_wins,
)

SEEDED = settings(derandomize=True, deadline=None, max_examples=40)
DATA = Path(__file__).resolve().parents[2] / "data" / "games"
EXPECTED = json.loads((DATA / "expected.json").read_text(encoding="utf-8"))


def real_wins(name):
    if name.startswith("epl_seasons/"):
        file = np.load(DATA / "epl_seasons" / "seasons.npz")
        season = list(file["seasons"]).index(name.split("/")[1])
        return [str(x) for x in file["names"][season]], file["wins"][season].astype(float)
    if (DATA / name / "game.npz").exists():
        file = np.load(DATA / name / "game.npz")
        return [str(x) for x in file["names"]], file["wins"].astype(float)
    folder, attribute = name.split("/")
    file = np.load(DATA / folder / "game.npz")
    which = list(file["attributes"]).index(attribute)
    return [str(x) for x in file["names"]], file["wins_per_attribute"][which].astype(float)


def random_wins(seed, size, *, missing=0.3):
    """Half wins, uneven weights, pairs that were never compared; strongly connected by a ring."""
    rng = np.random.default_rng(seed)
    wins = rng.integers(0, 9, size=(size, size)) / 2.0
    never = np.triu(rng.random((size, size)) < missing, 1)
    wins[never | never.T] = 0.0
    ring = np.arange(size)
    wins[ring, (ring + 1) % size] += 1.0
    np.fill_diagonal(wins, 0.0)
    return wins


def negative_log_likelihood(free, wins):
    scores = np.append(free, -free.sum())
    return -xlogy(wins, expit(scores[:, None] - scores[None, :])).sum()


# -- against other programs and closed forms ----------------------------------------------


@pytest.mark.parametrize("name", EXPECTED)
def test_real_games_are_fitted_as_by_the_reference_program(name):
    names, wins = real_wins(name)
    want = EXPECTED[name]
    fit = fit_bradley_terry(wins)
    assert fit.converged
    assert not fit.separated
    assert fit.components == 1
    counts = wins + wins.T
    pairs = np.triu(counts > 0.0, 1)
    share = np.divide(wins, counts, out=np.full_like(wins, 0.5), where=counts > 0.0)
    np.fill_diagonal(share, 0.5)
    error, weight = np.abs(share - fit.prefs)[pairs], counts[pairs]
    found = {
        "bt_mae": np.average(error, weights=weight),
        "bt_rmse": np.sqrt(np.average(error**2, weights=weight)),
        "bt_max": error.max(),
        "bt_deviance": fit.deviance,
    }
    assert {k: round(v, 6) for k, v in found.items()} == pytest.approx(
        {k: want[k] for k in found}, abs=1.1e-6
    )
    assert fit.degrees_of_freedom == want["bt_df"]
    top = fit.scores.max()
    leaders = {names[i] for i in np.flatnonzero(fit.scores > top - 1e-9)}
    assert want["bt_argmax"] in leaders
    if leaders == {want["bt_argmax"]}:  # two seasons have two such clubs
        assert names[fit.favourite] == want["bt_argmax"]
        loss = (1.0 - 2.0 * share[fit.favourite]).max()
        assert loss == pytest.approx(want["bt_argmax_exploit"], abs=1e-6)


def test_two_seasons_have_two_clubs_with_the_same_record_on_top():
    ties = []
    for name in EXPECTED:
        scores = np.sort(fit_bradley_terry(real_wins(name)[1]).scores)
        if scores[-1] - scores[-2] < 1e-9:
            ties.append(name)
    assert ties == ["epl_seasons/2011-12", "epl_seasons/2021-22"]


@SEEDED
@given(seed=st.integers(0, 10_000), size=st.integers(2, 7))
def test_scipy_finds_the_same_maximum(seed, size):
    wins = random_wins(seed, size)
    fit = fit_bradley_terry(wins)
    assert fit.converged
    assert not fit.separated
    found = minimize(
        negative_log_likelihood, np.zeros(size - 1), args=(wins,), method="BFGS", tol=1e-10
    )
    want = np.append(found.x, -found.x.sum())
    np.testing.assert_allclose(fit.scores, want, atol=2e-5)
    assert negative_log_likelihood(fit.scores[:-1], wins) <= found.fun + 1e-12


@SEEDED
@given(seed=st.integers(0, 10_000), size=st.integers(2, 12))
def test_expected_wins_equal_observed_wins(seed, size):
    """The likelihood equations: every player wins as often as the model says."""
    wins = random_wins(seed, size)
    fit = fit_bradley_terry(wins)
    expected = ((wins + wins.T) * fit.prefs).sum(axis=1)
    np.testing.assert_allclose(expected, wins.sum(axis=1), atol=1e-10 * wins.sum())
    assert abs(fit.scores.mean()) < 1e-12


@pytest.mark.parametrize(("won", "lost"), [(3.0, 1.0), (0.5, 2.5), (1e-8, 1.0), (7e6, 7e6)])
def test_two_players_have_a_closed_form(won, lost):
    fit = fit_bradley_terry(np.array([[0.0, won], [lost, 0.0]]))
    assert fit.scores[0] - fit.scores[1] == pytest.approx(logit(won / (won + lost)), abs=1e-9)
    assert fit.deviance == pytest.approx(0.0, abs=1e-12)
    assert fit.degrees_of_freedom == 0
    assert fit.converged
    assert not fit.separated


def test_the_deviance_is_twice_the_lacking_likelihood():
    """A cycle of three, 3 : 1 each: the fit is flat, and every pair lacks the same."""
    wins = np.array([[0.0, 3.0, 1.0], [1.0, 0.0, 3.0], [3.0, 1.0, 0.0]])
    fit = fit_bradley_terry(wins)
    np.testing.assert_allclose(fit.scores, 0.0, atol=1e-12)
    lacking = 3 * 2 * (3 * np.log(0.75 / 0.5) + np.log(0.25 / 0.5))
    assert fit.deviance == pytest.approx(lacking, rel=1e-12)
    assert fit.degrees_of_freedom == 1
    assert fit.favourite == 0


@pytest.mark.parametrize("size", [2, 5, 30])
def test_exact_probabilities_give_the_scores_back(size):
    scores = np.random.default_rng(size).normal(0, 2, size)
    fit = fit_bradley_terry(7.0 * bradley_terry_prefs(scores))
    np.testing.assert_allclose(fit.scores, scores - scores.mean(), atol=1e-10)
    assert fit.deviance < 1e-12
    np.testing.assert_allclose(fit.prefs, bradley_terry_prefs(scores), atol=1e-11)
    assert fit.favourite == scores.argmax()


def test_a_thousand_players_are_recovered_from_samples():
    rng = np.random.default_rng(0)
    scores = rng.normal(size=1000)
    wins = simulate_wins(bradley_terry_prefs(scores), np.full((1000, 1000), 5.0), rng)
    fit = fit_bradley_terry(wins)
    assert fit.converged
    # The information on one score is about 999 * 5 * mean of p (1 - p), near 900.
    error = fit.scores - (scores - scores.mean())
    assert 0.5 / 30 < error.std() < 2 / 30
    spread = np.sqrt(2 * fit.degrees_of_freedom)
    assert abs(fit.deviance - fit.degrees_of_freedom) < 0.2 * fit.degrees_of_freedom
    assert fit.degrees_of_freedom == 1000 * 999 // 2 - 999
    assert spread < 1000


# -- properties ---------------------------------------------------------------------------


def test_relabelling_weights_and_reversal():
    wins = random_wins(3, 6)
    fit, order = fit_bradley_terry(wins), np.array([4, 2, 5, 0, 1, 3])
    moved = fit_bradley_terry(wins[np.ix_(order, order)])
    np.testing.assert_allclose(moved.scores, fit.scores[order], atol=1e-11)
    heavy = fit_bradley_terry(1e5 * wins)
    np.testing.assert_allclose(heavy.scores, fit.scores, atol=1e-11)
    assert heavy.deviance == pytest.approx(1e5 * fit.deviance, rel=1e-9)
    np.testing.assert_allclose(fit_bradley_terry(wins.T).scores, -fit.scores, atol=1e-11)


def test_the_diagonal_is_not_looked_at_and_the_input_is_left_alone():
    wins = random_wins(1, 5)
    noisy = wins.copy()
    np.fill_diagonal(noisy, np.nan)
    before = noisy.copy()
    np.testing.assert_array_equal(fit_bradley_terry(noisy).scores, fit_bradley_terry(wins).scores)
    np.testing.assert_array_equal(noisy, before)


def test_a_batch_is_a_loop_of_single_fits():
    games = np.stack([random_wins(seed, 5) for seed in range(20)])
    games[3] = np.triu(np.ones((5, 5)), 1)  # separated
    games[4, :, 4] = games[4, 4, :] = 0.0  # one player alone
    together = fit_bradley_terry(games)
    for k, wins in enumerate(games):
        one = fit_bradley_terry(wins)
        np.testing.assert_allclose(together.scores[k], one.scores, atol=1e-9)
        assert together.deviance[k] == pytest.approx(one.deviance, abs=1e-9)
        for name in ("degrees_of_freedom", "converged", "separated", "components", "favourite"):
            assert getattr(together, name)[k] == getattr(one, name), (k, name)
    assert together.separated.sum() == 1 + sum(
        fit_bradley_terry(g).separated for i, g in enumerate(games) if i != 3
    )
    assert together.components[4] == 2


# -- no finite maximum, nothing in common -------------------------------------------------


def test_a_group_that_never_loses_is_reported():
    """Two pairs of equals, the first beats the second always: scores rank, pairs keep theirs."""
    wins = np.zeros((4, 4))
    wins[:2, 2:] = 5.0
    wins[0, 1], wins[1, 0], wins[2, 3], wins[3, 2] = 3.0, 1.0, 2.0, 2.0
    fit = fit_bradley_terry(wins)
    assert fit.separated
    assert fit.converged
    assert fit.scores[0] - fit.scores[1] == pytest.approx(np.log(3), abs=1e-3)
    assert fit.scores[2] - fit.scores[3] == pytest.approx(0.0, abs=1e-6)
    assert fit.scores[1] - fit.scores[2] > 10.0
    assert fit.prefs[1, 2] > 1 - 1e-4
    # In the limit nothing is lacking: the groups are fitted exactly.
    assert 0.0 <= fit.deviance < 1e-3
    assert fit.favourite == 0


def test_one_chain_of_wins_is_enough():
    """0 > 1 > 2 > 3 always; a single half win of the last over the first makes it finite."""
    wins = np.triu(np.ones((4, 4)), 1)
    assert fit_bradley_terry(wins).separated
    wins[3, 0] = 0.5
    fit = fit_bradley_terry(wins)
    assert not fit.separated
    assert fit.converged
    assert np.ptp(fit.scores) < 10


def test_the_ridge_can_be_set():
    wins = np.array([[0.0, 1.0], [0.0, 0.0]])
    for ridge in (1.0, 0.01):
        d = np.diff(fit_bradley_terry(wins, ridge=ridge).scores[::-1])[0]
        # sigmoid(-d) = ridge * d / 2 at the maximum of log sigmoid(d) - ridge / 2 * (d^2 / 2).
        assert expit(-d) == pytest.approx(ridge * d / 2, rel=1e-9)
    assert not fit_bradley_terry(wins, ridge=0.0, max_steps=3).converged


def test_parts_without_comparisons_between_them():
    wins = np.zeros((5, 5))
    wins[0, 1], wins[1, 0] = 3.0, 1.0
    wins[2, 3], wins[3, 2] = 1.0, 1.0
    fit = fit_bradley_terry(wins)
    assert fit.components == 3
    assert not fit.separated
    assert fit.degrees_of_freedom == 0
    half = np.log(3) / 2
    np.testing.assert_allclose(fit.scores, [half, -half, 0, 0, 0], atol=1e-10)
    nothing = fit_bradley_terry(np.zeros((3, 3)))
    np.testing.assert_array_equal(nothing.scores, 0.0)
    assert (nothing.components, nothing.degrees_of_freedom, nothing.converged) == (3, 0, True)
    assert fit_bradley_terry(np.zeros((1, 1))).favourite == 0


@pytest.mark.parametrize(
    ("wins", "options", "error", "message"),
    [
        (np.ones((2, 3)), {}, DataError, r"shape \(2, 3\)"),
        (np.zeros((0, 0)), {}, DataError, "one row per player"),
        (np.array([[0.0, -1.0], [1, 0]]), {}, DataError, r"wins\[0, 1\] = -1.0.*never compared"),
        (np.array([[0.0, 1.0], [np.nan, 0]]), {}, DataError, r"wins\[1, 0\] = nan"),
        (np.full((2, 3, 3), np.inf), {}, DataError, r"wins\[0, 0, 1\] = inf"),
        (np.ones((2, 2)), {"ridge": -1.0}, ConfigError, "ridge = -1.0"),
        (np.ones((2, 2)), {"max_steps": 0}, ConfigError, "max_steps = 0"),
    ],
)
def test_bad_input_is_named(wins, options, error, message, without_shape_checks):
    with pytest.raises(error, match=message):
        fit_bradley_terry(wins, **options)


# -- the parametric bootstrap -------------------------------------------------------------


def test_simulated_wins_have_the_right_counts_mean_and_variance():
    prefs = bradley_terry_prefs(np.array([1.0, 0.0, -0.5]))
    counts = np.array([[9.0, 40.0, 0.0], [40.0, 9.0, 7.5], [0.0, 7.5, 9.0]])
    drawn = simulate_wins(prefs, counts, np.random.default_rng(0), samples=4000)
    assert drawn.shape == (4000, 3, 3)
    assert (np.diagonal(drawn, axis1=1, axis2=2) == 0.0).all()
    totals = drawn + drawn.swapaxes(1, 2)
    assert (totals[:, 0, 1] == 40.0).all()
    assert (totals[:, 0, 2] == 0.0).all()
    assert set(np.unique(totals[:, 1, 2])) == {7.0, 8.0}
    assert totals[:, 1, 2].mean() == pytest.approx(7.5, abs=0.05)
    p = prefs[0, 1]
    assert drawn[:, 0, 1].mean() == pytest.approx(40 * p, abs=4 * np.sqrt(40 * p * (1 - p) / 4000))
    assert drawn[:, 0, 1].var() == pytest.approx(40 * p * (1 - p), rel=0.1)
    one = simulate_wins(prefs, counts, np.random.default_rng(1))
    assert one.shape == (3, 3)
    np.testing.assert_array_equal(one, simulate_wins(prefs, counts, np.random.default_rng(1)))


def test_the_deviance_of_simulated_wins_has_its_degrees_of_freedom():
    prefs = bradley_terry_prefs(np.linspace(-1, 1, 6))
    wins = simulate_wins(prefs, np.full((6, 6), 60.0), np.random.default_rng(2), samples=400)
    fit = fit_bradley_terry(wins)
    assert (fit.degrees_of_freedom == 10).all()
    assert fit.deviance.mean() == pytest.approx(10, abs=4 * np.sqrt(20 / 400))


def test_simulation_refuses_what_it_cannot_read(without_shape_checks):
    prefs, rng = np.full((2, 2), 0.5), np.random.default_rng(0)
    with pytest.raises(DataError, match=r"counts\[0, 1\] = 3, but counts\[1, 0\] = 2"):
        simulate_wins(prefs, np.array([[0.0, 3.0], [2.0, 0.0]]), rng)
    with pytest.raises(DataError, match=r"counts has shape \(3, 3\)"):
        simulate_wins(prefs, np.ones((3, 3)), rng)
    with pytest.raises(DataError, match=r"counts\[0, 1\] = -1"):
        simulate_wins(prefs, -np.ones((2, 2)), rng)
    with pytest.raises(PreferenceMatrixError, match="no probability"):
        simulate_wins(np.full((2, 2), 2.0), np.ones((2, 2)), rng)
    with pytest.raises(ConfigError, match="samples = 0"):
        simulate_wins(prefs, np.ones((2, 2)), rng, samples=0)
