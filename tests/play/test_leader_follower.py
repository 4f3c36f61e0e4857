"""StackelbergGDA on matrices against closed forms worked out here."""

import numpy as np
import pytest
from scipy.optimize import minimize

from equilign.errors import ConfigError
from equilign.games import PreferenceGame, solve
from equilign.play import play
from equilign.play.leader_follower import sequential_gap
from tests.play.games import COMAL, random_game

CYCLE9 = np.array([[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]])


def closed_form(game, beta, beta_follower):
    """Follower rows, Leader and its values, by plain loops over answers."""
    n, ref = game.size, game.ref
    rows = np.array(
        [[ref[z] * np.exp(-game.prefs[y, z] / beta_follower) for z in range(n)] for y in range(n)]
    )
    values = -beta_follower * np.log(rows.sum(axis=1))
    leader = ref * np.exp(values / beta)
    return rows / rows.sum(axis=1, keepdims=True), leader / leader.sum(), values


@pytest.mark.parametrize("rule", ["stackelberg-mirror", "stackelberg-gda"])
@pytest.mark.parametrize("beta", [0.3, 1.0])
def test_steps_reach_the_closed_form(rule, beta):
    game = PreferenceGame(COMAL, np.array([0.5, 0.2, 0.3]), beta)
    rows, leader, _ = closed_form(game, beta, beta)
    run = play(game, rule, steps=30_000, kappa=2.0, eta=0.05)
    np.testing.assert_allclose(run.final_policy, leader, atol=1e-9)
    np.testing.assert_allclose(run.extra["follower"], rows, atol=1e-9)
    assert run.duality_gap[-1] < 1e-12
    assert run.duality_gap[0] > 1e-2


def test_published_values_and_the_solver():
    game = PreferenceGame(COMAL, beta=0.1)
    run = play(game, "stackelberg-mirror", steps=5000, eta=0.1)
    np.testing.assert_allclose(run.final_policy, (0.216, 0.216, 0.569), atol=6e-4)
    exact = solve(game, "stackelberg")
    np.testing.assert_allclose(run.final_policy, exact.policy, atol=1e-10)
    np.testing.assert_allclose(run.extra["follower"], exact.follower, atol=1e-10)
    cycle = play(PreferenceGame(CYCLE9, beta=0.1), "stackelberg-mirror", steps=5000)
    np.testing.assert_allclose(cycle.final_policy, 1 / 3, atol=1e-9)
    np.testing.assert_allclose(cycle.extra["follower"][0], (0.018, 0.0003, 0.982), atol=6e-4)


def test_two_kl_weights():
    game = random_game(2, 5)
    rows, leader, _ = closed_form(game, 0.4, 0.15)
    run = play(game, "stackelberg-mirror", beta=0.4, beta_follower=0.15, steps=8000, kappa=3.0)
    np.testing.assert_allclose(run.final_policy, leader, atol=1e-9)
    np.testing.assert_allclose(run.extra["follower"], rows, atol=1e-9)
    assert run.options["beta_follower"] == 0.15


def test_one_mirror_step_by_plain_arithmetic():
    game = random_game(3, 4, beta=0.2)
    run = play(game, "stackelberg-mirror", steps=1, eta=0.3, kappa=2.0, beta_follower=0.5, seed=4)
    pi = np.exp(run.log_policies[0])
    omega = np.tile(pi, (4, 1))
    leader, rows = np.empty(4), np.empty((4, 4))
    for y in range(4):
        gain = sum(
            omega[y, z] * (game.prefs[y, z] + 0.5 * np.log(omega[y, z] / game.ref[z]))
            for z in range(4)
        )
        leader[y] = pi[y] * np.exp(0.3 * (gain - 0.2 * np.log(pi[y] / game.ref[y])))
        for z in range(4):
            slope = -game.prefs[y, z] - 0.5 * np.log(omega[y, z] / game.ref[z])
            rows[y, z] = omega[y, z] * np.exp(0.3 * 2.0 * slope)
    np.testing.assert_allclose(run.final_policy, leader / leader.sum(), atol=1e-12)
    np.testing.assert_allclose(
        run.extra["follower"], rows / rows.sum(axis=1, keepdims=True), atol=1e-12
    )


@pytest.mark.parametrize(
    ("beta", "beta_follower"), [(0.3, 0.2), (0.0, 0.2), (0.3, 0.0), (0.0, 0.0)]
)
def test_the_gap_is_what_both_players_can_gain(beta, beta_follower):
    game = random_game(4, 3)
    rng = np.random.default_rng(0)
    pi, omega = rng.dirichlet(np.ones(3)), rng.dirichlet(np.ones(3), size=3)

    def payoff(leader, follower):
        spread = (follower * np.log(follower / game.ref)).sum(axis=1)
        return (
            leader @ ((follower * game.prefs).sum(axis=1) + beta_follower * spread)
            - beta * (leader * np.log(leader / game.ref)).sum()
        )

    def softmax(x):
        x = np.exp(x - x.max(axis=-1, keepdims=True))
        return np.maximum(x / x.sum(axis=-1, keepdims=True), 1e-300)

    best = -minimize(lambda x: -payoff(softmax(x), omega), np.zeros(3)).fun
    worst = min(
        minimize(lambda x: payoff(pi, softmax(x.reshape(3, 3))), s).fun
        for s in (np.zeros(9), rng.normal(size=9))
    )
    got = sequential_gap(game, np.log(pi), np.log(omega), beta, beta_follower)
    assert got == pytest.approx(best - worst, abs=2e-3 if 0.0 in (beta, beta_follower) else 1e-6)
    assert got > 0.01


def test_the_gap_vanishes_only_at_the_equilibrium():
    game = random_game(5, 4)
    rows, leader, _ = closed_form(game, 0.3, 0.2)
    assert sequential_gap(game, np.log(leader), np.log(rows), 0.3, 0.2) < 1e-14
    other = np.log(np.roll(leader, 1))
    assert sequential_gap(game, other, np.log(rows), 0.3, 0.2) > 1e-4


def test_sampled_verdicts_stay_near_the_exact_run():
    game = random_game(6, 4, beta=0.3)
    exact = play(game, "stackelberg-mirror", steps=400, eta=0.05)
    noisy = play(game, "stackelberg-mirror", steps=400, eta=0.05, samples=20)
    assert 1e-6 < np.abs(noisy.final_policy - exact.final_policy).max() < 0.1


def test_options_are_checked():
    game = random_game(0, 3)
    for options, message in (
        ({"eta": 0.0}, "eta = 0.0"),
        ({"kappa": -1.0}, "kappa = -1.0"),
        ({"beta": -0.1}, "beta = -0.1"),
        ({"beta_follower": float("nan")}, "beta_follower = nan"),
    ):
        with pytest.raises(ConfigError, match=message):
            play(game, "stackelberg-gda", **options)
    with pytest.raises(ConfigError, match=r"plays one game; take game\[x\]"):
        play(PreferenceGame(game.prefs[None]), "stackelberg-gda")
