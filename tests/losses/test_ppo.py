"""PPO's token arithmetic, against hand recursions and enumeration."""

import numpy as np
import pytest
import torch

from equilign.losses.policy_gradient import clipped_surrogate, penalised_reward
from equilign.losses.ppo import (
    clipped_value_loss,
    generalised_advantages,
    masked_sum,
    masked_whiten,
    token_rewards,
)
from equilign.rollout import completion_token_logps
from tests.enumerable import END, RESPONSES, tiny_model
from tests.losses.test_policy_gradient import (
    BETA,
    PROMPT,
    REWARD,
    distance,
    gradient,
    objective_gradient,
)


def draw(*shape, seed=0):
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


LENGTHS = [4, 1, 3]


def masks():
    right = torch.arange(4)[None, :] < torch.tensor(LENGTHS)[:, None]
    return right, right.flip(1)


def to_left(x, fill=99.0):
    """The same rows with the padding on the left, and rubbish in it."""
    result = torch.full_like(x, fill)
    for i, n in enumerate(LENGTHS):
        result[i, 4 - n :] = x[i, :n]
    return result


def by_hand(rewards, values, gamma, lam):
    """GAE of one episode, by its definition as a sum of TD errors."""
    size = len(rewards)
    ahead = [*values[1:], 0.0]
    delta = [rewards[t] + gamma * ahead[t] - values[t] for t in range(size)]
    return [sum((gamma * lam) ** (k - t) * delta[k] for k in range(t, size)) for t in range(size)]


@pytest.mark.parametrize("gamma", [1.0, 0.9])
@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95, 1.0])
def test_advantages_against_their_definition(gamma, lam):
    rewards, values = draw(3, 4), draw(3, 4, seed=1)
    right, left = masks()
    found = generalised_advantages(rewards, values, right, gamma=gamma, lam=lam)
    for i, n in enumerate(LENGTHS):
        expected = by_hand(rewards[i, :n].tolist(), values[i, :n].tolist(), gamma, lam)
        np.testing.assert_allclose(found[i, :n], expected, atol=1e-12)
    assert float(found[~right].abs().max()) == 0.0
    moved = generalised_advantages(to_left(rewards), to_left(values), left, gamma=gamma, lam=lam)
    torch.testing.assert_close(moved, to_left(found, 0.0))


def test_lambda_one_is_the_monte_carlo_return_minus_the_value():
    rewards, values, gamma = draw(3, 4), draw(3, 4, seed=1), 0.8
    right, _ = masks()
    found = generalised_advantages(rewards, values, right, gamma=gamma, lam=1.0)
    for i, n in enumerate(LENGTHS):
        for t in range(n):
            to_go = sum(gamma ** (s - t) * float(rewards[i, s]) for s in range(t, n))
            assert float(found[i, t]) == pytest.approx(to_go - float(values[i, t]), abs=1e-12)


def test_lambda_zero_is_the_td_error():
    mask = torch.ones(1, 2, dtype=torch.bool)
    found = generalised_advantages(
        torch.tensor([[1.0, 2.0]]), torch.tensor([[10.0, 20.0]]), mask, gamma=0.5, lam=0.0
    )
    assert found.tolist() == [[1.0 + 10.0 - 10.0, 2.0 - 20.0]]


def test_token_rewards_carry_the_score_once_and_sum_to_the_penalised_reward():
    logps, ref, score = draw(3, 4), draw(3, 4, seed=1), draw(3, seed=2)
    right, left = masks()
    found = token_rewards(score, logps, ref, right, beta=0.3)
    whole = penalised_reward(score, masked_sum(logps, right), masked_sum(ref, right), beta=0.3)
    torch.testing.assert_close(found.sum(dim=1), whole)
    for i, n in enumerate(LENGTHS):
        expected = -0.3 * (logps[i, :n] - ref[i, :n])
        expected[-1] += score[i]
        torch.testing.assert_close(found[i, :n], expected)
    moved = token_rewards(score, to_left(logps), to_left(ref), left, beta=0.3)
    torch.testing.assert_close(moved, to_left(found, 0.0))


# -- the whole gradient, by enumeration -----------------------------------------------------


def episodes():
    """Every response of a policy as an episode, with rewards of a reference that differs."""
    model, other = tiny_model(0, spread=0.4), tiny_model(1, spread=0.4)
    prompts = [PROMPT] * len(RESPONSES)
    tokens, mask = completion_token_logps(model, prompts, RESPONSES, pad_id=END)
    with torch.no_grad():
        ref, _ = completion_token_logps(other, prompts, RESPONSES, pad_id=END)
    rewards = token_rewards(REWARD, tokens.detach(), ref, mask, beta=BETA)
    return model, tokens, mask, rewards


def true_values(tokens, mask, rewards):
    """Expected reward to go before each token: responses that share a prefix share a state."""
    law = masked_sum(tokens.detach(), mask).exp()
    values = torch.zeros_like(rewards)
    for i, mine in enumerate(RESPONSES):
        for t in range(len(mine)):
            alike = [j for j, r in enumerate(RESPONSES) if r[:t] == mine[:t] and len(r) > t]
            to_go = torch.stack([rewards[j][mask[j]][t:].sum() for j in alike])
            values[i, int(mask[i].long().argmax()) + t] = (law[alike] * to_go).sum() / law[
                alike
            ].sum()
    return values


def surrogate_gradient(model, tokens, mask, advantage):
    log_ratio = (tokens - tokens.detach()).masked_fill(~mask, 0.0)
    loss = masked_sum(clipped_surrogate(log_ratio, advantage, low=0.2, high=0.2), mask)
    return -gradient((masked_sum(tokens.detach(), mask).exp() * loss).sum(), model)


def test_without_a_critic_whole_returns_give_the_exact_gradient():
    model, tokens, mask, rewards = episodes()
    advantage = generalised_advantages(rewards, torch.zeros_like(rewards), mask, gamma=1.0, lam=1.0)
    found = surrogate_gradient(model, tokens, mask, advantage)
    assert distance(found, objective_gradient()) < 1e-6


@pytest.mark.parametrize("lam", [0.0, 0.5, 0.95, 1.0])
def test_a_perfect_critic_gives_the_exact_gradient_for_any_lambda(lam):
    model, tokens, mask, rewards = episodes()
    values = true_values(tokens, mask, rewards)
    advantage = generalised_advantages(rewards, values, mask, gamma=1.0, lam=lam)
    found = surrogate_gradient(model, tokens, mask, advantage)
    assert distance(found, objective_gradient()) < 1e-6


def test_short_traces_without_a_critic_are_biased():
    """lam = 0 with zero values is the own-token gradient: what must never happen by accident."""
    model, tokens, mask, rewards = episodes()
    advantage = generalised_advantages(rewards, torch.zeros_like(rewards), mask, gamma=1.0, lam=0.0)
    torch.testing.assert_close(advantage, rewards)
    found = surrogate_gradient(model, tokens, mask, advantage)
    assert distance(found, objective_gradient()) > 0.01


# -- the critic's loss, whitening -----------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "target", "loss", "slope"),
    [
        (1.1, 2.0, 0.405, -0.9),  # within the range
        (1.5, 2.0, 0.32, 0.0),  # left it towards the target: the clipped 1.2 counts
        (0.5, 2.0, 1.125, -1.5),  # left it away from the target: pulled back
        (1.5, 0.0, 1.125, 1.5),
    ],
)
def test_value_loss_is_flat_beyond_the_range_towards_the_target(value, target, loss, slope):
    values = torch.tensor([[value]], dtype=torch.float64, requires_grad=True)
    old, goal = torch.ones_like(values), torch.full_like(values, target)
    found = clipped_value_loss(values, old.detach(), goal.detach(), cliprange=0.2)
    found.sum().backward()
    assert float(found.detach()) == pytest.approx(loss)
    assert float(values.grad) == pytest.approx(slope)


def test_value_loss_without_a_range():
    values, old, goal = draw(2, 3), draw(2, 3, seed=1), draw(2, 3, seed=2)
    found = clipped_value_loss(values, old, goal, cliprange=float("inf"))
    torch.testing.assert_close(found, 0.5 * (values - goal) ** 2)


def test_whitening_sees_the_mask_only():
    x = draw(3, 4) * 5.0 + 2.0
    right, left = masks()
    found = masked_whiten(x, right)
    assert float(found[right].mean()) == pytest.approx(0.0, abs=1e-12)
    assert float(found[right].square().mean()) == pytest.approx(1.0)
    torch.testing.assert_close(masked_whiten(to_left(x), left), to_left(found, 0.0))


def test_whitening_without_a_scale():
    mask = torch.tensor([[True, True, False]])
    assert masked_whiten(torch.full((1, 3), 4.0), mask).tolist() == [[0.0, 0.0, 0.0]]
    assert masked_whiten(torch.full((1, 3), 4.0), ~mask).tolist() == [[0.0, 0.0, 0.0]]
    nobody = torch.zeros(1, 3, dtype=torch.bool)
    assert masked_whiten(torch.ones(1, 3), nobody).tolist() == [[0.0, 0.0, 0.0]]
