"""The regression form of a mirror rule: its value, its gradient, and what its minimiser is."""

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from equilign.games import PreferenceGame
from equilign.losses import log_normaliser, mirror_regression_loss
from equilign.play import exact_feedback, mirror_step
from equilign.rules import SPPO, Slot, Step
from tests.enumerable import random_prefs

SEEDED = settings(derandomize=True, deadline=None)

COMAL = np.array([[0.5, 0.1, 0.8], [0.9, 0.5, 0.1], [0.2, 0.9, 0.5]])
START = np.array([0.2, 0.5, 0.3])


def row(values, **options):
    return torch.tensor(np.atleast_2d(values), dtype=torch.float64, **options)


@SEEDED
@given(seed=st.integers(0, 10_000), eta=st.floats(0.01, 100.0))
def test_loss_by_plain_arithmetic(seed, eta):
    rng = np.random.default_rng(seed)
    logps, anchor = -rng.uniform(0, 50, (2, 3, 4))
    payoff, log_z = rng.uniform(0, 1, (3, 4)), rng.normal(size=(3, 1))
    got = mirror_regression_loss(row(logps), row(anchor), row(payoff), row(log_z), eta=eta)
    for i in range(3):
        for k in range(4):
            residual = logps[i, k] - anchor[i, k] - eta * payoff[i, k] + log_z[i, 0]
            assert float(got[i, k]) == pytest.approx(residual**2, rel=1e-9, abs=1e-12)


def test_the_normaliser_belongs_to_its_prompt():
    """Two prompts with two responses: a normaliser along the wrong axis would broadcast too."""
    zeros = torch.zeros(2, 2, dtype=torch.float64)
    log_z = row([[1.0], [3.0]])
    got = mirror_regression_loss(zeros, zeros, zeros, log_z, eta=1.0)
    assert got.tolist() == [[1.0, 1.0], [9.0, 9.0]]


def test_gradient_at_the_anchor():
    """2 (logps - anchor - eta p + log Z), for the policy alone."""
    logps = row([-3.0, -1.0, -7.5], requires_grad=True)
    anchor, payoff = row([-3.0, -1.0, -7.5]), row([0.9, 0.2, 0.5])
    log_z = row([0.4])
    mirror_regression_loss(logps, anchor, payoff, log_z, eta=5.0).sum().backward()
    torch.testing.assert_close(logps.grad, 2.0 * (0.4 - 5.0 * payoff))
    away = row([-2.0, -1.5, -7.0], requires_grad=True)
    mirror_regression_loss(away, anchor, payoff, log_z, eta=5.0).sum().backward()
    torch.testing.assert_close(away.grad, 2.0 * (away.detach() - anchor - 5.0 * payoff + 0.4))


def test_gradient_at_the_old_policy_with_the_constant_of_the_paper():
    """-2 eta (win probability - 1/2), the published closed form."""
    logps = row([-3.0, -1.0], requires_grad=True)
    payoff = row([0.9, 0.2])
    weights = row([0.5, 0.5])
    log_z = log_normaliser(payoff, weights, eta=5.0, kind="paper")
    mirror_regression_loss(logps, logps.detach(), payoff, log_z, eta=5.0).sum().backward()
    torch.testing.assert_close(logps.grad, -10.0 * (payoff - 0.5))


def test_bridge_to_the_units_of_the_release():
    """The release halves the squares and writes 1 / beta for eta, on a winner and a loser."""
    beta, win, lose = 0.001, 0.8, 0.3
    ratio_w, ratio_l = 1.5, -0.5
    theirs = 0.5 * (ratio_w - (win - 0.5) / beta) ** 2 + 0.5 * (ratio_l - (lose - 0.5) / beta) ** 2
    payoff = row([win, lose])
    log_z = log_normaliser(payoff, row([0.5, 0.5]), eta=1 / beta, kind="paper")
    ours = mirror_regression_loss(
        row([ratio_w - 20.0, ratio_l - 30.0]), row([-20.0, -30.0]), payoff, log_z, eta=1 / beta
    )
    assert float(ours.sum()) / 2.0 == pytest.approx(theirs, rel=1e-12)


# -- the normaliser -----------------------------------------------------------------------


def test_estimated_normaliser_by_plain_arithmetic():
    payoff, weights = row([[0.9, 0.2], [0.5, 0.1]]), row([[0.25, 0.75], [0.5, 0.5]])
    got = log_normaliser(payoff, weights, eta=3.0, kind="estimated")
    expected = [
        [math.log(0.25 * math.exp(2.7) + 0.75 * math.exp(0.6))],
        [math.log(0.5 * math.exp(1.5) + 0.5 * math.exp(0.3))],
    ]
    torch.testing.assert_close(got, row(expected))


def test_paper_normaliser_is_half_of_eta_whatever_the_payoffs():
    payoff, weights = row([[0.9, 0.2], [0.5, 0.1]]), row([[0.25, 0.75], [0.5, 0.5]])
    got = log_normaliser(payoff, weights, eta=3.0, kind="paper")
    assert got.tolist() == [[1.5], [1.5]]
    assert got.dtype == torch.float64


@SEEDED
@given(seed=st.integers(0, 10_000), size=st.integers(2, 6), eta=st.floats(0.01, 100.0))
def test_the_constant_of_the_paper_is_a_lower_bound(seed, size, eta):
    """Jensen: the mean win rate against oneself is 1/2, the true log Z lies above eta / 2."""
    policy = np.random.default_rng(seed).dirichlet(np.ones(size))
    rates = row(random_prefs(seed, size) @ policy)
    true = log_normaliser(rates, row(policy), eta=eta, kind="estimated")
    paper = log_normaliser(rates, row(policy), eta=eta, kind="paper")
    assert float(true) >= float(paper) - 1e-9


def test_weight_zero_and_large_eta_are_no_nan():
    payoff, weights = row([1.0, 0.5, 0.0]), row([0.0, 0.5, 0.5])
    got = log_normaliser(payoff, weights, eta=1e4, kind="estimated")
    assert float(got) == pytest.approx(5000.0 - math.log(2))


@SEEDED
@given(seed=st.integers(0, 10_000), size=st.integers(1, 6), eta=st.floats(0.01, 50.0))
def test_full_enumeration_has_no_residual_at_the_exact_step(seed, size, eta):
    """With all responses and their probabilities the regression is solved by the exact rule."""
    game = PreferenceGame(random_prefs(seed, size))
    old = np.log(np.random.default_rng(seed).dirichlet(np.ones(size)))
    new = mirror_step(SPPO, {Slot.CURRENT: old}, exact_feedback(game), Step(eta))[Slot.CURRENT]
    payoff = row(game.win_rates(np.exp(old)))
    log_z = log_normaliser(payoff, row(np.exp(old)), eta=eta, kind="estimated")
    loss = mirror_regression_loss(row(new), row(old), payoff, log_z, eta=eta)
    assert float(loss.max()) < 1e-18 * max(1.0, eta**2)


# -- the minimiser over the simplex -------------------------------------------------------


def minimiser(kind, eta, steps=600):
    """Argmin over softmax logits of the loss weighted by the old policy, and its value.

    The weights are those of sampling responses from the old policy: an expectation over y ~ pi_t.
    """
    payoff, weights, anchor = row(COMAL @ START), row(START), row(np.log(START))
    log_z = log_normaliser(payoff, weights, eta=eta, kind=kind)
    logits = anchor.clone().requires_grad_()
    optimiser = torch.optim.LBFGS(
        [logits],
        max_iter=steps,
        line_search_fn="strong_wolfe",
        tolerance_grad=1e-10,
        tolerance_change=0.0,
    )

    def objective():
        optimiser.zero_grad()
        loss = mirror_regression_loss(logits.log_softmax(-1), anchor, payoff, log_z, eta=eta)
        total = (weights * loss).sum()
        total.backward()
        return total

    optimiser.step(objective)
    value = float(objective().detach())
    assert float(logits.grad.abs().max()) < 1e-5, "not converged"
    return logits.detach().softmax(-1)[0].numpy(), value


@pytest.mark.parametrize("eta", [0.5, 1.0, 5.0])
def test_with_the_exact_normaliser_the_minimiser_is_the_exact_step(eta):
    policy, value = minimiser("estimated", eta)
    exact = START * np.exp(eta * COMAL @ START)
    np.testing.assert_allclose(policy, exact / exact.sum(), atol=1e-6)
    assert value < 1e-10


@pytest.mark.parametrize(
    ("eta", "expected", "tolerance"),
    [
        (1.0, (0.1784, 0.4783, 0.3433), 6e-5),
        (5.0, (0.109, 0.380, 0.511), 6e-4),
        (50.0, (8e-4, 0.055, 0.944), 6e-4),
    ],
)
def test_with_the_constant_of_the_paper_the_minimiser_is_less_bold(eta, expected, tolerance):
    """Known values of the least-squares minimiser weighted by the old policy, pi_t.

    (Unweighted least squares gives other ones: .112, .368, .520 at eta 5.) The residual cannot
    vanish: probabilities must sum to 1, and eta / 2 is not log Z.
    """
    policy, value = minimiser("paper", eta)
    np.testing.assert_allclose(policy, expected, atol=tolerance)
    exact = START * np.exp(eta * COMAL @ START)
    assert policy[2] < (exact / exact.sum())[2]
    assert value > 1e-5
