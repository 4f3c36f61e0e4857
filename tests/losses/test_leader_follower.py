"""Losses of the sequential game, on sequences that can all be listed."""

import math

import numpy as np
import pytest
import torch

from equilign.losses.leader_follower import (
    importance_weights,
    kl_coefficients,
    leader_payoff,
    listed_advantages,
    player_loss,
    sampled_advantages,
)
from equilign.rollout import completion_token_logps
from tests.enumerable import END, RESPONSES, tiny_model

PROMPT = (1, 2)
NAN = math.nan


@pytest.fixture(scope="module")
def listed():
    """Every response of a policy, its law, and a reference that differs."""
    model, other = tiny_model(0, spread=0.4), tiny_model(1, spread=0.4)
    prompts = [PROMPT] * len(RESPONSES)
    logps, mask = completion_token_logps(model, prompts, RESPONSES, pad_id=END)
    with torch.no_grad():
        ref, _ = completion_token_logps(other, prompts, RESPONSES, pad_id=END)
    return model, logps, ref, mask


def gradient(value, model):
    found = torch.autograd.grad(value, list(model.parameters()), retain_graph=True)
    return torch.cat([g.flatten() for g in found])


def distance(found, expected):
    return float((found - expected).norm() / expected.norm())


def divergence(logps, ref):
    return (logps.sum(1).exp() * (logps - ref).sum(1)).sum()


def surrogate(listed, kind, reward=None, beta=1.0):
    _, logps, ref, mask = listed
    law = logps.detach().sum(1).exp()
    worth = torch.zeros(len(RESPONSES)) if reward is None else reward
    coefficients = kl_coefficients(logps, ref, mask, kind=kind)
    loss = player_loss(logps, worth.to(law), coefficients, torch.ones_like(law), beta=beta)
    return (law * loss).sum()


def test_to_go_is_the_gradient_of_the_kl_divergence(listed):
    model, logps, ref, _ = listed
    expected = gradient(divergence(logps, ref), model)
    assert float(expected.norm()) > 0.1
    assert distance(gradient(surrogate(listed, "to_go"), model), expected) < 1e-6


def test_a_tokens_own_estimates_are_other_gradients(listed):
    """`own_token_k1` forgets the divergence of later tokens."""
    model, logps, ref, _ = listed
    expected = gradient(divergence(logps, ref), model)
    for kind in ("own_token_k1", "own_token_k3"):
        assert distance(gradient(surrogate(listed, kind), model), expected) > 0.01


def test_own_token_coefficients_by_hand():
    logps = torch.tensor([[-1.0, -2.0, 0.0]], requires_grad=True)
    ref, mask = torch.tensor([[-1.5, -1.0, 7.0]]), torch.tensor([[True, True, False]])
    k1 = [0.5, -1.0]
    found = {k: kl_coefficients(logps, ref, mask, kind=k)[0].tolist()
             for k in ("to_go", "own_token_k1", "own_token_k3")}  # fmt: skip
    assert found["to_go"] == pytest.approx([-0.5, -1.0, 0.0])
    assert found["own_token_k1"] == pytest.approx([*k1, 0.0])
    assert found["own_token_k3"] == pytest.approx([*(math.exp(-k) - 1 + k for k in k1), 0.0])
    assert not kl_coefficients(logps, ref, mask, kind="to_go").requires_grad


def test_padding_on_either_side_changes_nothing():
    rng = torch.Generator().manual_seed(0)
    logps, ref = torch.randn(2, 1, 3, generator=rng)
    mask = torch.ones(1, 3, dtype=torch.bool)
    plain = kl_coefficients(logps, ref, mask, kind="to_go")
    for side in ((2, 0), (0, 2)):
        wide = [torch.nn.functional.pad(x, side, value=9.0) for x in (logps, ref)]
        found = kl_coefficients(*wide, torch.nn.functional.pad(mask, side), kind="to_go")
        torch.testing.assert_close(found, torch.nn.functional.pad(plain, side))


def test_k3_nearly_vanishes_near_the_reference(listed):
    """The reason not to use it: to first order it exerts no pull at all."""
    model, logps, _, mask = listed
    torch.manual_seed(0)
    ref = (logps + 1e-3 * torch.randn_like(logps)).detach().masked_fill(~mask, 0.0)
    near = (model, logps, ref, mask)
    pulls = {
        k: float(gradient(surrogate(near, k), model).norm())
        for k in ("own_token_k1", "own_token_k3")
    }
    assert pulls["own_token_k3"] < 0.01 * pulls["own_token_k1"]


def test_the_loss_climbs_the_penalised_reward(listed):
    model, logps, ref, _ = listed
    reward = torch.tensor(np.random.default_rng(0).normal(0, 1, len(RESPONSES)))
    value = (logps.sum(1).exp() * reward).sum() - 0.3 * divergence(logps, ref)
    expected = gradient(-value, model)
    assert distance(gradient(surrogate(listed, "to_go", reward, 0.3), model), expected) < 1e-6
    shifted = surrogate(listed, "to_go", reward - 5.0, 0.3)
    assert distance(gradient(shifted, model), expected) < 1e-6


def test_importance_weights_are_capped_constants():
    logps = torch.tensor([0.0, 1.0, -1.0], requires_grad=True)
    found = importance_weights(logps, torch.zeros(3), cap=2.0)
    torch.testing.assert_close(found, torch.tensor([1.0, 2.0, math.exp(-1.0)]))
    assert not found.requires_grad
    free = importance_weights(logps, torch.zeros(3), cap=math.inf)
    assert float(free[1]) == pytest.approx(math.e)


def test_leader_payoff_by_hand():
    wins = torch.tensor([[0.2, 0.6], [NAN, 0.4], [NAN, NAN]], dtype=torch.float64)
    weights = torch.tensor([[0.25, 0.75]] * 3, dtype=torch.float64)
    ratios = torch.tensor([[1.0, -1.0], [5.0, 2.0], [1.0, 1.0]], dtype=torch.float64)
    found = leader_payoff(wins, weights, ratios, beta_follower=0.1)
    first = 0.25 * (0.2 + 0.1) + 0.75 * (0.6 - 0.1)
    np.testing.assert_allclose(found, [first, 0.4 + 0.2, NAN])
    bare = leader_payoff(wins, weights, ratios, beta_follower=0.0)
    np.testing.assert_allclose(bare[:2], [0.25 * 0.2 + 0.75 * 0.6, 0.4])


def test_sampled_advantages_take_the_nearest_others():
    reward = torch.tensor([[1.0, 3.0, NAN], [5.0, NAN, NAN]], dtype=torch.float64)
    found = sampled_advantages(reward, fallback=0.5)
    np.testing.assert_allclose(found, [[-2.0, 2.0, NAN], [5.0 - 2.0, NAN, NAN]])
    alone = torch.tensor([[NAN, 0.9]], dtype=torch.float64)
    np.testing.assert_allclose(sampled_advantages(alone, fallback=0.5), [[NAN, 0.4]])


def test_sampled_advantages_of_replies_stay_in_their_context():
    """``(prompt, answer, reply)``: one context per leader answer."""
    reward = torch.tensor([[[1.0, 3.0], [10.0, 14.0]]], dtype=torch.float64)
    found = sampled_advantages(reward, fallback=0.5)
    np.testing.assert_allclose(found, [[[-2.0, 2.0], [-4.0, 4.0]]])


def test_listed_advantages_are_centred_by_context():
    reward = torch.tensor([[[1.0, 3.0], [10.0, NAN]]], dtype=torch.float64)
    weights = torch.tensor([[[0.75, 0.25], [0.5, 0.5]]], dtype=torch.float64)
    found = listed_advantages(reward, weights)
    np.testing.assert_allclose(found, [[[-0.5, 1.5], [0.0, NAN]]])
