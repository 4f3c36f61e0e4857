r"""A mirror rule on sampled responses: regression of the log-ratio on the estimated payoff.

The exact step is ``log pi_{t+1}(y) = anchor(y) + eta * payoff(y) - log Z``. Given responses with
their anchor log-probabilities and estimated payoffs, the squared error of that equation is
minimised (Wu et al. 2024, arXiv:2405.00675).
"""

from typing import Literal

import torch
from jaxtyping import Float
from torch import Tensor

Normaliser = Literal["estimated", "paper"]


def log_normaliser(
    payoff: Float[Tensor, "prompt response"],
    weights: Float[Tensor, "prompt response"],
    *,
    eta: float,
    kind: Normaliser,
) -> Float[Tensor, "prompt 1"]:
    r"""``log Z`` of the mirror step, one value per prompt, in nats.

    ``estimated`` is ``log sum_i w_i exp(eta * payoff_i)``: exact when ``weights`` are the
    anchor's probabilities of all responses, the plug-in estimate when the responses are samples
    of the anchor and the weights ``1/K``. ``paper`` is SPPO's constant ``eta / 2`` (valid where
    the payoff weights sum to 1): ``eta`` times the mean payoff, a lower bound of ``log Z``.

    Args:
        payoff: win probabilities in [0, 1], combined over opponents.
        weights: non-negative, each row sums to 1.
        eta: mirror step, nats per unit of win probability.
        kind: which of the two.
    """
    if kind == "paper":
        return torch.full_like(payoff[:, :1], eta / 2.0)
    return torch.logsumexp(eta * payoff + weights.log(), dim=1, keepdim=True)


def mirror_residual(
    logps: Float[Tensor, "prompt response"],
    anchor_logps: Float[Tensor, "prompt response"],
    payoff: Float[Tensor, "prompt response"],
    *,
    eta: float,
) -> Float[Tensor, "prompt response"]:
    """``u(y) = log pi(y) - anchor(y) - eta * payoff(y)``, nats: what the exact step makes constant.

    The constant is ``-log Z``. The losses differ in how they get rid of it:
    `mirror_regression_loss` adds a normaliser, those of `equilign.losses.pairs` take differences.

    Args:
        logps: log-probabilities under the policy being trained, nats (grad).
        anchor_logps: ``sum_k a_k log q_k`` of the same responses (no grad).
        payoff: ``sum_m b_m Pr(response beats q_m)`` (no grad).
        eta: mirror step, nats per unit of win probability.
    """
    return logps - anchor_logps - eta * payoff


def mirror_regression_loss(
    logps: Float[Tensor, "prompt response"],
    anchor_logps: Float[Tensor, "prompt response"],
    payoff: Float[Tensor, "prompt response"],
    normaliser: Float[Tensor, "prompt 1"],
    *,
    eta: float,
) -> Float[Tensor, "prompt response"]:
    """Per-response squared residual of the mirror step, unreduced.

    Args:
        logps: sequence log-probabilities under the policy being trained, nats (grad).
        anchor_logps: ``sum_k a_k log q_k`` of the same sequences (no grad).
        payoff: ``sum_m b_m Pr(response beats q_m)`` (no grad).
        normaliser: ``log Z`` per prompt, nats.
        eta: mirror step, nats per unit of win probability; ``1 / beta`` of the SPPO release,
            whose loss is half of this one.
    """
    return (mirror_residual(logps, anchor_logps, payoff, eta=eta) + normaliser) ** 2
