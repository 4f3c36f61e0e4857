"""Limits of best response, offline IPO, DPO and RLHF against printed values and brute force."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.optimize import minimize
from scipy.special import expit, log_expit, logit, softmax

from equilign.errors import ConfigError, PolicyError
from equilign.games import PreferenceGame, duality_gap
from equilign.games.limits import best_response, bradley_terry, dpo, ipo
from tests.games.test_bradley_terry import EXPECTED, real_wins

SEEDED = settings(derandomize=True, deadline=None, max_examples=40)
COMAL = np.array([[0.5, 0.1, 0.8], [0.9, 0.5, 0.1], [0.2, 0.9, 0.5]])
MU = np.array([0.6, 0.3, 0.1])
# P(a > b) = P(b > c) = P(c > a) = 5/9.
NINTHS = np.array([[4.5, 5, 4], [4, 4.5, 5], [5, 4, 4.5]]) / 9


def random_game(seed, size, beta=0.0):
    rng = np.random.default_rng(seed)
    lower = np.tril(rng.random((size, size)) - 0.5, -1)
    return PreferenceGame(0.5 + lower - lower.T, rng.dirichlet(np.ones(size)), beta)


def kl(p, q):
    return float((p * np.log(p / q)).sum())


# -- best response and IPO ----------------------------------------------------------------


@SEEDED
@given(seed=st.integers(0, 10_000), size=st.integers(1, 6), beta=st.floats(0.05, 5.0))
def test_the_best_response_is_the_best_of_many(seed, size, beta):
    game = random_game(seed, size, beta)
    rng = np.random.default_rng(seed + 1)
    opponent = rng.dirichlet(np.ones(size))
    found = best_response(game, opponent=opponent).policy

    def payoff(policy):
        return policy @ game.prefs @ opponent - beta * kl(policy, game.ref)

    assert found.sum() == pytest.approx(1.0)
    for other in rng.dirichlet(np.ones(size), 50):
        assert payoff(other) <= payoff(found) + 1e-12
        assert payoff(0.99 * found + 0.01 * other) <= payoff(found) + 1e-12
    pure = best_response(game, opponent=opponent, beta=0.0)
    assert (pure.policy @ game.prefs @ opponent) == pytest.approx((game.prefs @ opponent).max())
    assert pure.gap == pytest.approx(duality_gap(game, pure.policy), abs=1e-12)
    assert pure.value == pytest.approx((pure.policy @ game.prefs).min())


def test_the_opponent_is_the_reference_unless_given():
    game = PreferenceGame(COMAL, MU)
    assert best_response(game).support() == {"1": 1.0}  # .9 * .6 + .5 * .3 + .1 * .1 = .7
    assert best_response(game, opponent=np.array([0.0, 1.0, 0.0])).support() == {"2": 1.0}
    np.testing.assert_array_equal(ipo(game, tau=0.1).policy, ipo(game, tau=0.1, opponent=MU).policy)


def test_tied_best_responses_are_played_equally_often():
    game = PreferenceGame(NINTHS)
    solution = best_response(game)
    np.testing.assert_allclose(solution.policy, 1 / 3)
    assert solution.unique is False
    assert solution.status == "not unique"
    assert "best win rate" in solution.notes[0]


@pytest.mark.parametrize("beta", [1e-300, 1e-8, 1e-3])
def test_a_tiny_weight_neither_overflows_nor_differs_from_none(beta):
    game = PreferenceGame(COMAL, np.array([1e-200, 0.5, 0.5]) / (1 + 1e-200), beta)
    solution = best_response(game, opponent=np.array([0.0, 0.0, 1.0]))
    if beta < 1e-3:
        np.testing.assert_allclose(solution.policy, [1.0, 0.0, 0.0], atol=1e-100)
    else:  # 0.3 / 1e-3 nats are less than log 1e200
        np.testing.assert_allclose(solution.policy, [0.0, 0.0, 1.0], atol=1e-50)
    assert np.isfinite(solution.gap)


@pytest.mark.parametrize(
    ("prefs", "mu", "tau", "policy"),
    [
        (NINTHS, MU, 0.1, (0.3656, 0.2478, 0.3865)),
        (COMAL, MU, 0.1, (0.0487, 0.8855, 0.0658)),
        (COMAL, np.ones(3) / 3, 0.1, (0.2302, 0.3213, 0.4484)),
        (np.array([[0.5, 0.7], [0.3, 0.5]]), np.array([0.9, 0.1]), 1.0, (0.5498, 0.4502)),
        (np.array([[0.5, 0.7], [0.3, 0.5]]), np.array([0.2, 0.8]), 0.1, (0.8808, 0.1192)),
    ],
)
def test_offline_ipo_has_the_printed_values(prefs, mu, tau, policy):
    uniform = np.full(len(prefs), 1.0 / len(prefs))
    solution = ipo(PreferenceGame(prefs, uniform), tau=tau, opponent=mu)
    np.testing.assert_allclose(solution.policy, policy, atol=6e-5)
    assert solution.concept == "ipo"


def test_ipo_minimises_the_offline_loss():
    """The loss over all pairs drawn from mu: (h - 1 / (2 tau))^2 with soft labels.

    Its minimiser has log-ratios that fit ``(P - 1/2) / tau`` by least squares; the additive part
    is the win rate against mu.
    """
    game, tau = random_game(3, 4), 0.4
    mu = np.random.default_rng(4).dirichlet(np.ones(4))

    def loss(log_ratio):
        h = log_ratio[:, None] - log_ratio[None, :]
        won, lost = (h - 0.5 / tau) ** 2, (h + 0.5 / tau) ** 2
        return (np.outer(mu, mu) * (game.prefs * won + (1 - game.prefs) * lost)).sum()

    found = minimize(loss, np.zeros(4), method="BFGS", tol=1e-12).x
    want = game.ref * np.exp(found) / (game.ref * np.exp(found)).sum()
    np.testing.assert_allclose(ipo(game, tau=tau, opponent=mu).policy, want, atol=1e-6)


# -- Bradley-Terry, RLHF, DPO -------------------------------------------------------------


def test_dpo_has_the_printed_values():
    game = PreferenceGame.from_scores(np.array([1.0, 0.0, -1.0]))
    np.testing.assert_allclose(dpo(game, beta=0.5).policy, (0.8668, 0.1173, 0.0159), atol=6e-5)
    two = PreferenceGame(np.array([[0.5, 0.7], [0.3, 0.5]]), beta=1.0)
    np.testing.assert_allclose(dpo(two).policy, (0.7, 0.3), atol=1e-12)
    for beta in (0.1, 3.0):
        policy = bradley_terry(two, beta=beta).policy
        assert logit(policy[0]) == pytest.approx(logit(0.7) / beta, rel=1e-9)


@pytest.mark.parametrize("seed", range(4))
def test_dpo_minimises_its_loss(seed):
    """Expected DPO loss over pairs from the sampler, minimised in the policy's logits."""
    game, beta = random_game(seed, 4), 0.7
    drawn = np.random.default_rng(seed + 9).dirichlet(np.full(4, 3.0))

    def loss(logits):
        log_ratio = np.log(softmax(logits)) - np.log(game.ref)
        h = beta * (log_ratio[:, None] - log_ratio[None, :])
        return -(np.outer(drawn, drawn) * game.prefs * log_expit(h)).sum()

    found = softmax(minimize(loss, np.log(game.ref), method="BFGS", tol=1e-12).x)
    solution = dpo(game, beta=beta, sampler=drawn)
    np.testing.assert_allclose(solution.policy, found, atol=2e-5)
    np.testing.assert_array_equal(
        bradley_terry(game, beta=beta, sampler=drawn).policy, solution.policy
    )


def test_the_answer_depends_on_who_drew_the_pairs():
    game = PreferenceGame(COMAL)
    uniform = bradley_terry(game)
    assert uniform.support() == {"2": 1.0}
    skewed = bradley_terry(game, sampler=np.array([0.9, 0.05, 0.05]))
    assert skewed.support() == {"1": 1.0}


@pytest.mark.parametrize("name", [n for n in EXPECTED if n.startswith("epl") or n == "rrps43"])
def test_favourites_of_real_games_in_which_all_pairs_met_equally_often(name):
    names, wins = real_wins(name)
    solution = bradley_terry(PreferenceGame.from_counts(wins, labels=names))
    support = solution.support()
    assert EXPECTED[name]["bt_argmax"] in support
    assert solution.unique == (len(support) == 1)
    if solution.unique:
        loss = 2.0 * (0.5 - solution.value)
        assert loss == pytest.approx(EXPECTED[name]["bt_argmax_exploit"], abs=1e-6)


def test_scores_without_a_finite_maximum_are_said_to_be_so():
    game = PreferenceGame(np.array([[0.5, 1.0, 1.0], [0.0, 0.5, 0.6], [0.0, 0.4, 0.5]]), beta=1.0)
    solution = dpo(game)
    assert "no finite maximum" in solution.notes[0]
    assert solution.policy[0] > 0.999
    assert solution.policy[1] / solution.policy[2] == pytest.approx(1.5, abs=1e-3)
    assert not dpo(PreferenceGame(COMAL, beta=1.0)).notes
    batch = PreferenceGame(np.stack([game.prefs, COMAL]), beta=1.0)
    assert "In 1 of 2 games" in dpo(batch).notes[0]


# -- batches, masks, bad input ------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize(
    ("concept", "options"),
    [
        (best_response, {}),
        (best_response, {"beta": 0.3}),
        (ipo, {"tau": 0.2}),
        (bradley_terry, {}),
        (bradley_terry, {"beta": 0.5}),
        (dpo, {"beta": 2.0}),
    ],
)
def test_a_masked_batch_is_a_loop_over_its_games(concept, options, dtype):
    rng = np.random.default_rng(0)
    prefs = np.stack([random_game(seed, 5).prefs for seed in range(30)]).astype(dtype)
    mask = rng.random((30, 5)) < 0.7
    mask[:, 1] = True
    ref = rng.dirichlet(np.ones(5), 30)
    hidden = prefs.copy()
    hidden[~(mask[:, :, None] & mask[:, None, :])] = np.nan
    masked_ref = np.where(mask, ref, 0.0) / np.where(mask, ref, 0.0).sum(axis=1, keepdims=True)
    for batch in (
        PreferenceGame(prefs, ref, 0.1),
        PreferenceGame(prefs, ref[0]),
        PreferenceGame(hidden, masked_ref, 0.1, mask),
        PreferenceGame(hidden, None, 0.0, mask),
    ):
        together = concept(batch, **options)
        for x in range(30):
            keep = np.arange(5) if batch.mask is None else np.flatnonzero(mask[x])
            one = concept(batch[x], **options)
            np.testing.assert_allclose(together.policy[x, keep], one.policy, atol=1e-9)
            assert together.policy[x].sum() == pytest.approx(1.0)
            assert together.value[x] == pytest.approx(one.value, abs=1e-9)
            assert together.gap[x] == pytest.approx(one.gap, abs=1e-8)
            assert together.unique[x] == one.unique


@pytest.mark.parametrize(
    ("concept", "options", "error", "message"),
    [
        (best_response, {"opponent": np.array([0.5, 0.2, 0.2])}, PolicyError, "sums to 0.9"),
        (best_response, {"opponent": np.array([0.5, 0.5])}, PolicyError, r"shape \(2,\)"),
        (best_response, {"beta": -1.0}, ConfigError, "beta = -1.0"),
        (ipo, {}, ConfigError, "needs tau > 0 .* best-response"),
        (ipo, {"tau": np.inf}, ConfigError, "tau = inf"),
        (dpo, {}, ConfigError, "needs beta > 0 .* bradley-terry"),
        (
            bradley_terry,
            {"sampler": np.array([1.0, 0.0, 0.0])},
            PolicyError,
            r"sampler\[1\] = 0; .* never drawn .* leave it out",
        ),
    ],
)
def test_bad_options_are_named(concept, options, error, message):
    with pytest.raises(error, match=message):
        concept(PreferenceGame(COMAL), **options)


def test_expit_of_fitted_scores_is_what_a_sampler_that_sees_all_pairs_gives():
    """Where Bradley-Terry holds, the sampler does not matter."""
    scores = np.array([0.3, -1.0, 0.9, 0.0])
    game = PreferenceGame(expit(scores[:, None] - scores[None, :]), beta=1.0)
    for seed in range(3):
        drawn = np.random.default_rng(seed).dirichlet(np.full(4, 2.0))
        np.testing.assert_allclose(dpo(game, sampler=drawn).policy, softmax(scores), atol=1e-9)
