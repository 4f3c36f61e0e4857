"""The game itself: what it accepts, what it says when it does not, and whose win rate is whose."""

import re

import jaxtyping
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equilign.errors import ConfigError, PolicyError, PreferenceMatrixError
from equilign.games import PreferenceGame, check_policy, check_prefs
from tests.enumerable import random_prefs

SEEDED = settings(derandomize=True, deadline=None)

HALF = np.full((2, 2), 0.5)


@pytest.fixture
def without_shape_checks():
    """As users run it: the run-time shape checks of this suite would speak first."""
    jaxtyping.config.update("jaxtyping_disable", True)
    yield
    jaxtyping.config.update("jaxtyping_disable", False)


def exactly(message):
    return f"^{re.escape(message)}$"


def test_the_worst_pair_and_the_cure_are_named():
    prefs = np.full((3, 3), 0.5)
    prefs[0, 1], prefs[1, 0] = 0.6, 0.5  # off by 0.1
    prefs[2, 1], prefs[1, 2] = 0.9, 0.3  # off by 0.2: the worst
    message = (
        "prefs[i, j] must be Pr(i beats j), so prefs + prefs.T == 1; worst pair is "
        "(1, 2): 0.3 + 0.9. A tie counts one half on both sides."
    )
    with pytest.raises(PreferenceMatrixError, match=exactly(message)):
        check_prefs(prefs)
    with pytest.raises(PreferenceMatrixError, match=exactly(message)):
        PreferenceGame(prefs)


def test_a_diagonal_that_is_no_tie_is_named():
    with pytest.raises(PreferenceMatrixError, match=re.escape("(1, 1): 0 + 0. A tie counts")):
        check_prefs(np.array([[0.5, 1.0], [0.0, 0.0]]))


@pytest.mark.parametrize(
    ("value", "shown"),
    [(-0.25, "-0.25"), (1.25, "1.25"), (np.nan, "nan"), (np.inf, "inf"), (-np.inf, "-inf")],
)
def test_an_entry_that_is_no_probability_is_named(value, shown):
    prefs = np.full((3, 3), 0.5)
    prefs[1, 2], prefs[2, 1] = value, 1.0 - value
    message = (
        f"prefs[1, 2] = {shown} is no probability; every entry must be "
        "Pr(i beats j) in [0, 1]. Divide counts by the number of comparisons first."
    )
    with pytest.raises(PreferenceMatrixError, match=exactly(message)):
        check_prefs(prefs)


def test_the_tolerance_is_one_in_a_million():
    prefs = HALF.copy()
    prefs[0, 1] += 0.9e-6
    check_prefs(prefs)
    prefs[0, 1] += 0.2e-6
    with pytest.raises(PreferenceMatrixError, match=r"\(0, 1\)"):
        check_prefs(prefs)


def test_zero_and_one_are_probabilities():
    check_prefs(np.array([[0.5, 1.0], [0.0, 0.5]]))


@pytest.mark.parametrize("shape", [(2, 3), (3,), (0, 0), (2, 2, 3), (0, 2, 2)])
def test_a_matrix_that_is_not_square_is_refused(shape, without_shape_checks):
    message = (
        f"prefs has shape {shape}; a game needs a square matrix, one row per response: "
        "(n, n), or (X, n, n) for a batch of X games"
    )
    with pytest.raises(PreferenceMatrixError, match=exactly(message)):
        PreferenceGame(np.full(shape, 0.5))


def test_lists_will_do(without_shape_checks):
    game = PreferenceGame([[0.5, 1], [0, 0.5]], ref=[0.25, 0.75], beta=1)
    np.testing.assert_array_equal(game.prefs, [[0.5, 1.0], [0.0, 0.5]])
    np.testing.assert_array_equal(game.ref, [0.25, 0.75])
    assert game.prefs.dtype == game.ref.dtype == np.float64


@pytest.mark.parametrize(
    ("policy", "message"),
    [
        ([0.5, 0.5], "policy has shape (2,); the game has 3 responses"),
        ([0.7, 0.5, -0.2], "policy[2] = -0.2; probabilities must be finite and >= 0"),
        ([-0.1, 1.4, -0.3], "policy[2] = -0.3; probabilities must be finite and >= 0"),
        ([0.5, np.nan, 0.5], "policy[1] = nan; probabilities must be finite and >= 0"),
        ([np.inf, 0.0, 0.0], "policy[0] = inf; probabilities must be finite and >= 0"),
        ([0.5, 0.5, 0.5], "policy sums to 1.5, not 1; divide it by its sum"),
        ([0.25, 0.25, 0.25], "policy sums to 0.75, not 1; divide it by its sum"),
    ],
)
def test_what_is_no_policy_is_refused(policy, message):
    with pytest.raises(PolicyError, match=exactly(message)):
        check_policy(np.array(policy), 3)


def test_the_reference_is_checked_too():
    with pytest.raises(PolicyError, match=r"sums to 0\.9"):
        PreferenceGame(HALF, ref=np.array([0.5, 0.4]))


def test_policies_on_the_boundary_and_within_rounding_are_accepted():
    check_policy(np.array([1.0, 0.0]), 2)
    check_policy(np.array([0.5, 0.5 + 0.9e-6]), 2)
    check_policy(np.array([0.5, 0.5 - 0.9e-6]), 2)
    for excess in (1.1e-6, -1.1e-6):
        with pytest.raises(PolicyError, match="divide it by its sum"):
            check_policy(np.array([0.5, 0.5 + excess]), 2)


@pytest.mark.parametrize("beta", [-0.1, np.nan, np.inf])
def test_the_weight_must_be_finite_and_not_negative(beta):
    with pytest.raises(
        ConfigError, match=exactly(f"beta = {beta}; the KL weight must be finite and >= 0")
    ):
        PreferenceGame(HALF, beta=float(beta))


def test_the_reference_is_uniform_unless_given():
    np.testing.assert_array_equal(PreferenceGame(np.full((4, 4), 0.5)).ref, [0.25] * 4)
    ref = np.array([0.2, 0.8])
    np.testing.assert_array_equal(PreferenceGame(HALF, ref=ref).ref, ref)


def test_the_margin_is_made_exactly_skew():
    """Rounding in the input would give the game a value other than 1/2."""
    prefs = np.array([[0.5 + 4e-7, 0.7 + 4e-7], [0.3, 0.5]])
    game = PreferenceGame(prefs)
    margin = game.prefs - 0.5
    np.testing.assert_array_equal(margin, -margin.T)
    np.testing.assert_allclose(game.prefs, prefs, atol=5e-7)
    assert prefs[0, 0] == 0.5 + 4e-7, "the caller's array is not touched"


def test_win_rates_by_hand():
    """Row i against the mixture of columns: response 0 beats 1 nine times in ten."""
    game = PreferenceGame(np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.6], [0.8, 0.4, 0.5]]))
    rates = game.win_rates(np.array([0.0, 0.5, 0.5]))
    np.testing.assert_allclose(rates, [0.55, 0.55, 0.45], atol=1e-15)
    assert game.size == 3


@SEEDED
@given(seed=st.integers(0, 10_000), size=st.integers(1, 8))
def test_a_policy_beats_itself_half_the_time(seed, size):
    game = PreferenceGame(random_prefs(seed, size))
    policy = np.random.default_rng(seed).dirichlet(np.ones(size))
    assert policy @ game.win_rates(policy) == pytest.approx(0.5, abs=1e-12)
