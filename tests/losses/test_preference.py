"""DPO's loss against plain arithmetic, and what it has its minimum at."""

import math

import pytest
import torch

from equilign.losses import labelled_pair_loss
from equilign.losses.preference import dpo_loss, log_ratios

MARGINS = torch.tensor([-3.0, -0.4, 0.0, 0.7, 2.5], dtype=torch.float64)


def log_sigmoid(x):
    return -math.log1p(math.exp(-x))


@pytest.mark.parametrize("beta", [0.1, 1.0, 4.0])
@pytest.mark.parametrize("prob", [0.0, 0.3, 1.0])
@pytest.mark.parametrize("smoothing", [0.0, 0.2])
def test_loss_is_the_log_likelihood(beta, prob, smoothing):
    labels = torch.full_like(MARGINS, prob)
    found = dpo_loss(MARGINS, labels, beta=beta, label_smoothing=smoothing)
    p = prob * (1 - smoothing) + (1 - prob) * smoothing
    expected = [
        -p * log_sigmoid(beta * h) - (1 - p) * log_sigmoid(-beta * h) for h in MARGINS.tolist()
    ]
    torch.testing.assert_close(found, torch.tensor(expected, dtype=torch.float64))


@pytest.mark.parametrize("prob", [0.1, 0.5, 0.9])
def test_gradient(prob):
    """``beta (sigmoid(beta h) - p)``: zero where the implied reward has the label's log-odds."""
    margin = MARGINS.clone().requires_grad_()
    labels = torch.full_like(MARGINS, prob)
    dpo_loss(margin, labels, beta=0.7).sum().backward()
    torch.testing.assert_close(margin.grad, 0.7 * (torch.sigmoid(0.7 * MARGINS) - prob))
    best = torch.tensor([math.log(prob / (1 - prob)) / 0.7], dtype=torch.float64).requires_grad_()
    dpo_loss(best, torch.tensor([prob], dtype=torch.float64), beta=0.7).sum().backward()
    assert best.grad.abs().item() < 1e-15


def test_swapping_the_answers_swaps_the_label():
    labels = torch.tensor([0.0, 0.2, 0.5, 0.9, 1.0], dtype=torch.float64)
    one = dpo_loss(MARGINS, labels, beta=0.3, label_smoothing=0.1)
    other = dpo_loss(-MARGINS, 1.0 - labels, beta=0.3, label_smoothing=0.1)
    torch.testing.assert_close(one, other)


@pytest.mark.parametrize("size", [1e3, 1e6, 1e30])
def test_huge_margins_stay_finite(size):
    margin = torch.tensor([size, -size, size, -size]).requires_grad_()
    labels = torch.tensor([1.0, 1.0, 0.0, 0.25])
    loss = dpo_loss(margin, labels, beta=0.1, label_smoothing=0.01)
    loss.sum().backward()
    assert torch.isfinite(loss).all()
    assert torch.isfinite(margin.grad).all()
    assert loss[1] > loss[0]


def test_log_ratios_are_sums_or_means_per_token():
    logps, ref = torch.tensor([-6.0, -2.0]), torch.tensor([-9.0, -1.0])
    torch.testing.assert_close(log_ratios(logps, ref), torch.tensor([3.0, -1.0]))
    tokens = torch.tensor([6.0, 2.0])
    torch.testing.assert_close(log_ratios(logps, ref, tokens), torch.tensor([0.5, -0.5]))


def test_near_ties_dpo_is_ipo_at_four_times_the_weight():
    """Log-odds of a win rate are four times its margin: ``beta = 4 tau``, to first order."""
    tau, eps = 0.25, 1e-4
    labels = torch.tensor([0.5 + eps], dtype=torch.float64)
    margin = torch.tensor([[eps / tau]], dtype=torch.float64).requires_grad_()
    dpo_loss(margin[0], labels, beta=4 * tau).sum().backward()
    at_ipo = margin.grad.item()
    margin.grad = None
    labelled_pair_loss(margin, labels[None], eta=1 / tau).sum().backward()
    assert margin.grad.abs().item() < 1e-15
    assert abs(at_ipo) < eps**2
