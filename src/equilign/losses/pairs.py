r"""Losses of a mirror rule that need no normaliser: squared differences between two responses.

The exact step makes ``u(y) = log pi(y) - anchor(y) - eta * payoff(y)`` the same for every response
(`equilign.losses.mirror.mirror_residual`). Its differences cancel ``log Z``, whatever that is. What
a gradient step does depends on the law of the pairs, with ``J = diag(pi) - pi pi^T`` for logits:

| law of the pair | gradient of the sum over ordered pairs |
|---|---|
| uniform over N responses | ``(4 / N) (u - mean u)``: linear in the logits, blind to ``pi`` |
| the policy itself, held constant | ``4 grad KL(pi || target) = 4 J u``, small where ``pi`` is |

So gradient descent on uniform pairs with step ``N / 4`` *is* the exact mirror step on logits
(the loss of EGPO's simulations, Zhou et al. 2025, arXiv:2503.08942, at our scale), and on the
policy's own pairs it is a policy gradient (Calandriello et al. 2024, arXiv:2403.08635).
"""

from jaxtyping import Float
from torch import Tensor


def pair_loss(
    residual: Float[Tensor, "prompt response"], weights: Float[Tensor, "prompt response"]
) -> Float[Tensor, " prompt"]:
    r"""``sum_ij w_i w_j (u_i - u_j)^2`` over all ordered pairs of two independent draws.

    Computed as twice the weighted variance of ``u``: linear in the number of responses.

    Args:
        residual: ``u``, nats (grad); see `equilign.losses.mirror.mirror_residual`.
        weights: the law of one response: non-negative, each row sums to 1 (no grad). ``1/N`` on
            all responses for uniform pairs, ``1/K`` on K samples, the policy's own
            probabilities for the second row of the table above.

    Returns:
        Loss per prompt, nats squared.
    """
    mean = (weights * residual).sum(dim=1, keepdim=True)
    return 2.0 * (weights * (residual - mean) ** 2).sum(dim=1)


def sampled_pair_loss(
    first: Float[Tensor, "prompt pair"], second: Float[Tensor, "prompt pair"]
) -> Float[Tensor, "prompt pair"]:
    r"""``(u(y) - u(y'))^2`` of sampled pairs, unreduced.

    With payoffs that are unbiased estimates the *gradient* is unbiased; the value is too large by
    the variance of the target. The two payoffs of a pair may share their opponents' draws.

    Args:
        first: residuals of the first responses, nats (grad).
        second: residuals of the second ones, nats (grad).
    """
    return (first - second) ** 2


def labelled_pair_loss(
    margin: Float[Tensor, "prompt pair"], win_prob: Float[Tensor, "prompt pair"], *, eta: float
) -> Float[Tensor, "prompt pair"]:
    r"""IPO's and INPO's loss: ``p (h - eta/2)^2 + (1 - p) (h + eta/2)^2``, unreduced.

    The pair judges itself: with ``y, y'`` drawn independently from one law ``mu``, the minimiser
    is the mirror step with payoff ``Pr(y beats mu)``, and nothing else need be sampled. With any
    other law of the pairs (best and worst of K, say) it is not. A hard label is ``p`` in {0, 1}.
    For a probability it equals ``(h - eta (p - 1/2))^2 + eta^2 p (1 - p)``.

    INPO (arXiv:2407.00617): the anchor is the old policy pulled to the reference, our ``eta`` is
    the inverse of its eta. IPO (arXiv:2310.12036): the anchor is the reference, ``eta = 1 / tau``.

    Args:
        margin: ``h``, the difference of ``log pi - anchor`` between the first and the second
            response, nats (grad).
        win_prob: Pr(the first beats the second), or a 0/1 label (no grad).
        eta: nats per unit of win probability.
    """
    target = eta / 2.0
    return win_prob * (margin - target) ** 2 + (1.0 - win_prob) * (margin + target) ** 2


def kl_to_step(
    logps: Float[Tensor, "prompt response"], residual: Float[Tensor, "prompt response"]
) -> Float[Tensor, " prompt"]:
    r"""``KL(pi || next policy) - log Z``: the expected residual, for policies listed in full.

    Its gradient is that of the KL divergence, ``J u``: the policy gradient of the mirror step.

    Args:
        logps: log-probabilities of *all* responses, nats (grad).
        residual: ``u`` of the same responses, nats (grad).

    Returns:
        Nats per prompt; bounded below by ``-log Z``.
    """
    return (logps.exp() * residual).sum(dim=1)
