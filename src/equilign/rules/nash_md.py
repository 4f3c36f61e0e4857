"""Nash mirror descent (Munos et al. 2024, arXiv:2312.00886, section 6)."""

from equilign.rules.mirror import MirrorRule, MirrorStage, Slot, against, pull

# m_t proportional to pi_t^(1 - eta beta) ref^(eta beta); pi_{t+1} proportional to m_t *
# exp(eta * P(y beats m_t)).
NASH_MD = MirrorRule(
    name="nash-md",
    title="Nash-MD",
    paper="arXiv:2312.00886",
    converges_to="the KL-regularised Nash equilibrium as eta falls; a biased point at constant eta",
    stages=(MirrorStage(anchor=pull, payoff=against(Slot.MIXTURE), mixture=pull),),
)
