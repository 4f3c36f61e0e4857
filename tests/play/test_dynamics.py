"""Theorems, rates and published values of the dynamics, on `play` itself."""

import numpy as np
import pytest
from scipy.optimize import minimize

from equilign.games import PreferenceGame, duality_gap
from equilign.play import decreasing, log_normalise, play
from equilign.play.exact import project_to_simplex, regress_to_simplex
from equilign.rules import EGPO, OMD, ONPO, MirrorStage, Slot, Step
from tests.play.games import (
    COMAL,
    COMAL_NASH,
    CYCLE59,
    SIGNS,
    START,
    fixed_point,
    interior_game,
    random_game,
    random_matrix,
)

COMAL_GAME, SIGNS_GAME = PreferenceGame(COMAL), PreferenceGame(SIGNS)
REF = np.array([0.6, 0.3, 0.1])


def gaps(game, rule, at, **options):
    run = play(game, rule, steps=max(at), record=list(at), start=START, **options)
    assert list(run.steps) == list(at)
    return run


def kl(p, log_q):
    return float(p @ (np.log(p) - log_q))


# -- unregularised ------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("eta", "last", "average"),
    [
        (0.1, (0.271, 0.252, 0.323, 0.465), 0.0039),
        (1.0, (0.288, 0.255, 0.730, 0.799), 0.0042),
    ],
)
def test_mwu_last_iterate_fails_and_average_converges(eta, last, average):
    run = gaps(COMAL_GAME, "mwu", (10, 100, 1000, 10_000), eta=eta)
    np.testing.assert_allclose(run.duality_gap, last, atol=6e-4)
    assert run.average_duality_gap[-1] == pytest.approx(average, abs=6e-5)


def test_mwu_divergence_from_the_equilibrium_grows_at_every_step():
    run = gaps(SIGNS_GAME, "mwu", range(201), eta=0.3)
    assert (np.diff([kl(np.full(3, 1 / 3), q) for q in run.log_policies]) > 0).all()
    run = gaps(SIGNS_GAME, "mwu", (10, 100, 1000, 10_000), eta=0.3)
    np.testing.assert_allclose(run.average_duality_gap, (0.268, 0.067, 0.018, 0.006), atol=5e-4)


@pytest.mark.parametrize(
    ("game", "eta", "at", "expected"),
    [
        (COMAL_GAME, 0.1, (1000, 10_000), (0.178, 0.031)),
        (COMAL_GAME, 0.3, (1000, 10_000), (0.047, 9e-10)),
        (COMAL_GAME, 1.0, (100, 1000), (0.031, 1e-11)),
        (SIGNS_GAME, 0.3, (100, 1000, 10_000), (0.145, 0.007, 0.0)),
    ],
)
def test_omwu_published_gaps(game, eta, at, expected):
    run = gaps(game, "omwu", at, eta=eta)
    for got, want in zip(run.duality_gap, expected, strict=True):
        # Published to two or three digits; the smallest ones to their order of magnitude.
        assert got == pytest.approx(
            want, rel=0.02 if want > 1e-6 else 0.5, abs=5e-4 if want > 1e-6 else 1e-14
        )
    assert (np.diff(run.duality_gap) < 0).all()
    if expected[-1] < 1e-8:
        assert run.duality_gap[-1] < 2e-9


@pytest.mark.parametrize("rule", ["omwu", "omwu-extragradient", "omwu-two-sequence", "onpo"])
def test_optimism_reaches_the_equilibrium_in_the_last_iterate(rule):
    run = gaps(SIGNS_GAME, rule, (0, 10_000), eta=0.3)
    assert run.duality_gap[0] > 0.1
    assert run.duality_gap[1] < 1e-9


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("rule", ["omwu", "ogda"])
def test_last_iterate_converges_linearly(rule, seed):
    """A straight line on the logarithmic scale, at interior equilibria."""
    game, nash = interior_game(seed)
    run = play(game, rule, steps=60_000, eta=1.0 if rule == "omwu" else None, record=1, seed=seed)
    logs = np.log10(np.maximum(run.duality_gap, 1e-300))
    begin, end = (int(np.flatnonzero(logs < level)[0]) for level in (-3.0, -11.0))
    # Windows of a full rotation smooth the ripple; each half of the fall takes as long.
    middle = int(np.flatnonzero(logs < -7.0)[0])
    assert (middle - begin) == pytest.approx(end - middle, rel=0.2)
    np.testing.assert_allclose(run.final_policy, nash, atol=1e-9)
    assert np.argmax(logs < -11.0) < logs.size


def test_single_call_equals_two_sequences_with_the_right_start():
    """hat_0 proportional to pi_0 exp(-eta p_0) makes ONPO's second sequence OMWU's."""
    from equilign.play import exact_feedback, mirror_step, start_slots

    game, eta = random_game(5, 6), 0.7
    pi = log_normalise(np.random.default_rng(0).normal(size=6))
    feedback = exact_feedback(game)
    slots = start_slots(pi, np.log(game.reference))
    slots[Slot.BASE] = log_normalise(pi - eta * feedback(pi))
    run = play(game, "omwu", steps=200, eta=eta, start=np.exp(pi), record=1)
    doubled = play(game, ONPO, steps=1, eta=eta, start=np.exp(pi))
    for t in range(200):
        slots = mirror_step(ONPO, slots, feedback, Step(eta))
        np.testing.assert_allclose(slots[Slot.CURRENT], run.log_policies[t + 1], atol=1e-11)
    np.testing.assert_allclose(
        doubled.final_log_policy, log_normalise(pi + 2 * eta * feedback(pi)), atol=1e-12
    )


def test_ogda_by_plain_arithmetic():
    game = random_game(6, 4)
    run = play(game, "ogda", steps=60, eta=0.9, record=1, seed=3)
    x = old = np.exp(run.log_policies[0])
    touched = False
    for t in range(60):
        point = x + 0.9 * (2 * game.prefs @ x - game.prefs @ old)
        best = minimize(
            lambda q, point=point: ((q - point) ** 2).sum(),
            x,
            jac=lambda q, point=point: 2 * (q - point),
            bounds=[(0, 1)] * 4,
            constraints={"type": "eq", "fun": lambda q: q.sum() - 1},
            options={"ftol": 1e-15},
        ).x
        touched |= best.min() < 1e-9
        old, x = x, np.exp(run.log_policies[t + 1])
        np.testing.assert_allclose(x, best, atol=1e-6)
    assert touched, "the projection never reached a face; the test is weak"


@pytest.mark.parametrize("seed", range(30))
def test_projection_satisfies_its_optimality_conditions(seed):
    point = np.random.default_rng(seed).normal(size=7) * 10 ** (seed % 5 - 2)
    x = project_to_simplex(point)
    assert x.min() >= 0.0
    assert x.sum() == pytest.approx(1.0, abs=1e-12)
    slack = point - x
    level = slack[x > 0].mean()
    np.testing.assert_allclose(slack[x > 0], level, atol=1e-10 * (1 + abs(level)))
    assert (slack[x == 0] <= level + 1e-12).all()


@pytest.mark.parametrize(("rule", "factor"), [("mpo", 12), ("comal", 12)])
def test_a_moving_reference_removes_the_bias(rule, factor):
    still = play(COMAL_GAME, "omd", beta=0.1, eta=1.0, steps=2000, start=START)
    moving = play(COMAL_GAME, rule, beta=0.1, eta=1.0, inner_steps=100, steps=2000, start=START)
    assert still.duality_gap[-1] > 1e-3, "the regularised game has another equilibrium"
    assert moving.duality_gap[-1] < still.duality_gap[-1] / factor


def test_comal_divergences_with_solved_inner_games():
    run = play(
        COMAL_GAME, "comal", beta=0.1, eta=1.0, inner_steps=400, steps=2000, start=START,
        record=400,
    )  # fmt: skip
    divergence = [kl(COMAL_NASH, q) for q in run.log_policies]
    np.testing.assert_allclose(
        divergence, (0.122, 0.0211, 0.00417, 7.8e-4, 1.5e-4, 2.7e-5), rtol=0.03
    )
    assert run.duality_gap[-1] < 5e-3
    np.testing.assert_allclose(run.kl_from_equilibrium(), divergence, rtol=1e-6)


# -- regularised --------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["omd", "inpo", "mmd", "egpo", "omwu"])
@pytest.mark.parametrize("seed", range(3))
def test_regularised_rules_reach_the_fixed_point(rule, seed):
    game = random_game(seed, 5, beta=0.2)
    run = play(game, rule, steps=4000)
    want = fixed_point(game.prefs, game.ref, 0.2)
    np.testing.assert_allclose(run.final_policy, want, atol=1e-9)
    assert run.duality_gap[-1] < 1e-14
    np.testing.assert_allclose(run.equilibrium.policy, want, atol=1e-9)
    assert run.distance_to_equilibrium()[-1] < 1e-9


@pytest.mark.parametrize("alpha", [0.1, 1.0])
def test_mmd_contracts_by_the_factor_of_its_theorem(alpha):
    eta = {1.0: 0.1, 0.1: 1.0}[alpha]
    game = PreferenceGame(COMAL, REF, alpha)
    run = play(game, "mmd", eta=eta, steps=60, record=1, start=START)
    target = play(game, "mmd", eta=eta, steps=20_000).final_log_policy
    divergence = np.array([kl(np.exp(target), q) for q in run.log_policies])
    ratio = divergence[1:] / divergence[:-1]
    usable = divergence[1:] > 1e-12
    geometric = np.exp(np.log(ratio[usable]).mean())
    assert geometric <= 1.0 / (1.0 + eta * alpha)
    assert geometric == pytest.approx({1.0: 0.8266, 0.1: 0.861}[alpha], abs=0.012)


@pytest.mark.parametrize("seed", range(5))
def test_nash_md_obeys_the_bound_of_its_theorem(seed):
    """KL(pi*, pi_{t+1}) <= (1 - eta beta) KL(pi*, pi_t) + 2 eta^2."""
    beta, eta = 0.3, 0.2
    game = random_game(seed, 4, beta)
    nash = fixed_point(game.prefs, game.ref, beta)
    run = play(game, "nash-md", eta=eta, steps=200, record=1, seed=seed)
    divergence = np.array([kl(nash, q) for q in run.log_policies])
    assert (divergence[1:] <= (1 - eta * beta) * divergence[:-1] + 2 * eta**2 + 1e-12).all()


def test_nash_md_one_step():
    game = PreferenceGame(CYCLE59, beta=0.1)
    run = play(game, "nash-md", eta=5.0, steps=1, start=np.array([0.6, 0.3, 0.1]))
    np.testing.assert_allclose(run.final_policy, (0.4909, 0.3088, 0.2003), atol=6e-5)


@pytest.mark.parametrize(
    ("eta", "expected"),
    [(0.1, (0.3021, 0.4265, 0.2714)), (1.0, (0.2769, 0.4438, 0.2793))],
)
def test_nash_md_at_a_constant_step_is_biased(eta, expected):
    game = PreferenceGame(COMAL, REF, 0.1)
    run = play(game, "nash-md", eta=eta, steps=20_000, start=START)
    np.testing.assert_allclose(run.final_policy, expected, atol=6e-5)
    assert run.duality_gap[-1] > 1e-6
    np.testing.assert_allclose(fixed_point(COMAL, REF, 0.1), (0.3048, 0.4248, 0.2705), atol=6e-5)


def test_nash_md_bias_falls_with_the_square_of_the_step():
    game = PreferenceGame(COMAL, REF, 0.1)
    floors = [
        play(game, "nash-md", eta=eta, steps=100_000, start=START).duality_gap[-1]
        for eta in (0.01, 0.1)
    ]
    assert floors[1] / floors[0] == pytest.approx(100.0, rel=0.1)


def test_nash_md_with_its_decreasing_step_is_not_biased():
    game = PreferenceGame(COMAL, REF, 0.1)
    run = play(game, "nash-md", eta=decreasing(0.1), steps=20_000, start=START)
    nash = fixed_point(COMAL, REF, 0.1)
    assert np.abs(run.final_policy - nash).max() < 6e-5
    assert kl(nash, run.final_log_policy) < 1e-8


def test_egpo_without_extrapolation_is_mirror_descent():
    stopped = MirrorStage(
        lambda s: {Slot.CURRENT: 1.0}, lambda s: {Slot.CURRENT: 0.0}, writes=Slot.HALF
    )
    rule = EGPO.__class__("still", "", "", "", (stopped, EGPO.stages[1]))
    game = random_game(8, 6, beta=0.1)
    a, b = (play(game, r, steps=100, eta=0.8) for r in (rule, OMD))
    np.testing.assert_allclose(a.final_policy, b.final_policy, atol=1e-12)
    assert np.abs(play(game, EGPO, steps=3, eta=0.8).final_policy
                  - play(game, OMD, steps=3, eta=0.8).final_policy).max() > 1e-4  # fmt: skip


def test_inpo_limits():
    game = random_game(9, 5, beta=0.25)
    free, mwu = (play(game, r, beta=0.0, eta=0.7, steps=40) for r in ("inpo", "mwu"))
    np.testing.assert_array_equal(free.final_log_policy, mwu.final_log_policy)
    # eta beta = 1: the current policy drops out of the anchor.
    run = play(game, "inpo", eta=4.0, steps=1, seed=4)
    want = log_normalise(np.log(game.ref) + 4.0 * game.prefs @ np.exp(run.log_policies[0]))
    np.testing.assert_allclose(run.final_log_policy, want, atol=1e-12)


def egpo_batch(beta):
    """Ten games of ten actions as in EGPO's simulations, starting at the reference."""
    rng = np.random.default_rng(2018011309)
    lower = np.tril(rng.random((10, 10, 10)), -1)
    prefs = lower + np.triu(1.0 - lower.swapaxes(1, 2), 1) + 0.5 * np.eye(10)
    start = np.exp([log_normalise(row) for row in rng.normal(size=(10, 10))])
    return PreferenceGame(prefs, start, beta), start


def first_below(run, level):
    reached = run.duality_gap < level
    return np.where(reached.any(axis=1), run.steps[reached.argmax(axis=1)], np.inf)


def test_egpo_table_at_beta_a_tenth():
    game, start = egpo_batch(0.1)
    runs = {
        rule: play(game, rule, eta=0.4, steps=1000, start=start, record=1)
        for rule in ("omd", "nash-md", "egpo", "omwu")
    }
    for rule, median in (("omd", 152), ("egpo", 142), ("omwu", 141)):
        below = first_below(runs[rule], 1e-6)
        assert np.isfinite(below).all(), rule
        assert np.median(below) == pytest.approx(median, rel=0.35)
    floor = np.median(runs["nash-md"].duality_gap[:, -1])
    # Four times the floor published for half of this mixture weight.
    assert floor == pytest.approx(4 * 3.0e-5, rel=0.4)
    assert (runs["nash-md"].duality_gap[:, -1] > 1e-7).all()


def test_egpo_table_at_beta_a_hundredth():
    game, start = egpo_batch(0.01)
    runs = {
        rule: play(game, rule, eta=0.8, steps=5000, start=start, record=1)
        for rule in ("omd", "egpo", "omwu")
    }
    for rule in ("egpo", "omwu"):
        below = first_below(runs[rule], 1e-6)
        assert np.isfinite(below).all(), rule
        assert 300 < np.median(below) < 1300
    assert np.median(runs["omd"].duality_gap[:, -1]) > 1e-3


# -- SPPO's constant ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("eta", "expected"),
    [
        (1.0, (0.1784, 0.4783, 0.3433)),
        (5.0, (0.109, 0.380, 0.511)),
        (50.0, (8e-4, 0.055, 0.944)),
    ],
)
def test_sppo_with_the_constant_is_less_bold(eta, expected):
    run = play(COMAL_GAME, "sppo-constant", eta=eta, steps=1, start=START)
    np.testing.assert_allclose(run.final_policy, expected, rtol=2e-2, atol=6e-4)
    exact = play(COMAL_GAME, "sppo", eta=eta, steps=1, start=START)
    assert run.final_policy.max() < exact.final_policy.max() + 1e-9 or eta < 2


@pytest.mark.parametrize("eta", [0.5, 5.0, 60.0])
def test_least_squares_on_the_simplex_by_an_independent_optimiser(eta):
    rates = COMAL @ START
    target = np.log(START) + eta * (rates - 0.5)

    def error(logits):
        return START @ (log_normalise(logits) - target) ** 2

    tries = [
        minimize(error, s, method="Nelder-Mead",
                 options={"xatol": 1e-10, "fatol": 1e-16, "maxiter": 20_000})
        for s in (target, np.log(START), np.zeros(3))
    ]  # fmt: skip
    best = min(tries, key=lambda r: r.fun)
    got = regress_to_simplex(target, np.log(START))
    assert error(got) <= best.fun + 1e-12
    np.testing.assert_allclose(got, log_normalise(best.x), atol=2e-4)


def test_a_normalised_target_is_its_own_regression():
    target = np.log(START)
    np.testing.assert_allclose(regress_to_simplex(target, np.log(START)), target, atol=1e-12)


# -- policy gradients ---------------------------------------------------------------------


@pytest.mark.parametrize(("rule", "mixture"), [("self-play-pg", 0.0), ("nash-md-pg", 0.3)])
def test_policy_gradient_step_by_finite_differences(rule, mixture):
    game, eta = random_game(11, 5, beta=0.2), 1e-3
    run = play(game, rule, steps=1, eta=eta, mixture=mixture, seed=2)
    theta = run.log_policies[0]
    mix = log_normalise((1 - mixture) * theta + mixture * np.log(game.ref))

    def value(logits):
        log_pi = log_normalise(logits)
        pi = np.exp(log_pi)
        return pi @ game.prefs @ np.exp(mix) - 0.2 * pi @ (log_pi - np.log(game.ref))

    gradient = np.array(
        [(value(theta + 1e-6 * e) - value(theta - 1e-6 * e)) / 2e-6 for e in np.eye(5)]
    )
    moved = run.final_log_policy - theta
    np.testing.assert_allclose((moved - moved.mean()) / eta, gradient - gradient.mean(), atol=2e-7)


def test_policy_gradient_reaches_the_regularised_equilibrium():
    game = PreferenceGame(COMAL, beta=0.3)
    run = play(game, "self-play-pg", eta=0.5, steps=20_000, start=START)
    np.testing.assert_allclose(run.final_policy, fixed_point(COMAL, game.ref, 0.3), atol=1e-6)


# -- sampled feedback ---------------------------------------------------------------------


def test_sampled_feedback_is_unbiased_with_the_variance_of_its_samples():
    from equilign.play import SampledFeedback, exact_feedback

    game = random_game(3, 4)
    log_pi = log_normalise(np.array([0.0, 1.0, -1.0, 0.5]))
    feedback = SampledFeedback(game, 8, np.random.default_rng(0))
    draws = np.array([feedback(log_pi.copy()) for _ in range(6000)])
    exact = exact_feedback(game)(log_pi)
    deviation = np.sqrt(exact * (1 - exact) / 8)
    assert (np.abs(draws.mean(axis=0) - exact) < 4.5 * deviation / np.sqrt(6000)).all()
    np.testing.assert_allclose(draws.std(axis=0), deviation, rtol=0.05)


def test_a_policy_that_is_used_twice_is_judged_once():
    from equilign.play import SampledFeedback

    feedback = SampledFeedback(random_game(3, 4), 4, np.random.default_rng(0))
    policy = np.log(np.full(4, 0.25))
    assert feedback(policy) is feedback(policy)
    assert feedback(policy) is not feedback(policy.copy())


@pytest.mark.parametrize("rule", ["omwu", "nash-md", "egpo"])
def test_many_samples_approach_the_exact_run(rule):
    game = random_game(3, 4, beta=0.2)
    exact = play(game, rule, eta=0.3, steps=30, seed=1)
    errors = []
    for samples in (10, 100_000):
        run = play(game, rule, eta=0.3, steps=30, seed=1, samples=samples)
        errors.append(np.abs(run.final_policy - exact.final_policy).max())
    assert errors[1] < 5e-3
    assert errors[0] > 2 * errors[1]
    again = play(game, rule, eta=0.3, steps=30, seed=1, samples=10)
    other = play(game, rule, eta=0.3, steps=30, seed=2, samples=10, start=np.exp(
        exact.log_policies[0]))  # fmt: skip
    assert np.abs(again.final_policy - exact.final_policy).max() == errors[0]
    assert np.abs(other.final_policy - again.final_policy).max() > 1e-3


# -- the metric ---------------------------------------------------------------------------


def test_distance_to_a_set_of_equilibria():
    """Two clones that beat nothing else differently: every split between them is optimal."""
    prefs = np.array([[0.5, 0.5, 0.9], [0.5, 0.5, 0.9], [0.1, 0.1, 0.5]])
    game = PreferenceGame(prefs)
    run = play(game, "mwu", steps=2000, eta=1.0, start=np.array([0.1, 0.2, 0.7]))
    assert not run.equilibrium.unique
    distance = run.distance_to_equilibrium()
    assert distance[0] == pytest.approx(0.7, abs=1e-6)
    assert distance[-1] < 1e-6
    assert run.final_policy[0] == pytest.approx(1 / 3, abs=1e-6), "not the canonical point"


def test_distance_to_a_single_equilibrium_is_total_variation():
    run = play(COMAL_GAME, "omwu", eta=1.0, steps=1000, start=START, record=500)
    want = [np.abs(np.exp(q) - COMAL_NASH).sum() / 2 for q in run.log_policies]
    np.testing.assert_allclose(run.distance_to_equilibrium(), want, atol=1e-9)
    assert want[-1] < 1e-6 < want[0]


def test_gap_is_nonnegative_and_zero_only_at_equilibria():
    run = gaps(SIGNS_GAME, "mwu", (0,), eta=0.1)
    assert run.duality_gap[0] == pytest.approx(duality_gap(SIGNS_GAME, START), abs=1e-15)
    uniform = play(SIGNS_GAME, "mwu", steps=10, start="uniform", eta=1.0)
    assert np.abs(uniform.duality_gap).max() < 1e-15, "a uniform start stands still here"
    assert random_matrix(0, 3).shape == (3, 3)
