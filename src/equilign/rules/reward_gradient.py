"""Policy gradients of a scalar reward: the baselines that the game methods are compared with.

All of them climb ``J(pi) = E_pi[r] - beta KL(pi || ref)``, whose maximum is
``ref exp(r / beta) / Z``. They differ in how they estimate the gradient. There is no second
player, hence no equilibrium and nothing to play on a matrix of preferences; the exact objective is
here for what the trainers are tested against.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from equilign.errors import ConfigError

Vector = Float[np.ndarray, " n"]


@dataclass(frozen=True)
class RewardRule:
    """A way to climb the KL-regularised reward.

    Attributes:
        name: as on the command line.
        title: as in prose.
        paper: where it is from.
        converges_to: what the theory promises, in a few words.
    """

    name: str
    title: str
    paper: str
    converges_to: str


_OPTIMUM = "the optimum of the KL-regularised reward"

REINFORCE = RewardRule(
    name="reinforce",
    title="REINFORCE",
    paper="doi:10.1007/BF00992696",
    converges_to=_OPTIMUM,
)

RLOO = RewardRule(
    name="rloo",
    title="RLOO (REINFORCE leave-one-out)",
    paper="arXiv:2402.14740",
    converges_to=_OPTIMUM,
)

PPO = RewardRule(
    name="ppo",
    title="PPO",
    paper="arXiv:1707.06347",
    converges_to=f"{_OPTIMUM}, biased for lam < 1",
)


def regularised_optimum(log_ref: Vector, reward: Vector, beta: float) -> Vector:
    """Log-probabilities of the policy with the largest ``E_pi[r] - beta KL(pi || ref)``, nats.

    Args:
        log_ref: log-probabilities of the reference, nats.
        reward: of each response.
        beta: KL weight, reward per nat.

    Raises:
        ConfigError: ``beta`` is not positive: the maximum would be a single response.
    """
    if not beta > 0.0:
        raise ConfigError(f"beta = {beta}; the optimum is a policy only for a positive KL weight")
    logits = log_ref + reward / beta
    highest = logits.max()
    return logits - (highest + np.log(np.exp(logits - highest).sum()))


def regularised_value(log_policy: Vector, log_ref: Vector, reward: Vector, beta: float) -> float:
    """``E_pi[r] - beta KL(pi || ref)``, in units of reward."""
    return float(np.exp(log_policy) @ (reward - beta * (log_policy - log_ref)))


def exact_reward_gradient(
    log_policy: Vector, log_ref: Vector, reward: Vector, beta: float
) -> Vector:
    """``(diag(pi) - pi pi^T)(r - beta log(pi / ref))``: `regularised_value`'s, in the logits.

    What REINFORCE, RLOO and PPO estimate, for a policy that is a table.
    """
    policy = np.exp(log_policy)
    worth = reward - beta * (log_policy - log_ref)
    return policy * (worth - policy @ worth)
