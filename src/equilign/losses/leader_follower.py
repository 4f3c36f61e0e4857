r"""Policy gradients of the sequential game on sampled responses (arXiv:2512.16626).

The Leader answers a prompt with ``y ~ pi``, the Follower sees it and replies ``z ~ omega(.|y)``.
The Leader maximises and the Follower minimises
``E[P(y > z) + beta_F KL(omega(.|y) || omega_ref)] - beta_L KL(pi || pi_ref)``. Each player's loss
acts on its own tokens only; everything else is a constant.
"""

from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from equilign.losses.policy_gradient import centred, leave_one_out

KLGradient = Literal["to_go", "own_token_k1", "own_token_k3"]
"""What a token's log-probability is multiplied with for the KL divergence's sake."""

Responses = Float[Tensor, "*context response"]


def kl_coefficients(
    logps: Float[Tensor, "response token"],
    ref_logps: Float[Tensor, "response token"],
    mask: Bool[Tensor, "response token"],
    *,
    kind: KLGradient,
) -> Float[Tensor, "response token"]:
    r"""Coefficients ``c_t`` (no grad) of ``sum_t c_t log pi_t``, whose gradient is that of a KL.

    ``to_go`` is ``c_t = sum_{s >= t} k1_s`` with ``k1 = log pi - log ref``: averaged over responses
    of the policy, the gradient of ``KL(pi || ref)`` on sequences, exactly. What came before a token
    is left out: its expectation is zero. The other two are what the authors' code does, and are
    biased. ``own_token_k1``, ``c_t = k1_t``, forgets what a token does to the divergence of later
    ones. ``own_token_k3``, ``c_t = e^-k1_t - 1 + k1_t``, also vanishes to first order near the
    reference.

    Args:
        logps: of the responses' tokens under the present policy, nats.
        ref_logps: of the same under the reference, nats.
        mask: tokens of the responses; 0 elsewhere.
        kind: which of the three.
    """
    k1 = (logps - ref_logps).detach().masked_fill(~mask, 0.0)
    if kind == "to_go":
        return k1.flip(1).cumsum(1).flip(1).masked_fill(~mask, 0.0)
    return k1 if kind == "own_token_k1" else torch.exp(-k1) - 1.0 + k1


def importance_weights(
    logps: Float[Tensor, " response"], old_logps: Float[Tensor, " response"], *, cap: float
) -> Float[Tensor, " response"]:
    """``min(pi(y) / pi_old(y), cap)`` of whole responses, without gradient.

    Args:
        logps: of whole responses under the present policy, nats.
        old_logps: under the policy that sampled them, nats.
        cap: the most that a response may count; ``inf`` for no bound (unbiased).
    """
    return (logps - old_logps).detach().exp().clamp(max=cap)


def player_loss(
    logps: Float[Tensor, "response token"],
    advantage: Float[Tensor, " response"],
    coefficients: Float[Tensor, "response token"],
    importance: Float[Tensor, " response"],
    *,
    beta: float,
) -> Float[Tensor, " response"]:
    r"""``rho sum_t (beta c_t - A) log pi_t``: its gradient is minus that of ``E[A] - beta KL``.

    Args:
        logps: of the player's own tokens, nats, 0 elsewhere (grad).
        advantage: what the response is worth to its player minus a baseline (no grad).
        coefficients: of `kl_coefficients` (no grad).
        importance: ``rho``, of `importance_weights` (no grad).
        beta: the player's KL weight, win probability per nat.
    """
    return importance * ((beta * coefficients - advantage[:, None]) * logps).sum(dim=1)


def leader_payoff(
    wins: Float[Tensor, "*context leader follower"],
    weights: Float[Tensor, "*context leader follower"],
    log_ratios: Float[Tensor, "*context leader follower"],
    *,
    beta_follower: float,
) -> Float[Tensor, "*context leader"]:
    """``E_z[P(y > z) + beta_F log(omega / omega_ref)(z | y)]`` over the judged replies.

    Args:
        wins: win probabilities of leader answers over the replies; ``nan``: no verdict.
        weights: of the replies to an answer, rows sum to 1.
        log_ratios: of the replies, Follower to its reference, nats.
        beta_follower: 0 leaves the Follower's KL out of the Leader's payoff.

    Returns:
        ``nan`` for an answer without a judged reply.
    """
    judged = ~wins.isnan()
    law = weights.masked_fill(~judged, 0.0)
    worth = wins.nan_to_num(nan=0.0) + beta_follower * log_ratios
    # No judged reply: 0 / 0 is nan, no verdict.
    return (law * worth).sum(dim=-1) / law.sum(dim=-1)


def sampled_advantages(reward: Responses, *, fallback: float) -> Responses:
    """``r_i`` minus the mean of others that say nothing of ``y_i``: leave-one-out.

    The others are those of the same context; where there is none, all others of the batch; where
    there is none either, the constant ``fallback``. Each is independent of ``y_i`` given its
    context, so the gradient is unbiased.

    Args:
        reward: of each response, ``nan``: no verdict, which stays and is nobody's baseline.
        fallback: a reward.
    """
    within = leave_one_out(reward.reshape(-1, reward.shape[-1])).view_as(reward)
    anywhere = leave_one_out(reward.reshape(1, -1)).view_as(reward)
    result = torch.where(within.isnan(), anywhere, within)
    return torch.where(result.isnan(), reward - fallback, result)


def listed_advantages(reward: Responses, weights: Responses) -> Responses:
    """``r_i`` minus the expectation in its context, where all responses are listed.

    Args:
        reward: of each response; ``nan`` stays.
        weights: probability of each, sum to 1 within a context.
    """
    size = reward.shape[-1]
    return centred(reward.reshape(-1, size), weights.reshape(-1, size)).view_as(reward)
