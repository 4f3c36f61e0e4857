"""DPO, IPO and their kin in tables: closed forms, independent fits, and where they circle."""

import math

import numpy as np
import pytest
from scipy.optimize import brentq, minimize

from equilign.errors import ConfigError
from equilign.games import PreferenceGame, solve
from equilign.games.bradley_terry import bradley_terry_prefs, fit_bradley_terry
from equilign.play import play
from equilign.play.contrastive import law_scores
from equilign.rules.contrastive import (
    DPO,
    IPO,
    ITERATED_DPO,
    ITERATED_IPO,
    ONLINE_DPO,
    ContrastiveRule,
    PairLoss,
    Pairs,
)
from tests.play.games import COMAL, COMAL_NASH, CYCLE59, SIGNS, START, random_game, random_matrix

ALL = (DPO, IPO, ITERATED_DPO, ITERATED_IPO, ONLINE_DPO)
REF = np.array([0.6, 0.3, 0.1])
rules = pytest.mark.parametrize("rule", ALL, ids=lambda rule: rule.name)


def gibbs(ref, payoff):
    weights = ref * np.exp(payoff - payoff.max())
    return weights / weights.sum()


def loss(kind, prefs, law, margins, beta):
    """The population loss, by two plain loops over ordered pairs."""
    total = 0.0
    for i in range(len(law)):
        for j in range(len(law)):
            h = margins[i] - margins[j]
            if kind == PairLoss.DPO:
                own = prefs[i, j] * math.log1p(math.exp(-beta * h))
            else:
                own = prefs[i, j] * (h - 1 / (2 * beta)) ** 2
            total += law[i] * law[j] * own
    return total


# -- one step ---------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", list(PairLoss))
@pytest.mark.parametrize("seed", range(4))
def test_a_round_is_the_minimiser_of_the_loss(kind, seed):
    """No log-ratio does better on the loss, found by a search that knows no closed form."""
    game, rng = random_game(seed, 4), np.random.default_rng(seed)
    law, beta = rng.dirichlet(np.ones(4)), 0.4
    rule = {PairLoss.DPO: DPO, PairLoss.IPO: IPO}[kind]
    policy = play(game, rule, steps=1, start=law, beta=beta).final_policy
    margins = np.log(policy / game.reference)
    best = minimize(lambda h: loss(kind, game.prefs, law, h, beta), np.zeros(4), tol=1e-14)
    assert loss(kind, game.prefs, law, margins, beta) <= best.fun + 1e-12
    np.testing.assert_allclose(margins - margins[0], best.x - best.x[0], atol=2e-4)


def test_dpo_on_bradley_terry_is_the_rlhf_solution():
    """Section 19: scores (1, 0, -1), beta 1/2, uniform reference and pairs."""
    game = PreferenceGame(bradley_terry_prefs(np.array([1.0, 0.0, -1.0])))
    for law in ("uniform", START):
        found = play(game, DPO, steps=3, start=law, beta=0.5).final_policy
        np.testing.assert_allclose(found, (0.8668, 0.1173, 0.0159), atol=5e-5)


def test_two_actions():
    """Section 19: P = .7. IPO's logit is (P - 1/2) / tau whatever drew the pairs."""
    game = PreferenceGame(np.array([[0.5, 0.7], [0.3, 0.5]]))
    for law in (np.array([0.5, 0.5]), np.array([0.9, 0.1])):
        for tau, value in ((1.0, 0.5498), (0.1, 0.8808)):
            found = play(game, IPO, steps=1, start=law, beta=tau).final_policy
            assert found[0] == pytest.approx(value, abs=5e-5)
        assert play(game, DPO, steps=1, start=law, beta=1.0).final_policy[0] == pytest.approx(0.7)


def test_ipo_depends_on_who_drew_the_pairs():
    """Section 19: pairs drawn by (.6, .3, .1), tau = .1; the reference drew them."""
    cases = [
        (CYCLE59, REF, (0.3656, 0.2478, 0.3865), None),
        (COMAL, REF, (0.0487, 0.8855, 0.0658), None),
        (COMAL, None, (0.2302, 0.3213, 0.4484), None),
    ]
    for prefs, law, expected, _ in cases:
        law = np.full(3, 1 / 3) if law is None else law
        found = play(PreferenceGame(prefs), IPO, steps=1, start="uniform", sampler=law, beta=0.1)
        np.testing.assert_allclose(found.final_policy, expected, atol=5e-5)
        np.testing.assert_allclose(found.extra["payoff"], prefs @ law, atol=1e-15)


@pytest.mark.parametrize("seed", range(3))
def test_offline_rules_end_at_the_solution_concepts(seed):
    game = random_game(seed, 5, beta=0.3)
    law = np.random.default_rng(seed).dirichlet(np.ones(5))
    for rule, concept, who in ((DPO, "dpo", "sampler"), (IPO, "ipo", "opponent")):
        run = play(game, rule, steps=4, start=law)
        np.testing.assert_allclose(run.log_policies[1], run.final_log_policy, atol=1e-12)
        expected = solve(game, concept, **{who: law}).policy
        np.testing.assert_allclose(run.final_policy, expected, atol=1e-9)


def test_share_goes_part_of_the_way():
    game = random_game(3, 4)
    whole = play(game, DPO, steps=1, start="uniform").final_log_policy
    part = play(game, DPO, steps=1, start="uniform", share=0.25).final_log_policy
    mixed = 0.25 * whole + 0.75 * np.log(np.full(4, 0.25))
    np.testing.assert_allclose(part, mixed - np.log(np.exp(mixed).sum()), atol=1e-12)


# -- the fit ----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [2, 3, 9, 30])
def test_scores_are_those_of_weighted_comparisons(size):
    prefs = random_matrix(size, size)
    law = np.random.default_rng(size).dirichlet(np.ones(size))
    expected = fit_bradley_terry(prefs * np.outer(law, law)).scores
    np.testing.assert_allclose(law_scores(prefs, law), expected, atol=1e-9)


def test_scores_in_a_corner_are_log_odds_against_it():
    prefs = random_matrix(1, 4)
    law = np.array([1e-200, 1.0, 1e-30, 1e-290])
    found = law_scores(prefs, law)
    odds = np.log(prefs[:, 1] / prefs[1])
    np.testing.assert_allclose(found - found[1], odds, atol=1e-12)


@pytest.mark.parametrize("rare", [1e-2, 1e-9, 1e-40])
def test_certain_verdicts_in_a_cycle_stay_finite(rare):
    """Rock beats scissors for certain; yet with paper about, its score is finite."""
    law = np.array([1.0 - 2 * rare, rare, rare])
    found = law_scores(SIGNS, law)
    # The scores are (0, -x, x); what the loser of the common one loses, it wins from the third.
    top = brentq(
        lambda x: math.log(law[0] / rare) - math.log1p(math.exp(x)) + math.log1p(math.exp(-2 * x)),
        0.0,
        700.0,
    )
    np.testing.assert_allclose(found - found[0], (0.0, -top, top), rtol=1e-9)


def test_an_answer_may_be_rarer_than_another_rare_one():
    """What each wins against the rarer one decides, and must not drown in ties with itself."""
    found = law_scores(SIGNS, np.array([1.0, 1e-30, 1e-100]))
    expected = (0.0, -100 * math.log(10), 30 * math.log(10))
    np.testing.assert_allclose(found - found[0], expected, rtol=1e-12)


def test_where_somebody_never_loses_the_ridge_vanishes():
    prefs = np.array([[0.5, 1.0, 1.0], [0.0, 0.5, 0.7], [0.0, 0.3, 0.5]])
    uniform = np.full(3, 1 / 3)
    expected = fit_bradley_terry(prefs / 9).scores
    np.testing.assert_allclose(law_scores(prefs, uniform), expected, atol=1e-8)
    assert expected[0] - expected[1] > 10


def test_a_bad_start_changes_nothing():
    prefs, law = random_matrix(7, 5), np.random.default_rng(7).dirichlet(np.ones(5))
    far = np.array([40.0, -40.0, 0.0, 300.0, -300.0])
    np.testing.assert_allclose(law_scores(prefs, law, far), law_scores(prefs, law), atol=1e-9)


# -- iterated and online ----------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_iterated_ipo_is_multiplicative_weights(seed):
    """Fresh pairs and a moving reference: a round is a mirror step with ``eta = 1 / tau``."""
    game = random_game(seed, 5)
    run = play(game, ITERATED_IPO, steps=200, start="uniform", beta=2.5)
    mwu = play(game, "mwu", steps=200, start="uniform", eta=0.4)
    np.testing.assert_allclose(run.log_policies, mwu.log_policies, atol=1e-9)
    assert run.options["eta"] == 0.4


def test_iterated_dpo_by_hand():
    """Three rounds: fit under the policy's own pairs, tilt the policy itself."""
    game, policy = PreferenceGame(COMAL, REF), START
    run = play(game, ITERATED_DPO, steps=3, start=START, beta=2.0)
    for recorded in run.log_policies[1:]:
        scores = fit_bradley_terry(COMAL * np.outer(policy, policy)).scores
        policy = gibbs(policy, scores / 2.0)
        np.testing.assert_allclose(np.exp(recorded), policy, atol=1e-9)
    np.testing.assert_allclose(run.extra["payoff"], scores, atol=1e-8)


def test_online_dpo_by_hand():
    """As above, but the tilted policy is the game's reference."""
    game, policy = PreferenceGame(COMAL, REF), START
    run = play(game, ONLINE_DPO, steps=3, start=START, beta=2.0)
    for recorded in run.log_policies[1:]:
        scores = fit_bradley_terry(COMAL * np.outer(policy, policy)).scores
        policy = gibbs(REF, scores / 2.0)
        np.testing.assert_allclose(np.exp(recorded), policy, atol=1e-9)


def test_iterated_methods_run_away_on_a_cycle():
    """From near the equilibrium outwards to the boundary, where mirror descent with optimism
    settles; the average of iterated IPO settles too."""
    game = PreferenceGame(COMAL)
    near = 0.98 * COMAL_NASH + 0.02 * START
    for rule in (ITERATED_DPO, ITERATED_IPO):
        run = play(game, rule, steps=500, start=near, record=1)
        away = run.kl_from_equilibrium()
        assert away[0] < 1e-3
        assert away[-1] > 10
        assert run.duality_gap[-200:].max() > 0.7
        assert run.final_log_policy.min() < -20
    slow = play(game, ITERATED_IPO, steps=2000, beta=4.0)
    assert slow.average_duality_gap[-1] < 0.03 < 0.2 < slow.duality_gap[-1]
    assert play(game, "omwu", steps=3000, start=near).duality_gap[-1] < 1e-9


def test_under_bradley_terry_iterated_rules_find_the_favourite():
    scores = np.array([0.3, 1.0, -0.5, 0.8])
    game = PreferenceGame(bradley_terry_prefs(scores))
    run = play(game, ITERATED_DPO, steps=5, start="uniform", beta=2.0)
    for t, logs in enumerate(run.log_policies):  # the reward's weight grows by one a round
        np.testing.assert_allclose(np.exp(logs), gibbs(np.ones(4), t * scores / 2), atol=1e-9)
    for rule in (ITERATED_DPO, ITERATED_IPO):
        end = play(game, rule, steps=300, start="uniform")
        assert end.final_policy[1] > 1 - 1e-9
        assert end.duality_gap[-1] < 1e-9


def test_under_bradley_terry_online_dpo_is_rlhf_after_one_round():
    scores = np.array([0.3, 1.0, -0.5, 0.8])
    game = PreferenceGame(bradley_terry_prefs(scores), np.array([0.1, 0.2, 0.3, 0.4]))
    run = play(game, ONLINE_DPO, steps=4, beta=0.5)
    for logs in run.log_policies[1:]:
        np.testing.assert_allclose(np.exp(logs), gibbs(game.reference, scores / 0.5), atol=1e-9)
    assert run.duality_gap[-1] > 0.05, "the RLHF solution is no equilibrium of the free game"


def test_online_dpo_has_a_fixed_point_of_its_own():
    """On a cycle a gentle KL weight lets the repeated fit settle: not at an equilibrium."""
    game = PreferenceGame(COMAL, REF)
    run = play(game, ONLINE_DPO, steps=60, beta=1.0, share=0.5)
    end = run.final_policy
    scores = fit_bradley_terry(COMAL * np.outer(end, end)).scores
    np.testing.assert_allclose(end, gibbs(REF, scores), atol=1e-9)
    for tau in (1.0, 0.25):
        regular = solve(PreferenceGame(COMAL, REF, tau), "nash").policy
        assert np.abs(end - regular).sum() > 0.02


def test_online_dpo_may_circle_for_ever():
    """With a small KL weight the fixed point repels the repeated fit."""
    run = play(PreferenceGame(COMAL), ONLINE_DPO, steps=200, beta=0.1, start=START, record=1)
    tail = run.duality_gap[-100:]
    assert tail.min() > 0.1
    assert np.abs(np.diff(np.exp(run.log_policies[-20:]), axis=0)).max() > 0.5


# -- options ----------------------------------------------------------------------------------


@rules
@pytest.mark.parametrize("beta", [None, 0.3])
def test_relabelling_the_answers_relabels_the_policy(rule, beta):
    game, order = random_game(5, 4), np.array([2, 0, 3, 1])
    moved = PreferenceGame(game.prefs[np.ix_(order, order)], game.reference[order])
    start = np.array([0.1, 0.2, 0.3, 0.4])
    one = play(game, rule, steps=5, start=start, beta=beta)
    other = play(moved, rule, steps=5, start=start[order], beta=beta)
    np.testing.assert_allclose(one.final_policy[order], other.final_policy, atol=1e-10)
    assert one.options["eta"] == 1 / one.options["beta"]


def test_default_weights():
    game = PreferenceGame(COMAL)
    assert play(game, DPO, steps=1).options["beta"] == 1.0
    assert play(game, IPO, steps=1).options["beta"] == 0.25
    assert play(PreferenceGame(COMAL, beta=0.7), IPO, steps=1).options["beta"] == 0.7


@rules
def test_samples_are_seeded_and_right_on_average(rule):
    game = random_game(2, 3)
    few = [play(game, rule, steps=2, samples=5, seed=s, start=START) for s in (1, 1, 2)]
    np.testing.assert_array_equal(few[0].final_log_policy, few[1].final_log_policy)
    assert np.abs(few[0].final_policy - few[2].final_policy).max() > 1e-3
    many = play(game, rule, steps=2, samples=10**8, start=START).final_policy
    np.testing.assert_allclose(many, play(game, rule, steps=2, start=START).final_policy, atol=2e-3)


def test_given_pairs_are_judged_once_and_fresh_ones_every_round():
    game = random_game(2, 3)
    offline = play(game, IPO, steps=5, samples=3, start=START).log_policies
    np.testing.assert_array_equal(offline[1], offline[5])
    online = play(game, ONLINE_DPO, steps=5, samples=3, start=START, beta=50.0).log_policies
    assert np.abs(np.diff(online[1:], axis=0)).max(axis=1).min() > 1e-6


@rules
def test_answers_that_are_never_given_do_no_harm(rule):
    game = PreferenceGame(COMAL, np.array([0.5, 0.5, 0.0]))
    run = play(game, rule, steps=50, start=np.array([0.7, 0.3, 0.0]), record=1)
    assert run.status == "done"
    assert np.isfinite(run.final_log_policy).all()
    assert run.final_policy.sum() == pytest.approx(1.0)


def test_a_batch_is_refused():
    batch = PreferenceGame(np.stack([COMAL, CYCLE59]))
    with pytest.raises(ConfigError, match=r"DPO plays one game; take game\[x\]"):
        play(batch, DPO)


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("beta", 0.0, r"beta = 0.0; it must be finite and > 0"),
        ("beta", -1.0, r"beta = -1.0"),
        ("share", 1.5, r"share = 1.5; at most 1"),
        ("share", 0.0, r"share = 0.0; it must be finite and > 0"),
        ("sampler", "best", r"sampler = 'best'; random, uniform, reference, or a policy"),
    ],
)
def test_bad_options(option, value, words):
    with pytest.raises(ConfigError, match=words):
        play(PreferenceGame(COMAL), DPO, **{option: value})


def test_a_rule_of_ones_own():
    """IPO with pairs from the policy and a fixed reference: its fixed point is the equilibrium
    of the regularised game."""
    rule = ContrastiveRule("mine", "Online IPO", "none", "", PairLoss.IPO, Pairs.ONLINE)
    game = PreferenceGame(COMAL, REF, 0.5)
    run = play(game, rule, steps=200, share=0.5)
    assert run.rule == "mine"
    assert run.duality_gap[-1] < 1e-12
    np.testing.assert_allclose(run.final_policy, solve(game, "nash").policy, atol=1e-8)
