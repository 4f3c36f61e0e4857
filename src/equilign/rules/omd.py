"""Regularised mirror descent and the method of the same equation, online IPO."""

from dataclasses import replace

from equilign.rules.mirror import MirrorRule, MirrorStage, Slot, against, pull

# pi_{t+1} proportional to pi_t^(1 - eta beta) ref^(eta beta) exp(eta p_t).
OMD = MirrorRule(
    name="omd",
    title="OMD",
    paper="arXiv:2312.00886",
    converges_to="the KL-regularised Nash equilibrium, for eta small against beta",
    stages=(MirrorStage(anchor=pull, payoff=against(Slot.CURRENT)),),
)

# Squared error over pairs from a law that does not depend on the policy: the same step, with
# eta * beta = 4 * learning_rate / n on tabular logits and uniform pairs.
ONLINE_IPO_1 = replace(
    OMD, name="online-ipo-1", title="Online IPO (uniform pairs)", paper="arXiv:2403.08635"
)
