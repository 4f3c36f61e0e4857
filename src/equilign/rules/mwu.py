"""Multiplicative weights (Freund & Schapire 1999): self-play in the entropy geometry."""

from equilign.rules.mirror import MirrorRule, MirrorStage, Slot, against, stay

MWU = MirrorRule(
    name="mwu",
    title="MWU",
    paper="doi:10.1006/game.1999.0738",
    converges_to="the von Neumann winner, on average; the last iterate cycles outwards",
    stages=(
        # pi_{t+1} proportional to pi_t * exp(eta * P(y beats pi_t)).
        MirrorStage(anchor=stay, payoff=against(Slot.CURRENT)),
    ),
)
