r"""REINFORCE on whole responses (Williams 1992), with the group's own baseline."""

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
