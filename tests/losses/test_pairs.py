"""Normaliser-free losses: values, the dictionary of gradients, and what their minimisers are."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equilign.games import PreferenceGame
from equilign.losses import (
    kl_to_step,
    labelled_pair_loss,
    mirror_regression_loss,
    mirror_residual,
    pair_loss,
    sampled_pair_loss,
)
from equilign.play import exact_feedback, log_normalise, mirror_step, start_slots
from equilign.rules import INPO, MWU, OMWU, Slot, Step
from tests.enumerable import random_prefs

COMAL = np.array([[0.5, 0.1, 0.8], [0.9, 0.5, 0.1], [0.2, 0.9, 0.5]])
seeds = st.integers(0, 10_000)


def row(values, **options):
    return torch.tensor(np.atleast_2d(values), dtype=torch.float64, **options)


def numeric_gradient(function, theta, width=1e-5):
    """Central differences of a function of plain logits."""
    found = np.zeros_like(theta)
    for i in range(theta.size):
        up, down = theta.copy(), theta.copy()
        up[i] += width
        down[i] -= width
        found[i] = (function(up) - function(down)) / (2.0 * width)
    return found


def problem(seed, n=6):
    """Logits, their policy and an unnormalised log target, none of them near another."""
    rng = np.random.default_rng(seed)
    theta, target = rng.normal(size=(2, n))
    return theta, np.exp(log_normalise(theta)), target + 3.0


# -- values -----------------------------------------------------------------------------------


@given(seed=seeds)
def test_pair_loss_is_the_double_sum(seed):
    rng = np.random.default_rng(seed)
    u, weights = rng.normal(size=(3, 5)), rng.dirichlet(np.ones(5), size=3)
    got = pair_loss(torch.tensor(u), torch.tensor(weights))
    for x in range(3):
        by_hand = sum(
            weights[x, i] * weights[x, j] * (u[x, i] - u[x, j]) ** 2
            for i in range(5)
            for j in range(5)
        )
        assert float(got[x]) == pytest.approx(by_hand, rel=1e-12)


def test_sampled_pairs_average_to_the_pair_loss():
    """All ordered pairs as samples, each once: the mean is the loss under uniform pairs."""
    u = np.random.default_rng(1).normal(size=4)
    first, second = np.divmod(np.arange(16), 4)
    each = sampled_pair_loss(row(u[first]), row(u[second]))
    assert each.shape == (1, 16)
    whole = pair_loss(row(u), torch.full((1, 4), 0.25, dtype=torch.float64))
    assert float(each.mean()) == pytest.approx(float(whole), rel=1e-12)


@given(seed=seeds, eta=st.floats(0.01, 50.0))
def test_soft_labels_are_the_regression_on_the_margin(seed, eta):
    """p (h - eta/2)^2 + (1-p) (h + eta/2)^2 = (h - eta (p - 1/2))^2 + eta^2 p (1 - p)."""
    rng = np.random.default_rng(seed)
    h, p = rng.normal(size=(2, 3)) * eta, rng.uniform(size=(2, 3))
    got = labelled_pair_loss(row(h), row(p), eta=eta).numpy()
    np.testing.assert_allclose(
        got, (h - eta * (p - 0.5)) ** 2 + eta**2 * p * (1 - p), rtol=1e-9, atol=1e-9
    )


def test_hard_labels_pull_the_winner_up():
    """INPO's and IPO's (h - 1/(2 tau))^2 with eta = 1 / tau, on (winner, loser)."""
    tau, h = 0.1, 1.3
    won = labelled_pair_loss(row([h]), row([1.0]), eta=1.0 / tau)
    lost = labelled_pair_loss(row([-h]), row([0.0]), eta=1.0 / tau)
    assert float(won) == pytest.approx((h - 1.0 / (2.0 * tau)) ** 2)
    assert float(lost) == pytest.approx(float(won)), "the order of the pair must not matter"


# -- the dictionary of gradients (finite differences) -------------------------------------------


def losses_of(theta, law, target):
    """Loss value as a function of logits, with the law of the pairs held constant."""

    def residual(logits):
        logps = log_normalise(logits)
        return row(logps), mirror_residual(row(logps), row(target), row(0 * logps), eta=1.0)

    def kl(logits):
        return float(kl_to_step(*residual(logits)))

    def pairs(logits):
        return float(pair_loss(residual(logits)[1], row(law)))

    def pointwise(logits):
        logps, _ = residual(logits)
        each = mirror_regression_loss(logps, row(target), 0 * logps, row([0.7]), eta=1.0)
        return 0.5 * float((row(law) * each).sum())

    return kl, pairs, pointwise


@pytest.mark.parametrize("seed", range(5))
def test_gradients_are_in_the_ratios_1_1_4_and_4_over_n(seed):
    theta, policy, target = problem(seed)
    n = theta.size
    u = log_normalise(theta) - target
    kl, own_pairs, pointwise = losses_of(theta, policy, target)
    reference = policy * (u - policy @ u)
    np.testing.assert_allclose(numeric_gradient(kl, theta), reference, atol=1e-8)
    np.testing.assert_allclose(numeric_gradient(pointwise, theta), reference, atol=1e-8)
    np.testing.assert_allclose(numeric_gradient(own_pairs, theta), 4.0 * reference, atol=1e-8)
    uniform = losses_of(theta, np.full(n, 1.0 / n), target)[1]
    np.testing.assert_allclose(
        numeric_gradient(uniform, theta), 4.0 / n * (u - u.mean()), atol=1e-8
    )


@pytest.mark.parametrize("seed", range(5))
def test_autograd_agrees_with_finite_differences(seed):
    """Weights and targets are constants to autograd: what the losses return has no other path."""
    theta, policy, target = problem(seed)
    kl, own_pairs, _ = losses_of(theta, policy, target)
    for value, build in (
        (kl, lambda logps, u: kl_to_step(logps, u)),
        (own_pairs, lambda logps, u: pair_loss(u, row(policy))),
    ):
        logits = row(theta, requires_grad=True)
        logps = logits.log_softmax(dim=1)
        u = mirror_residual(logps, row(target), torch.zeros_like(logps), eta=1.0)
        build(logps, u).sum().backward()
        np.testing.assert_allclose(
            logits.grad.numpy()[0], numeric_gradient(value, theta), atol=1e-8
        )


@pytest.mark.parametrize("seed", range(4))
def test_online_ipo_is_self_play_policy_gradient(seed):
    """Expected gradient = -(4 / tau) times that of E P - tau KL (check 22)."""
    rng, tau = np.random.default_rng(seed), 0.3
    prefs, ref = random_prefs(seed, 5), rng.dirichlet(np.ones(5))
    theta = rng.normal(size=5)
    policy = np.exp(log_normalise(theta))
    first, second = (x.ravel() for x in np.indices((5, 5)))

    def loss(logits):
        ratio = log_normalise(logits) - np.log(ref)
        each = labelled_pair_loss(
            row(ratio[first] - ratio[second]), row(prefs[first, second]), eta=1.0 / tau
        )
        return float((each * row(policy[first] * policy[second])).sum())

    def objective(logits):
        logps = log_normalise(logits)
        return np.exp(logps) @ prefs @ policy - tau * np.exp(logps) @ (logps - np.log(ref))

    ascent = numeric_gradient(objective, theta)
    assert np.abs(ascent).max() > 0.01
    np.testing.assert_allclose(numeric_gradient(loss, theta), -4.0 / tau * ascent, atol=1e-6)


# -- steps and minimisers -----------------------------------------------------------------------


@given(seed=seeds, eta=st.floats(0.01, 30.0), n=st.integers(2, 12))
def test_uniform_pairs_with_step_n_over_4_are_the_exact_omwu_step(seed, eta, n):
    rng = np.random.default_rng(seed)
    game = PreferenceGame(random_prefs(seed, n))
    slots = start_slots(log_normalise(rng.normal(size=n)), np.log(game.reference))
    slots[Slot.PREVIOUS] = log_normalise(rng.normal(size=n))
    exact = mirror_step(OMWU, slots, exact_feedback(game), Step(eta))[Slot.CURRENT]

    logits = row(slots[Slot.CURRENT], requires_grad=True)
    rates = [game.win_rates(np.exp(slots[s])) for s in (Slot.CURRENT, Slot.PREVIOUS)]
    u = mirror_residual(
        logits.log_softmax(dim=1),
        row(slots[Slot.CURRENT]),
        row(2.0 * rates[0] - rates[1]),
        eta=eta,
    )
    pair_loss(u, torch.full((1, n), 1.0 / n, dtype=torch.float64)).sum().backward()
    stepped = (logits - n / 4.0 * logits.grad).detach().numpy()[0]
    np.testing.assert_allclose(log_normalise(stepped), exact, rtol=0, atol=1e-12 * (1 + eta))


@given(seed=seeds, learning_rate=st.floats(0.01, 2.0))
def test_any_step_on_uniform_pairs_is_a_linear_contraction(seed, learning_rate):
    """theta - (4 lr / N) (u - mean u), whatever the policy (check 13)."""
    theta, _, target = problem(seed)
    n = theta.size
    logits = row(theta, requires_grad=True)
    u = logits.log_softmax(dim=1) - row(target)
    pair_loss(u, torch.full((1, n), 1.0 / n, dtype=torch.float64)).sum().backward()
    stepped = (logits - learning_rate * logits.grad).detach().numpy()[0]
    plain = log_normalise(theta) - target
    np.testing.assert_allclose(
        stepped, theta - 4.0 * learning_rate / n * (plain - plain.mean()), atol=1e-12
    )


def fit(loss, n, start=None):
    """Minimise over logits with Newton's method of torch's quasi-Newton line search."""
    logits = torch.zeros(1, n, dtype=torch.float64) if start is None else row(start)
    logits.requires_grad_()
    search = torch.optim.LBFGS(
        [logits],
        max_iter=500,
        tolerance_grad=1e-13,
        tolerance_change=1e-16,
        line_search_fn="strong_wolfe",
    )

    def closure():
        search.zero_grad()
        value = loss(logits.log_softmax(dim=1))
        value.backward()
        return value

    search.step(closure)
    return logits.detach().softmax(dim=1).numpy()[0]


def inpo_fit(prefs, policy, anchor, eta):
    first, second = (x.ravel() for x in np.indices(prefs.shape))
    weights, labels = row(policy[first] * policy[second]), row(prefs[first, second])

    def loss(logps):
        ratio = logps - row(anchor)
        margin = ratio[:, first] - ratio[:, second]
        return (weights * labelled_pair_loss(margin, labels, eta=eta)).sum()

    return fit(loss, len(policy))


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("eta", "beta"), [(0.5, 0.1), (2.0, 0.0), (2.0, 0.5)])
def test_inpo_with_the_exact_law_of_pairs_is_its_closed_form(seed, eta, beta):
    """Check 17; with beta = 0 it is MWU, with eta beta = 1 the old policy drops out."""
    rng = np.random.default_rng(seed)
    prefs, (policy, ref) = random_prefs(seed, 5), rng.dirichlet(np.ones(5), size=2)
    step, game = Step(eta, beta), PreferenceGame(prefs)
    slots = start_slots(np.log(policy), np.log(ref))
    anchor = sum(w * slots[s] for s, w in INPO.stages[0].anchor(step).items())
    fitted = inpo_fit(prefs, policy, anchor, eta)
    closed = np.exp(mirror_step(INPO, slots, exact_feedback(game), step)[Slot.CURRENT])
    np.testing.assert_allclose(fitted, closed, atol=1e-8)
    if beta == 0.0:
        plain = mirror_step(MWU, slots, exact_feedback(game), step)[Slot.CURRENT]
        np.testing.assert_allclose(fitted, np.exp(plain), atol=1e-8)
    if eta * beta == 1.0:
        target = ref * np.exp(eta * prefs @ policy)
        np.testing.assert_allclose(fitted, target / target.sum(), atol=1e-8)


def test_best_and_worst_of_eight_is_another_step():
    """Pairs that are not independent break the identity, on the game of the COMAL paper."""
    policy, eta, beta = np.array([0.2, 0.5, 0.3]), 0.5, 0.1
    anchor = (1.0 - eta * beta) * np.log(policy)  # and a uniform reference
    exact = inpo_fit(COMAL, policy, anchor, eta)
    np.testing.assert_allclose(exact, [0.195, 0.481, 0.324], atol=6e-4)
    rng, pairs = np.random.default_rng(0), np.zeros((3, 3))
    for _ in range(4000):
        drawn = rng.choice(3, size=8, p=policy)
        scores = COMAL[np.ix_(drawn, drawn)].mean(axis=1)
        pairs[drawn[scores.argmax()], drawn[scores.argmin()]] += 1.0
    first, second = (x.ravel() for x in np.indices((3, 3)))
    weights = row((pairs / pairs.sum()).ravel())

    def loss(logps):
        ratio = logps - row(anchor)
        margin = ratio[:, first] - ratio[:, second]
        return (weights * labelled_pair_loss(margin, row(COMAL.ravel()), eta=eta)).sum()

    assert np.abs(fit(loss, 3) - exact).max() > 0.01


@pytest.mark.parametrize("weights", ["uniform", "own", "kl"])
def test_every_loss_has_the_exact_step_as_its_minimiser(weights):
    game, start = PreferenceGame(COMAL), np.log([0.2, 0.5, 0.3])
    rates, eta = row(game.win_rates(np.exp(start))), 1.5
    exact = mirror_step(MWU, start_slots(start, start), exact_feedback(game), Step(eta))
    law = row([1 / 3, 1 / 3, 1 / 3] if weights == "uniform" else np.exp(start))

    def loss(logps):
        u = mirror_residual(logps, row(start), rates, eta=eta)
        return (kl_to_step(logps, u) if weights == "kl" else pair_loss(u, law)).sum()

    np.testing.assert_allclose(fit(loss, 3), np.exp(exact[Slot.CURRENT]), atol=1e-8)


def test_sampled_pairs_have_the_right_gradient():
    """Noisy payoffs, 200,000 pairs: the mean gradient is that of the exact loss, within noise."""
    rng = np.random.default_rng(0)
    game, policy = PreferenceGame(COMAL), np.array([0.2, 0.5, 0.3])
    theta, eta, count = np.array([0.3, -0.2, 0.5]), 1.5, 200_000
    first, second, other = rng.choice(3, size=(3, count), p=[1 / 3] * 3)
    other = rng.choice(3, size=count, p=policy)
    noisy = [rng.uniform(size=count) < COMAL[y, other] for y in (first, second)]

    def gradient(build):
        logits = row(theta, requires_grad=True)
        u = logits.log_softmax(dim=1) - row(np.log(policy))
        build(u).backward()
        return logits.grad.numpy()[0]

    sampled = gradient(
        lambda u: sampled_pair_loss(
            u[:, first] - eta * row(noisy[0]), u[:, second] - eta * row(noisy[1])
        ).mean()
    )
    exact = gradient(
        lambda u: pair_loss(
            u - eta * row(game.win_rates(policy)), torch.full((1, 3), 1 / 3, dtype=torch.float64)
        ).sum()
    )
    assert np.abs(exact).max() > 0.05
    np.testing.assert_allclose(sampled, exact, atol=0.01)
