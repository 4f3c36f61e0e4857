r"""Contrastive rules: learn from labelled pairs of answers, as data.

None of them plays a game. A round minimises one loss of the margin
``h = log(pi(y) / ref(y)) - log(pi(y') / ref(y'))`` over labelled pairs ``(y, y')``; a rule says
which loss, who draws the pairs, and whether the reference follows the policy. It is interpreted
exactly on a matrix (`equilign.play.contrastive`) and on sampled or given pairs of a language model
(`equilign.trainers.contrastive`).
"""

from dataclasses import dataclass, replace
from enum import StrEnum


class PairLoss(StrEnum):
    """What is minimised over labelled pairs, and so which policy the loss has its minimum at."""

    DPO = "dpo"
    """``-log sigmoid(beta h)``: ``ref * exp(score / beta)``, Bradley-Terry scores of the pairs."""
    IPO = "ipo"
    """``(h - 1 / (2 tau))^2``: ``ref * exp(win rate against who drew the pairs / tau)``."""


class Pairs(StrEnum):
    """Who draws both answers of a pair."""

    OFFLINE = "offline"
    """Somebody, once: a fixed data set."""
    ONLINE = "online"
    """The policy at the start of the round, anew every round."""


@dataclass(frozen=True)
class ContrastiveRule:
    """A baseline of the Nash family: it fits labelled pairs.

    Attributes:
        name: as on the command line.
        title: as in prose.
        paper: where it is from.
        converges_to: what the theory promises, in a few words.
        loss: of the margin, ``"dpo"`` or ``"ipo"``.
        pairs: ``"offline"`` (a fixed law of pairs) or ``"online"`` (fresh ones from the policy).
        moves_reference: whether the reference becomes the policy at the start of every round.
    """

    name: str
    title: str
    paper: str
    converges_to: str
    loss: PairLoss
    pairs: Pairs = Pairs.OFFLINE
    moves_reference: bool = False


DPO = ContrastiveRule(
    name="dpo",
    title="DPO",
    paper="arXiv:2305.18290",
    converges_to="the RLHF solution for the Bradley-Terry scores of its pairs",
    loss=PairLoss.DPO,
)
IPO = ContrastiveRule(
    name="ipo",
    title="IPO",
    paper="arXiv:2310.12036",
    converges_to="the regularised best response to the policy that drew its pairs",
    loss=PairLoss.IPO,
)

# pi_{t+1} proportional to pi_t * exp(score_t / beta): the reward's weight grows without end.
ITERATED_DPO = replace(
    DPO,
    name="iterated-dpo",
    title="Iterated DPO",
    paper="arXiv:2405.00675",
    converges_to="the favourite under Bradley-Terry; circles where preferences do",
    pairs=Pairs.ONLINE,
    moves_reference=True,
)

# pi_{t+1} proportional to pi_t * exp(p(.; pi_t) / tau): multiplicative weights with eta = 1 / tau.
ITERATED_IPO = replace(
    ITERATED_DPO,
    name="iterated-ipo",
    title="Iterated IPO",
    converges_to="the von Neumann winner, on average over the rounds, for large tau",
    loss=PairLoss.IPO,
)

ONLINE_DPO = replace(
    DPO,
    name="online-dpo",
    title="Online DPO",
    paper="arXiv:2402.04792",
    converges_to="the RLHF solution under Bradley-Terry; elsewhere its own fixed point, if any",
    pairs=Pairs.ONLINE,
)
