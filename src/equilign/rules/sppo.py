"""Self-play preference optimisation (Wu et al. 2024, arXiv:2405.00675)."""

from equilign.rules.mirror import MirrorRule, MirrorStage, Slot

SPPO = MirrorRule(
    name="sppo",
    title="SPPO",
    paper="arXiv:2405.00675",
    converges_to="the von Neumann winner, on average over the rounds",
    stages=(
        # pi_{t+1} proportional to pi_t * exp(eta * P(y beats pi_t)).
        MirrorStage(
            anchor=lambda step: {Slot.CURRENT: 1.0},
            payoff=lambda step: {Slot.CURRENT: 1.0},
        ),
    ),
)
