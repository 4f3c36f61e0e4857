"""The KL-regularised equilibrium against closed forms, many digits, limits and brute force."""

import mpmath
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.special import log_softmax, logsumexp

from equilign.errors import ConfigError
from equilign.games import PreferenceGame, duality_gap, large, regularised
from equilign.games.nash import nash
from equilign.games.regularised import regularised_log_policy
from tests.games import equilibrium_oracles as oracles

SEEDED = settings(derandomize=True, deadline=None)

# Scissors beat paper: this orientation of the signs belongs to the values below.
ROCK_PAPER_SCISSORS = np.array([[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]])
COMAL = np.array([[0.5, 0.1, 0.8], [0.9, 0.5, 0.1], [0.2, 0.9, 0.5]])
UNIFORM = np.full(3, 1 / 3)


def solved(prefs, ref, beta):
    """The solution of one game, after what holds of every solution."""
    game = PreferenceGame(np.array(prefs, dtype=float), ref, beta)
    solution = nash(game)
    logs = regularised_log_policy(game)
    np.testing.assert_array_equal(np.exp(logs), solution.policy)
    assert logsumexp(logs) == pytest.approx(0.0, abs=1e-14)
    assert (solution.status, solution.unique, solution.notes) == ("optimal", True, ())
    assert solution.value == 0.5
    measured = duality_gap(game, log_policy=logs)
    assert measured <= 1e-15
    assert solution.gap == pytest.approx(measured, abs=1e-15)
    target = log_softmax(log(game.reference) + (game.prefs - 0.5) @ solution.policy / beta)
    # The rounding of the win rates is divided by beta.
    assert np.abs(np.exp(target) - solution.policy).max() < max(1e-12, 2e-16 / beta)
    return solution.policy, logs


def log(x):
    with np.errstate(divide="ignore"):
        return np.log(x)


@pytest.mark.parametrize(
    ("prefs", "ref", "beta", "equilibrium"),
    [
        (ROCK_PAPER_SCISSORS, (0.6, 0.3, 0.1), 1.0, (0.6416, 0.2344, 0.1240)),
        (ROCK_PAPER_SCISSORS, (0.6, 0.3, 0.1), 0.1, (0.4321, 0.2303, 0.3376)),
        (ROCK_PAPER_SCISSORS, (0.6, 0.3, 0.1), 0.01, (0.3410, 0.3215, 0.3376)),
        (COMAL, UNIFORM, 1.0, (0.3240, 0.3306, 0.3453)),
        (COMAL, UNIFORM, 0.1, (0.3371, 0.2835, 0.3794)),
        (COMAL, UNIFORM, 0.01, (0.3610, 0.2729, 0.3662)),
    ],
)
def test_known_equilibria(prefs, ref, beta, equilibrium):
    policy, _ = solved(prefs, np.array(ref), beta)
    np.testing.assert_allclose(policy, equilibrium, atol=6e-5)


@pytest.mark.parametrize("beta", [1e-6, 1e-4, 0.01, 1.0, 1e6])
def test_a_symmetric_cycle_with_a_uniform_reference_stays_uniform(beta):
    policy, _ = solved(ROCK_PAPER_SCISSORS, None, beta)
    np.testing.assert_allclose(policy, 1 / 3, atol=1e-12)


@SEEDED
@given(
    win=st.sampled_from([0.0, 0.2, 0.5, 0.5 + 1e-9, 1.0]),
    share=st.sampled_from([1e-300, 1e-9, 0.3, 0.5]),
    beta=st.sampled_from([1e-4, 1e-3, 0.01, 0.1, 1.0, 30.0, 1e6]),
)
def test_two_responses_have_a_closed_form_also_far_below_underflow(win, share, beta):
    """Log-odds = those of the reference + (win - 1/2) / beta: down to -5000 here."""
    ref = np.array([share, 1.0 - share])
    _, logs = solved([[0.5, win], [1.0 - win, 0.5]], ref, beta)
    odds = np.log(share) - np.log1p(-share) + (win - 0.5) / beta
    expected = -np.logaddexp(0.0, [-odds, odds])
    np.testing.assert_allclose(logs, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("beta", [1e-3, 0.05])
@pytest.mark.parametrize("seed", range(4))
def test_the_logarithms_have_all_their_digits(seed, beta):
    """Against Newton's method with 60 digits; probabilities down to e^-600 and less."""
    rng = np.random.default_rng(seed)
    prefs = oracles.uniform(rng, 5)
    prefs[4, :4], prefs[:4, 4] = 0.02, 0.98  # one response that loses to all
    ref = rng.dirichlet(np.ones(5))
    _, logs = solved(prefs, ref, beta)
    mpmath.mp.dps = 60
    margin = mpmath.matrix(((prefs - prefs.T) / 2).tolist())
    log_ref = [mpmath.log(mpmath.mpf(float(r))) for r in ref]

    def residual(*theta):
        policy = mpmath.matrix([mpmath.e**t for t in theta])
        payoff = margin * policy / mpmath.mpf(beta)
        z = [a + b for a, b in zip(log_ref, payoff, strict=True)]
        total = mpmath.log(sum(mpmath.e**v for v in z))
        return [t - v + total for t, v in zip(theta, z, strict=True)]

    exact = mpmath.findroot(residual, [float(v) for v in logs], tol=1e-80)
    exact = np.array([float(v) for v in exact])
    np.testing.assert_allclose(logs, exact, rtol=1e-13 / beta**0.5, atol=1e-13 / beta**0.5)
    assert exact.min() < (-300 if beta == 1e-3 else -5)


def test_both_limits():
    rng = np.random.default_rng(0)
    for family in (oracles.uniform, oracles.noisy_bradley_terry, oracles.tournament):
        for size in (3, 6, 9):
            prefs, ref = family(rng, size), rng.dirichlet(np.ones(size))
            far, _ = solved(prefs, ref, 1e6)
            np.testing.assert_allclose(far, ref, atol=1e-6)
            plain = nash(PreferenceGame(prefs))
            assert plain.unique
            errors = [np.abs(solved(prefs, ref, b)[0] - plain.policy).max() for b in (1e-3, 1e-5)]
            assert errors[1] < 0.05 * errors[0] + 1e-9


def test_among_several_equilibria_the_limit_is_the_one_nearest_to_the_reference():
    """Three clones of rock share its probability as the reference does."""
    kinds = [0, 0, 0, 1, 2]
    ref = np.array([0.1, 0.2, 0.3, 0.2, 0.2])
    policy, _ = solved(ROCK_PAPER_SCISSORS[np.ix_(kinds, kinds)], ref, 1e-5)
    np.testing.assert_allclose(policy, [1 / 18, 1 / 9, 1 / 6, 1 / 3, 1 / 3], atol=1e-4)


@pytest.mark.parametrize("beta", [1e-6, 1e-4, 1e-3, 0.01, 0.03, 0.1, 1.0, 1e6])
def test_every_family_at_every_weight(beta):
    """Margins of all kinds, references down to e^-200."""
    rng = np.random.default_rng(0)
    for size in (1, 2, 3, 8, 20):
        prefs = np.stack([f(rng, size) for f in oracles.FAMILIES for _ in range(20)])
        logits = rng.normal(size=prefs.shape[:2]) * rng.choice([0.0, 2.0, 60.0], (120, 1))
        ref = np.exp(log_softmax(logits, axis=1))
        game = PreferenceGame(prefs, ref, beta)
        solution = nash(game)
        assert solution.gap.max() < max(1e-20, 1e-24 / beta) * max(1.0, beta)
        gaps = duality_gap(game, log_policy=regularised_log_policy(game))
        np.testing.assert_allclose(gaps, solution.gap, atol=1e-18 * max(1.0, beta))


@pytest.mark.parametrize("beta", [1e-3, 0.3])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_a_batch_is_a_loop_of_games_and_zeros_and_masks_are_smaller_games(beta, dtype):
    rng = np.random.default_rng(0)
    prefs = np.stack([f(rng, 6) for f in oracles.FAMILIES for _ in range(5)]).astype(dtype)
    prefs = np.triu(prefs) + np.tril(1 - prefs.swapaxes(1, 2), -1)
    mask = rng.random((30, 6)) < 0.7
    mask[np.arange(30), rng.integers(0, 6, 30)] = True
    ref = rng.dirichlet(np.ones(6), size=30) * mask
    ref[:, 1] *= ref[:, [0, 2, 3, 4, 5]].sum(axis=1) == 0.0  # the reference never plays this one
    ref /= ref.sum(axis=1, keepdims=True)
    game = PreferenceGame(prefs, ref, beta, mask)
    solution, logs = nash(game), regularised_log_policy(game)
    np.testing.assert_array_equal(logs == -np.inf, ref == 0.0)
    assert (solution.gap < 1e-15).all()
    assert solution.unique.all()
    assert solution.value.shape == (30,)
    for x in range(30):
        keep = ref[x] > 0
        pair = np.ix_(keep, keep)
        alone = PreferenceGame(prefs[x][pair].astype(float), ref[x][keep], beta)
        np.testing.assert_allclose(
            regularised_log_policy(alone), logs[x][keep], rtol=1e-9, atol=1e-9
        )
    shared = PreferenceGame(prefs, np.full(6, 1 / 6), beta)
    np.testing.assert_allclose(
        nash(shared).policy[7], nash(PreferenceGame(prefs[7].astype(float), beta=beta)).policy,
        atol=1e-11,
    )  # fmt: skip


@SEEDED
@given(seed=st.integers(0, 10_000), size=st.integers(1, 10), beta=st.sampled_from([1e-3, 0.1, 2.0]))
def test_names_do_not_matter(seed, size, beta):
    rng = np.random.default_rng(seed)
    prefs, ref = oracles.FAMILIES[seed % 6](rng, size), rng.dirichlet(np.ones(size))
    order = rng.permutation(size)
    _, logs = solved(prefs, ref, beta)
    _, moved = solved(prefs[np.ix_(order, order)], ref[order], beta)
    np.testing.assert_allclose(moved, logs[order], rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("beta", [1e-3, 1.0])
@pytest.mark.parametrize("backend", ["torch", "lapack"])
def test_large_games_agree_with_the_compiled_elimination(beta, backend, monkeypatch):
    monkeypatch.setattr(large, "FEWEST_FOR_TORCH", 0 if backend == "torch" else 10**6)
    rng = np.random.default_rng(0)
    prefs = np.stack([oracles.uniform(rng, 60), oracles.low_rank(rng, 60)])
    ref = rng.dirichlet(np.ones(60), size=2)
    ref[:, :5] = 0.0
    ref /= ref.sum(axis=1, keepdims=True)
    mask = ref > 0.0
    mask[0, :3] = True
    game = PreferenceGame(prefs, ref, beta, mask)
    small = regularised_log_policy(game)
    monkeypatch.setattr(regularised, "LARGEST_COMPILED", 10)
    logs = regularised_log_policy(game)
    assert nash(game).gap.max() < 1e-15
    np.testing.assert_allclose(logs, small, rtol=1e-9, atol=1e-9)


def test_five_hundred_responses():
    game = PreferenceGame(oracles.uniform(np.random.default_rng(0), 500), beta=1e-3)
    assert nash(game).gap < 1e-18


def test_without_a_weight_there_are_no_logarithms():
    with pytest.raises(ConfigError, match="without a KL weight"):
        regularised_log_policy(PreferenceGame(COMAL))


@pytest.mark.parametrize("largest", [200, 1], ids=["compiled", "lapack"])
@pytest.mark.parametrize("beta", [1e-8, 1e-10, 1e-12, 1e-15, 1e-100])
def test_weights_that_are_hardly_more_than_rounding(beta, largest, monkeypatch):
    """Log-odds of 1e100 are still numbers; the answer is an equilibrium to ten digits."""
    monkeypatch.setattr(regularised, "LARGEST_COMPILED", largest)
    rng = np.random.default_rng(0)
    for family in oracles.FAMILIES:
        for _ in range(2):
            game = PreferenceGame(family(rng, 8), rng.dirichlet(np.ones(8)), beta)
            solution = nash(game)
            assert solution.status == "optimal"
            assert solution.policy.sum() == pytest.approx(1.0, abs=1e-12)
            assert duality_gap(game, solution.policy) < 1e-10
            assert duality_gap(PreferenceGame(game.prefs), solution.policy) < 1e-6
