r"""Losses of labelled pairs: DPO's, and the log-ratios that it and IPO take.

Both compare two answers to a prompt by the *margin*
``h = log(pi(y) / ref(y)) - log(pi(y') / ref(y'))``, which needs no normaliser. IPO's loss is
`equilign.losses.pairs.labelled_pair_loss` with ``eta = 1 / tau``.
"""

from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid


def log_ratios(
    logps: Float[Tensor, " batch"],
    ref_logps: Float[Tensor, " batch"],
    tokens: Float[Tensor, " batch"] | None = None,
) -> Float[Tensor, " batch"]:
    """``log(pi(y) / ref(y))`` of whole answers, nats; or its mean per token.

    The sum is what the equations of DPO and IPO mean: the probability of an answer. The mean
    (``tokens`` given) is what TRL's ``ipo`` and ``sigmoid_norm`` use; the same ``beta`` then asks
    for a margin *per token*, many times as large for a whole answer, and no closed form of the
    solution holds.

    Args:
        logps: under the policy being trained, summed over tokens, nats (grad).
        ref_logps: under the reference (no grad).
        tokens: the answers' lengths in tokens, end token included, to divide by; None for sums.
    """
    ratio = logps - ref_logps
    return ratio if tokens is None else ratio / tokens


def dpo_loss(
    margin: Float[Tensor, "*batch"],
    win_prob: Float[Tensor, "*batch"],
    *,
    beta: float,
    label_smoothing: float = 0.0,
) -> Float[Tensor, "*batch"]:
    r"""``- p log sigmoid(beta h) - (1 - p) log sigmoid(-beta h)``, unreduced.

    Rafailov et al. 2023 (arXiv:2305.18290), Eq. 7, with a label ``p`` that may be a probability.
    Its minimum over one margin is at ``h = logit(p) / beta``. Finite for every finite margin.

    Args:
        margin: ``h``, the difference of the log-ratios of the first and the second answer, nats
            (grad).
        win_prob: Pr(the first beats the second), or a 0/1 label (no grad).
        beta: KL weight of the implied reward ``beta * log-ratio``, reward nats per nat.
        label_smoothing: probability that a label is flipped, in [0, 1/2): ``p`` becomes
            ``(1 - e) p + e (1 - p)`` (conservative DPO).
    """
    prob = win_prob + label_smoothing * (1.0 - 2.0 * win_prob)
    scaled = beta * margin
    return -prob * logsigmoid(scaled) - (1.0 - prob) * logsigmoid(-scaled)
