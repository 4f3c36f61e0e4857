r"""Proximal policy optimisation on tokens (Schulman et al. 2017, arXiv:1707.06347).

A response is an episode, a token an action. All tensors are ``(response, token)`` with a mask of
the response's tokens, its one end token included; padding may be on either side. Advantages are
generalised ones (Schulman et al. 2016, arXiv:1506.02438).
"""

import torch
from jaxtyping import Bool, Float
from torch import Tensor


def token_rewards(
    score: Float[Tensor, " response"],
    logps: Float[Tensor, "response token"],
    ref_logps: Float[Tensor, "response token"],
    mask: Bool[Tensor, "response token"],
    *,
    beta: float,
) -> Float[Tensor, "response token"]:
    """``-beta * k1`` at every token, and the response's score at its last one.

    Their sum over a response is `equilign.losses.penalised_reward` of it. A token's gradient must
    be weighted with the rewards from that token *on* (as `generalised_advantages` does), never
    with its own alone.

    Args:
        score: of each whole response.
        logps: of its tokens under the policy that sampled them, nats.
        ref_logps: of the same under the reference, nats.
        mask: at least one token per response.
        beta: KL weight, reward per nat.
    """
    rewards = (-beta * (logps - ref_logps)).masked_fill(~mask, 0.0)
    return rewards + _is_last(mask) * score[:, None]


def _is_last(mask: Bool[Tensor, "response token"]) -> Bool[Tensor, "response token"]:
    return mask & (mask.long().flip(1).cumsum(1).flip(1) == 1)


def generalised_advantages(
    rewards: Float[Tensor, "response token"],
    values: Float[Tensor, "response token"],
    mask: Bool[Tensor, "response token"],
    *,
    gamma: float,
    lam: float,
) -> Float[Tensor, "response token"]:
    r"""``A_t = sum_{k >= 0} (gamma lam)^k delta_{t+k}``, the TD error ``delta`` of each token.

    ``delta_t = r_t + gamma V_{t+1} - V_t``, with value 0 after the last token. With ``lam = 1`` it
    is the discounted reward to go minus ``V_t``; with ``lam = 0`` the TD error. Advantages plus
    values are the targets of the critic.

    Args:
        rewards: of each token (no grad).
        values: of the state *before* each token (no grad).
        mask: tokens of the responses, contiguous; results elsewhere are 0.
        gamma: discount per token, in [0, 1].
        lam: decay of the trace, in [0, 1]; below 1 an imperfect critic biases the gradient.
    """
    rewards, values = rewards.masked_fill(~mask, 0.0), values.masked_fill(~mask, 0.0)
    running = torch.zeros_like(rewards[:, 0])
    after = torch.zeros_like(running)
    advantages = []
    for t in reversed(range(rewards.shape[1])):
        # On padding all of it is 0, so nothing comes after an episode's last token.
        running = rewards[:, t] + gamma * after - values[:, t] + gamma * lam * running
        after = values[:, t]
        advantages.append(running)
    return torch.stack(advantages[::-1], dim=1).masked_fill(~mask, 0.0)


def clipped_value_loss(
    values: Float[Tensor, "response token"],
    old_values: Float[Tensor, "response token"],
    targets: Float[Tensor, "response token"],
    *,
    cliprange: float,
) -> Float[Tensor, "response token"]:
    """``1/2 max((V - R)^2, (clip(V, V_old +- cliprange) - R)^2)``, unreduced.

    The gradient is zero once a value has left the range towards its target.

    Args:
        values: of the critic (grad).
        old_values: at the time of playing (no grad).
        targets: advantage plus old value (no grad).
        cliprange: in units of reward; ``inf`` for none.
    """
    near = old_values + (values - old_values).clamp(-cliprange, cliprange)
    return 0.5 * torch.maximum((values - targets) ** 2, (near - targets) ** 2)


def masked_whiten(x: Float[Tensor, "*shape"], mask: Bool[Tensor, "*shape"]) -> Tensor:
    """Mean 0 and variance 1 over the mask; 0 elsewhere.

    Where fewer than two entries are marked, or none differ, there is no scale: only the mean is
    taken off.
    """
    chosen = x[mask]
    if chosen.numel() == 0:
        return torch.zeros_like(x)
    mean = chosen.mean()
    spread = (chosen - mean).square().mean().sqrt()
    scale = spread if bool(spread > 1e-8) else torch.ones_like(spread)
    return ((x - mean) / scale).masked_fill(~mask, 0.0)


def masked_sum(
    x: Float[Tensor, "response token"], mask: Bool[Tensor, "response token"]
) -> Float[Tensor, " response"]:
    """Sum over a response's tokens."""
    return x.masked_fill(~mask, 0.0).sum(dim=1)
