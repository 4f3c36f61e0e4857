"""Rules of the sequential game: a Leader commits to an answer, a Follower sees it and replies."""

from dataclasses import dataclass

from equilign.rules.mirror import Closing


@dataclass(frozen=True)
class LeaderFollowerRule:
    """Simultaneous gradient steps of both players on the sequential game's payoff.

    The Leader ascends, each row of the Follower descends, ``kappa`` times as fast.

    Attributes:
        name: as on the command line.
        title: as in prose.
        paper: where it is from.
        converges_to: what the theory promises, in a few words.
        closing: ``NORMALISE`` (steps on logits) or ``PROJECT`` (on probabilities, projected).
    """

    name: str
    title: str
    paper: str
    converges_to: str
    closing: Closing


STACKELBERG_GDA = LeaderFollowerRule(
    name="stackelberg-gda",
    title="StackelbergGDA",
    paper="arXiv:2512.16626",
    converges_to="the Stackelberg equilibrium of the sequential game",
    closing=Closing.PROJECT,
)

STACKELBERG_MIRROR = LeaderFollowerRule(
    name="stackelberg-mirror",
    title="StackelbergGDA, mirror steps",
    paper="arXiv:2512.16626",
    converges_to="the Stackelberg equilibrium of the sequential game",
    closing=Closing.NORMALISE,
)

SLHF = LeaderFollowerRule(
    name="slhf",
    title="SLHF",
    paper="arXiv:2512.16626",
    converges_to="the Stackelberg equilibrium of the sequential game",
    closing=Closing.NORMALISE,
)
"""`STACKELBERG_MIRROR` on a matrix; the name that its language-model trainer goes by."""
