"""STA-RLHF in tables: gradients by finite differences, moves by hand."""

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from equilign.errors import ConfigError
from equilign.games import PreferenceGame
from equilign.play import log_normalise, play
from equilign.play.reward_game import (
    fit_reward,
    policy_gradient,
    response_term,
    reward_gradient,
    reward_hessian,
)
from equilign.rules import REWARD_GAME_RULES
from tests.play.games import COMAL, random_game

THETA = np.array([0.3, -0.2, 0.1])


def likelihood(prefs, pi, reward, ridge):
    """R_RM by two plain loops."""
    total = 0.0
    for i in range(len(pi)):
        for j in range(len(pi)):
            d = reward[i] - reward[j]
            good, bad = -math.log1p(math.exp(-d)), -math.log1p(math.exp(d))
            total += pi[i] * pi[j] * (prefs[i, j] * good + prefs[j, i] * bad)
    return total - ridge / 2 * float(reward @ reward)


def difference(function, x, h=1e-5):
    return np.array([(function(x + h * e) - function(x - h * e)) / (2 * h) for e in np.eye(len(x))])


def test_gradient_and_hessian_by_finite_differences():
    game, rng = random_game(1, 4), np.random.default_rng(0)
    pi, reward = rng.dirichlet(np.ones(4)), rng.normal(size=4)
    gradient = difference(lambda r: likelihood(game.prefs, pi, r, 0.1), reward)
    np.testing.assert_allclose(reward_gradient(game.prefs, pi, reward, 0.1), gradient, atol=1e-9)
    hessian = difference(lambda r: reward_gradient(game.prefs, pi, r, 0.1), reward)
    np.testing.assert_allclose(reward_hessian(pi, reward, 0.1), hessian, atol=1e-9)
    assert np.linalg.eigvalsh(hessian).max() < 0


@pytest.mark.parametrize("ridge", [1e-1, 1e-3])
def test_the_fit_maximises_the_likelihood(ridge):
    game, pi = random_game(2, 4), np.array([0.1, 0.2, 0.3, 0.4])
    reward = fit_reward(game.prefs, pi, ridge)
    best = minimize(lambda r: -likelihood(game.prefs, pi, r, ridge), np.zeros(4), tol=1e-14)
    assert likelihood(game.prefs, pi, reward, ridge) >= -best.fun - 1e-13
    assert np.abs(reward_gradient(game.prefs, pi, reward, ridge)).max() < 1e-12


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("ridge", [0.1, 1e-3])
def test_total_derivative_is_that_of_the_fitted_objective(seed, ridge):
    """E_pi[r*(theta)] with the reward fitted anew for every theta, by finite differences."""
    game = random_game(seed, 4)
    theta = np.random.default_rng(seed).normal(size=4)

    def objective(logits):
        pi = np.exp(log_normalise(logits))
        return float(pi @ fit_reward(game.prefs, pi, ridge))

    pi = np.exp(log_normalise(theta))
    reward = fit_reward(game.prefs, pi, ridge)
    naive = policy_gradient(pi, reward)
    total = naive + response_term(game.prefs, pi, reward, ridge)
    want = difference(objective, theta, h=1e-5)
    np.testing.assert_allclose(total, want, atol=2e-7 / ridge**0.5)
    assert np.abs(total - naive).max() > 1e-3, "the correction is nothing; the test is vacuous"


def test_published_values_on_the_cycle():
    """Naive and total gradient can point opposite ways."""
    pi = np.exp(log_normalise(THETA))
    reward = fit_reward(COMAL, pi, 1e-6)
    naive = policy_gradient(pi, reward)
    total = naive + response_term(COMAL, pi, reward, 1e-6)
    np.testing.assert_allclose(naive, (0.0020, 0.0300, -0.0320), atol=6e-5)
    np.testing.assert_allclose(total, (-0.0513, 0.0026, 0.0487), atol=6e-5)
    assert naive @ total < 0


def test_bradley_terry_truth_needs_no_correction():
    scores = np.array([0.5, -0.7, 0.1, 0.9])
    prefs = 1.0 / (1.0 + np.exp(scores[None, :] - scores[:, None]))
    pi = np.array([0.4, 0.3, 0.2, 0.1])
    reward = fit_reward(prefs, pi, 1e-9)
    np.testing.assert_allclose(reward - reward.mean(), scores - scores.mean(), atol=1e-6)
    assert np.abs(response_term(prefs, pi, reward, 1e-9)).max() < 1e-6


def one_round(name, prefs, ref, log_pi, beta, inner, lr, reward_lr, ridge):
    """The rounds written out, rule by rule, to hold the data-driven ones to."""

    def fit(r, pi):
        return r + reward_lr * difference(lambda x: likelihood(prefs, pi, x, ridge), r)

    def improve(log_pi, r, batch=None, extra=None):
        pi = np.exp(log_pi)
        law = pi if batch is None else batch
        advantage = r - beta * (log_pi - np.log(ref))
        gradient = sum(
            law[y] * advantage[y] * ((np.arange(len(pi)) == y) - pi) for y in range(len(pi))
        )
        return log_normalise(log_pi + lr * (gradient + (0 if extra is None else extra)))

    pi, reward = np.exp(log_pi), np.zeros(len(ref))
    if name == "rlhf":
        return improve(log_pi, fit_reward(prefs, pi, ridge))
    if name in ("reversed", "parl"):
        for _ in range(inner):
            log_pi = improve(log_pi, reward, pi if name == "reversed" else None)
        return log_pi
    if name == "simultaneous":
        return improve(log_pi, reward)
    for _ in range(inner):
        reward = fit(reward, pi)
    extra = response_term(prefs, pi, reward, ridge) if name == "sta-total" else None
    return improve(log_pi, reward, extra=extra)


@pytest.mark.parametrize("name", REWARD_GAME_RULES)
def test_a_round_of_every_rule_by_hand(name):
    game = random_game(5, 4, beta=0.1)
    options = {"learning_rate": 0.7, "reward_learning_rate": 1.5, "inner_steps": 3, "ridge": 0.05}
    run = play(game, name, steps=1, seed=2, **options)
    inner = 1 if name == "simultaneous" else 3
    want = one_round(name, game.prefs, game.ref, run.log_policies[0], 0.1, inner, 0.7, 1.5, 0.05)
    np.testing.assert_allclose(run.final_policy, np.exp(want), atol=1e-9)
    second = play(game, name, steps=2, seed=2, **options)
    assert np.abs(second.final_policy - run.final_policy).max() > 1e-6


def test_the_simultaneous_reward_lags_one_step():
    game = random_game(5, 3, beta=0.1)
    run = play(game, "simultaneous", steps=2, seed=2, ridge=0.1)
    pi = np.exp(run.log_policies[0])
    first = log_normalise(
        run.log_policies[0]
        + 0.5 * policy_gradient(pi, -0.1 * (run.log_policies[0] - np.log(game.ref)))
    )
    reward = reward_gradient(game.prefs, pi, np.zeros(3), 0.1)
    second = log_normalise(
        first + 0.5 * policy_gradient(
            np.exp(first), reward - 0.1 * (first - np.log(game.ref)))
    )  # fmt: skip
    np.testing.assert_allclose(run.final_log_policy, second, atol=1e-12)


def test_rlhf_ends_at_the_regularised_optimum_of_its_reward():
    game = random_game(6, 4, beta=0.5)
    run = play(game, "rlhf", steps=20_000, seed=1, ridge=1e-2)
    want = log_normalise(np.log(game.ref) + run.extra["reward"] / 0.5)
    np.testing.assert_allclose(run.final_policy, np.exp(want), atol=1e-8)


def test_sampled_verdicts_and_bad_options():
    game = random_game(7, 3, beta=0.2)
    exact = play(game, "sta-naive", steps=50)
    noisy = play(game, "sta-naive", steps=50, samples=30)
    assert 1e-6 < np.abs(noisy.final_policy - exact.final_policy).max() < 0.2
    for options, message in (
        ({"ridge": 0.0}, "ridge = 0.0"),
        ({"learning_rate": -1.0}, "learning_rate = -1.0"),
        ({"inner_steps": 0}, "inner_steps = 0"),
        ({"beta": -1.0}, "beta = -1.0"),
        ({"eta": 1.0}, "has no option 'eta'; it has: steps"),
    ):
        with pytest.raises(ConfigError, match=message):
            play(game, "sta-naive", **options)
    with pytest.raises(ConfigError, match="plays one game"):
        play(PreferenceGame(game.prefs[None]), "parl")
    with pytest.raises(ConfigError, match="ridge = 0"):
        fit_reward(game.prefs, np.full(3, 1 / 3), 0.0)
