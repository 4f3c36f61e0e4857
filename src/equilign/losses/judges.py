r"""Losses of judges learned from pairwise preferences: cross-entropy with soft labels.

Every judge has a margin, the logit of Pr(a beats b), and a label: the probability that people
preferred ``a`` (0 or 1 for one plain verdict, between them for several annotators or a graded
answer, 1/2 for a tie). The kinds differ in the margin alone:

| kind | margin |
|---|---|
| reward (Bradley & Terry 1952, Biometrika 39:324) | ``r(a) - r(b)`` |
| pairwise (Jiang et al. 2023, arXiv:2306.02561) | ``s(a, b)``, and ``-s(b, a)``, one loss each |
| general (Zhang et al. 2024, arXiv:2410.02197) | ``v(a)^T R v(b)``, see `skew_margin` |
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import softplus


def preference_loss(
    margin: Float[Tensor, " pair"], win_prob: Float[Tensor, " pair"]
) -> Float[Tensor, " pair"]:
    r"""``-p log sigmoid(m) - (1 - p) log sigmoid(-m)``, nats per pair, unreduced.

    Its minimum over ``m`` is the entropy of the label, at ``m = logit(p)``; finite for every
    finite margin.

    Args:
        margin: logit of Pr(a beats b) (grad).
        win_prob: the label, in [0, 1] (no grad).
    """
    return softplus(margin) - win_prob * margin


def both_orders_loss(
    forward: Float[Tensor, " pair"],
    backward: Float[Tensor, " pair"],
    win_prob: Float[Tensor, " pair"],
) -> Float[Tensor, " pair"]:
    """Mean of the two orders' losses, nats per pair: a judge of pairs sees each pair both ways.

    Args:
        forward: ``s(a, b)``, logit that the answer shown first is better (grad).
        backward: ``s(b, a)`` (grad).
        win_prob: Pr(a beats b), in [0, 1] (no grad).
    """
    return (preference_loss(forward, win_prob) + preference_loss(backward, 1.0 - win_prob)) / 2.0


def skew_margin(
    first: Float[Tensor, "pair dim"], second: Float[Tensor, "pair dim"]
) -> Float[Tensor, " pair"]:
    """``v_a^T R v_b`` with ``R`` of blocks ``[[0, -1], [1, 0]]``; exchanging them negates it.

    Args:
        first: embedding of a, an even number of coordinates (grad).
        second: of b (grad).
    """
    return (first[:, 1::2] * second[:, 0::2] - first[:, 0::2] * second[:, 1::2]).sum(dim=1)
