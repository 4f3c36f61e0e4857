"""Policy gradients on whole responses, against enumeration."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from equilign.losses.policy_gradient import (
    approx_kl,
    centred,
    clip_is_active,
    clipped_surrogate,
    leave_one_out,
    penalised_reward,
    reinforce_loss,
)
from equilign.rollout import completion_logps, completion_token_logps
from equilign.rules.reward_gradient import exact_reward_gradient
from tests.enumerable import END, RESPONSES, tiny_model

BETA = 0.4
PROMPT = (1, 2)
REWARD = torch.tensor(np.random.default_rng(7).normal(0, 1, len(RESPONSES)))


def table(seed, size=4):
    draws = torch.randn(3, size, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return draws[0].requires_grad_(True), draws[1].log_softmax(0), draws[2]


def rows(*values):
    return torch.tensor(values, dtype=torch.float64)


def tiny(seed=0):
    """A policy and, as the reference, one that differs from it."""
    model, other = tiny_model(seed, spread=0.4), tiny_model(seed + 1, spread=0.4)
    prompts = [PROMPT] * len(RESPONSES)
    with torch.no_grad():
        ref = completion_logps(other, prompts, RESPONSES, pad_id=END)
    return model, completion_logps(model, prompts, RESPONSES, pad_id=END), ref


def gradient(loss, model):
    return torch.cat([g.flatten() for g in torch.autograd.grad(loss, list(model.parameters()))])


def distance(found, expected):
    return float((found - expected).norm() / expected.norm())


def objective_gradient(seed=0):
    """Of ``E_pi[r] - beta KL(pi || ref)``, differentiated as a sum over all responses."""
    model, logps, ref = tiny(seed)
    return gradient((logps.exp() * (REWARD - BETA * (logps - ref))).sum(), model)


# -- the gradient ---------------------------------------------------------------------------


@pytest.mark.parametrize("baseline", [0.0, 0.5, -3.0])
def test_reinforce_is_the_exact_gradient_for_any_baseline(baseline):
    model, logps, ref = tiny()
    worth = penalised_reward(REWARD, logps.detach(), ref, beta=BETA)
    loss = clipped_surrogate(logps - logps.detach(), worth - baseline, low=0.2, high=0.2)
    found = -gradient((logps.detach().exp() * loss).sum(), model)
    assert distance(found, objective_gradient()) < 1e-6


def test_reinforce_loss_is_the_same_gradient():
    model, logps, ref = tiny()
    worth = penalised_reward(REWARD, logps.detach(), ref, beta=BETA)
    weights = logps.detach().exp()
    loss = reinforce_loss(logps[None], worth[None], weights[None]).sum()
    assert distance(-gradient(loss, model), objective_gradient()) < 1e-6


def test_leave_one_out_is_unbiased_over_all_pairs():
    """K = 2: every pair of responses with its probability."""
    model, logps, ref = tiny()
    law = logps.detach().exp()
    worth = penalised_reward(REWARD, logps.detach(), ref, beta=BETA)
    pairs = torch.tensor(list(itertools.product(range(len(RESPONSES)), repeat=2)))
    loss = clipped_surrogate(
        (logps - logps.detach())[pairs], leave_one_out(worth[pairs]), low=0.2, high=0.2
    ).mean(dim=1)
    found = -gradient((law[pairs].prod(dim=1) * loss).sum(), model)
    assert distance(found, objective_gradient()) < 1e-6


@pytest.mark.parametrize("size", [2, 3])
def test_leave_one_out_is_unbiased_on_a_table(size):
    logits, ref, reward = table(3)
    logps = logits.log_softmax(0)
    worth = penalised_reward(reward, logps.detach(), ref, beta=BETA)
    tuples = torch.tensor(list(itertools.product(range(4), repeat=size)))
    loss = clipped_surrogate(
        (logps - logps.detach())[tuples], leave_one_out(worth[tuples]), low=0.2, high=0.2
    ).mean(dim=1)
    (logps.detach().exp()[tuples].prod(dim=1) * loss).sum().backward()
    exact = exact_reward_gradient(logps.detach().numpy(), ref.numpy(), reward.numpy(), BETA)
    np.testing.assert_allclose(-logits.grad.numpy(), exact, atol=1e-12)


def test_own_token_kl_is_another_gradient():
    """Each token's gradient weighted with its own log-ratio only: biased, and visibly so."""
    model, logps, ref = tiny()
    other = tiny_model(1, spread=0.4)
    prompts = [PROMPT] * len(RESPONSES)
    tokens, mask = completion_token_logps(model, prompts, RESPONSES, pad_id=END)
    with torch.no_grad():
        ref_tokens, _ = completion_token_logps(other, prompts, RESPONSES, pad_id=END)
    ratio = (tokens.detach() - ref_tokens).masked_fill(~mask, 0.0)
    torch.testing.assert_close(ratio.sum(dim=1), (logps.detach() - ref))
    own = REWARD[:, None] - BETA * ratio
    myopic = (logps.detach().exp() * (own * tokens).masked_fill(~mask, 0.0).sum(dim=1)).sum()
    assert distance(gradient(myopic, model), objective_gradient()) > 0.01


def test_k3_as_a_coefficient_is_another_gradient():
    model, logps, ref = tiny()
    log_ratio = ref - logps.detach()
    k3 = log_ratio.exp() - 1.0 - log_ratio
    found = gradient((logps.detach().exp() * (REWARD - BETA * k3) * logps).sum(), model)
    assert distance(found, objective_gradient()) > 0.01


# -- baselines ------------------------------------------------------------------------------


def test_leave_one_out_by_hand():
    found = leave_one_out(rows([1.0, 2.0, 6.0], [0.0, 0.0, 3.0]))
    torch.testing.assert_close(found, rows([-3.0, -1.5, 4.5], [-1.5, -1.5, 3.0]))


def test_responses_without_a_verdict_are_nobodys_baseline():
    nan = math.nan
    found = leave_one_out(rows([1.0, nan, 6.0], [nan, 2.0, nan], [nan, nan, nan]))
    expected = rows([-5.0, nan, 5.0], [nan, nan, nan], [nan, nan, nan])
    torch.testing.assert_close(found, expected, equal_nan=True)


@given(st.lists(st.floats(-5, 5), min_size=2, max_size=6), st.floats(-3, 3))
def test_leave_one_out_sums_to_zero_and_ignores_a_constant(values, constant):
    reward = rows(values)
    found = leave_one_out(reward)
    assert abs(float(found.sum())) < 1e-9
    torch.testing.assert_close(leave_one_out(reward + constant), found, atol=1e-9, rtol=0.0)
    size = len(values)
    torch.testing.assert_close(found, (reward - reward.mean()) * size / (size - 1))


def test_centred_uses_the_law_of_the_responses():
    weights = rows([0.2, 0.8], [0.5, 0.5])
    found = centred(rows([1.0, 2.0], [3.0, math.nan]), weights)
    expected = rows([-0.8, 0.2], [0.0, math.nan])
    torch.testing.assert_close(found, expected, equal_nan=True)


# -- the clipped ratio ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("ratio", "advantage", "value", "slope"),
    [
        (1.0, 2.0, -2.0, -2.0),
        (1.0, -2.0, 2.0, 2.0),
        (1.15, 2.0, -2.3, -2.0),
        (1.5, 2.0, -2.4, 0.0),  # up far enough
        (0.5, 2.0, -1.0, -2.0),  # below, but the step leads back
        (1.5, -2.0, 3.0, 2.0),  # above, but the step leads back
        (0.5, -2.0, 1.8, 0.0),  # down far enough
    ],
)
def test_clipping_acts_only_where_it_should(ratio, advantage, value, slope):
    x = rows(math.log(ratio)).requires_grad_(True)
    loss = clipped_surrogate(x, rows(advantage), low=0.1, high=0.2)
    loss.sum().backward()
    torch.testing.assert_close(loss.detach(), rows(value))
    torch.testing.assert_close(x.grad, rows(slope * ratio))
    active = clip_is_active(x.detach(), rows(advantage), low=0.1, high=0.2)
    assert bool(active) == (slope == 0.0)


def test_without_bounds_it_is_the_importance_weight():
    x = rows(2.0, -3.0).requires_grad_(True)
    loss = clipped_surrogate(x, rows(1.5, -0.5), low=math.inf, high=math.inf)
    torch.testing.assert_close(loss.detach(), -x.detach().exp() * rows(1.5, -0.5))


def test_a_response_without_advantage_does_nothing_whatever_its_ratio():
    x = torch.tensor([1000.0, 0.0]).requires_grad_(True)
    loss = clipped_surrogate(x, torch.tensor([0.0, 1.0]), low=0.2, high=0.2)
    loss.sum().backward()
    assert loss.tolist() == [0.0, -1.0]
    assert x.grad.tolist() == [0.0, -1.0]


def test_approx_kl_estimates_the_divergence_of_the_old_policy():
    _, old, _ = tiny(0)
    _, new, _ = tiny(3)
    old, new = old.detach(), new.detach()
    estimate = approx_kl(new - old)
    assert float(estimate.min()) >= 0.0
    expected = (old.exp() * (old - new)).sum()
    torch.testing.assert_close((old.exp() * estimate).sum(), expected)
    assert float(expected) > 0.01
