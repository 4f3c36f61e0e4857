"""Policy gradients on logits: mirror rules whose step goes through the softmax Jacobian.

``theta += eta * (diag(pi) - pi pi^T) (P q - beta log(pi / ref))``, with opponent ``q``.
"""

from dataclasses import replace

from equilign.rules.mirror import Closing, MirrorRule, MirrorStage, Slot, against, pull
from equilign.rules.omd import OMD

SELF_PLAY_PG = replace(
    OMD,
    name="self-play-pg",
    title="Self-play policy gradient",
    paper="arXiv:2312.00886",
    converges_to="the KL-regularised Nash equilibrium, slowly near the boundary",
    closing=Closing.GRADIENT,
)

# Squared error over pairs drawn from the policy itself: self-play's gradient times 4 / beta, so
# eta = 4 * learning_rate / beta.
ONLINE_IPO_2 = replace(
    SELF_PLAY_PG,
    name="online-ipo-2",
    title="Online IPO (own pairs)",
    paper="arXiv:2403.08635",
)

NASH_MD_PG = MirrorRule(
    name="nash-md-pg",
    title="Nash-MD-PG",
    paper="arXiv:2312.00886",
    converges_to="the equilibrium against the mixture, biased for mixture > 0",
    stages=(
        MirrorStage(
            anchor=pull,
            payoff=against(Slot.MIXTURE),
            mixture=lambda step: {
                Slot.CURRENT: 1.0 - step.mixture,
                Slot.REFERENCE: step.mixture,
            },
        ),
    ),
    closing=Closing.GRADIENT,
)
