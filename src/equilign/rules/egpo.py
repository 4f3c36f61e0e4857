"""Extragradient preference optimisation (Zhou et al. 2025, arXiv:2503.08942)."""

from equilign.rules.mirror import MirrorRule, MirrorStage, Slot, against, pull

# Both stages start from pi_t and pull to the reference; the second answers the half point.
EGPO = MirrorRule(
    name="egpo",
    title="EGPO",
    paper="arXiv:2503.08942",
    converges_to="the KL-regularised Nash equilibrium, last iterate, linear rate at constant eta",
    stages=(
        MirrorStage(anchor=pull, payoff=against(Slot.CURRENT), writes=Slot.HALF),
        MirrorStage(anchor=pull, payoff=against(Slot.HALF)),
    ),
)
