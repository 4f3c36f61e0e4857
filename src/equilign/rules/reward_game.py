"""Rules of the game between a language model and the reward model that is fitted to it.

The reward model's data are pairs of the policy's own answers, so the two move together: a
general-sum Stackelberg game (STA-RLHF). A rule says who moves first, how often, on whose samples,
and whether the policy's gradient looks through the fit.
"""

from dataclasses import dataclass, replace
from enum import StrEnum


class Player(StrEnum):
    """Who leads: the other one takes the inner steps."""

    POLICY = "policy"
    REWARD = "reward"


@dataclass(frozen=True)
class RewardGameRule:
    """One round: inner steps of the player that follows, then one step of the one that leads.

    Attributes:
        name: as on the command line.
        title: as in prose.
        paper: where it is from.
        converges_to: what the theory promises, in a few words.
        leader: who takes the single outer step.
        inner_steps: of the follower; None for the option of the same name.
        total_derivative: whether the policy's gradient includes how the fitted reward responds.
        fresh: whether inner policy steps sample anew, rather than reuse the round's first batch.
        old_reward: whether the policy's step uses the reward from before the inner steps.
        refit: whether the reward is fitted every round, or once, before the first.
    """

    name: str
    title: str
    paper: str
    converges_to: str
    leader: Player = Player.POLICY
    inner_steps: int | None = None
    total_derivative: bool = False
    fresh: bool = True
    old_reward: bool = False
    refit: bool = True


_PAPER = "STA-RLHF"

STA_NAIVE = RewardGameRule(
    name="sta-naive",
    title="STA-RLHF, naive",
    paper=_PAPER,
    converges_to="a fixed point of fitting and improving",
)
STA_TOTAL = replace(
    STA_NAIVE,
    name="sta-total",
    title="STA-RLHF, total derivative",
    converges_to="a Stackelberg equilibrium between policy and reward",
    total_derivative=True,
)
SIMULTANEOUS = replace(
    STA_NAIVE,
    name="simultaneous",
    title="Simultaneous policy and reward",
    converges_to="no promise",
    inner_steps=1,
    old_reward=True,
)
REVERSED = replace(
    STA_NAIVE,
    name="reversed",
    title="Reversed: reward leads",
    converges_to="no promise",
    leader=Player.REWARD,
    fresh=False,
)
PARL = replace(
    REVERSED,
    name="parl",
    title="PARL",
    paper="arXiv:2308.02585",
    converges_to="a stationary point of the bilevel problem",
    fresh=True,
)
RLHF = replace(
    STA_NAIVE,
    name="rlhf",
    title="RLHF, reward fitted once",
    paper="arXiv:2203.02155",
    converges_to="the KL-regularised optimum of the Bradley-Terry reward",
    refit=False,
)
