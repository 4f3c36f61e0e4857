r"""Policy gradients on whole responses: REINFORCE (Williams 1992), and its leave-one-out form.

The KL divergence to the reference is part of the reward, one number per response: ``k1``, the
log-ratio summed over *all* tokens. As a coefficient of ``grad log pi`` it gives the gradient of
``KL(pi || ref)`` exactly. Weighting each token's gradient with that token's log-ratio alone does
not: it drops what a token does to the divergence of later ones. Neither does the estimator ``k3``
as a coefficient, whose gradient vanishes to first order near the reference.
"""

import torch
from jaxtyping import Float
from torch import Tensor


def reinforce_loss(
    logps: Float[Tensor, "prompt response"],
    advantage: Float[Tensor, "prompt response"],
    weights: Float[Tensor, "prompt response"],
) -> Float[Tensor, " prompt"]:
    r"""``- sum_i w_i (A_i - mean A) log pi(y_i)``: its gradient is minus that of ``E_pi[A]``.

    With every response listed and their probabilities as weights it is that gradient exactly,
    whatever the mean. With K independent samples and weights ``1 / K`` it is ``(K - 1) / K`` of
    it in expectation: subtracting the group's mean is subtracting the mean of the *other*
    responses, which is no bias (leave-one-out, Kool et al. 2019), at that scale.

    Args:
        logps: log-probabilities of responses drawn from the policy itself, nats (grad).
        advantage: what each is worth (no grad).
        weights: ``1 / K`` on samples, or the probabilities of all responses; rows sum to 1.
    """
    centred = advantage - (weights * advantage).sum(dim=1, keepdim=True)
    return -(weights * centred.detach() * logps).sum(dim=1)


def penalised_reward(
    reward: Float[Tensor, "*shape"],
    logps: Float[Tensor, "*shape"],
    ref_logps: Float[Tensor, "*shape"],
    *,
    beta: float,
) -> Float[Tensor, "*shape"]:
    """``r - beta * k1`` with ``k1 = log pi(y) - log ref(y)`` of the whole response.

    Args:
        reward: of each response; ``nan`` where there is no verdict, which stays.
        logps: of the whole response under the policy that sampled it, nats.
        ref_logps: of the same under the reference, nats.
        beta: KL weight, reward per nat.
    """
    return reward - beta * (logps - ref_logps)


def leave_one_out(reward: Float[Tensor, "prompt response"]) -> Float[Tensor, "prompt response"]:
    """``r_i`` minus the mean reward of the *other* responses to the prompt (Kool et al. 2019).

    The baseline does not depend on ``y_i``, so the gradient is unbiased for any number of
    samples. A response without a verdict (``nan``) is nobody's baseline and gets ``nan``, as does
    the only judged response of a group.
    """
    judged = ~reward.isnan()
    known = reward.nan_to_num(nan=0.0)
    others = judged.sum(dim=1, keepdim=True) - 1
    baseline = (known.sum(dim=1, keepdim=True) - known) / others.clamp(min=1)
    return (reward - baseline).masked_fill(others < 1, torch.nan)


def centred(
    reward: Float[Tensor, "prompt response"], weights: Float[Tensor, "prompt response"]
) -> Float[Tensor, "prompt response"]:
    """``r_i`` minus the weighted mean of the prompt's judged responses; ``nan`` stays.

    The baseline for responses that are listed in full with their probabilities: there the mean
    is the expectation, and no sample's own reward is in it by chance.
    """
    judged = ~reward.isnan()
    law = weights.masked_fill(~judged, 0.0)
    total = law.sum(dim=1, keepdim=True)
    mean = (law * reward.nan_to_num(nan=0.0)).sum(dim=1, keepdim=True) / total
    return reward - mean


def clipped_surrogate(
    log_ratio: Float[Tensor, "*shape"],
    advantage: Float[Tensor, "*shape"],
    *,
    low: float,
    high: float,
) -> Float[Tensor, "*shape"]:
    r"""``- min(rho A, clip(rho, 1 - low, 1 + high) A)``, unreduced (Schulman et al. 2017, Eq. 7).

    ``rho`` is the probability ratio of a whole response (RLOO) or of one token (PPO) between the
    policy and the one that sampled it. At ``rho = 1`` the gradient is ``-A grad log pi``. Beyond
    the bounds it is zero where the step would lead further out, and unchanged where it leads back.

    Args:
        log_ratio: ``log pi - log pi_old``, nats (grad).
        advantage: in units of reward (no grad); entries of exactly 0 give loss and gradient 0,
            whatever the ratio.
        low: how far below 1 the ratio counts; ``inf`` for no bound.
        high: how far above.
    """
    # An infinite ratio times zero would be nan, in the gradient too.
    ratio = log_ratio.masked_fill(advantage == 0.0, 0.0).exp()
    return -torch.minimum(ratio * advantage, ratio.clamp(1.0 - low, 1.0 + high) * advantage)


def clip_is_active(
    log_ratio: Float[Tensor, "*shape"],
    advantage: Float[Tensor, "*shape"],
    *,
    low: float,
    high: float,
) -> Float[Tensor, "*shape"]:
    """1 where `clipped_surrogate` has no gradient because of its bounds, else 0."""
    ratio = log_ratio.exp()
    out = ((ratio > 1.0 + high) & (advantage > 0.0)) | ((ratio < 1.0 - low) & (advantage < 0.0))
    return out.to(log_ratio.dtype)


def approx_kl(log_ratio: Float[Tensor, "*shape"]) -> Float[Tensor, "*shape"]:
    """``rho - 1 - log rho``: estimates ``KL(pi_old || pi)`` without bias, never negative, in nats.

    For reports only. Its gradient is not that of a KL divergence to be used as a penalty.

    Args:
        log_ratio: ``log pi - log pi_old`` of what ``pi_old`` sampled, nats.
    """
    return log_ratio.exp() - 1.0 - log_ratio
