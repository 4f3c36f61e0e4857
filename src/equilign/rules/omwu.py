"""Optimistic multiplicative weights (Chen et al. 2025, arXiv:2512.24818), in its three forms.

The single-call form has a pull to the reference by ``eta * beta``. At ``beta = 0``, the paper's
algorithm, there is none; with ``beta > 0`` it solves the regularised game.
"""

from equilign.rules.mirror import MirrorRule, MirrorStage, Slot, against, pull, stay

_PAPER = "arXiv:2512.24818"
_LIMIT = "the unregularised Nash equilibrium, last iterate, linear rate"

# pi_{t+1} proportional to pi_t * exp(eta * (2 p_t - p_{t-1})), with p_{-1} = p_0: the first step
# is that of multiplicative weights.
OMWU = MirrorRule(
    name="omwu",
    title="OMWU",
    paper=_PAPER,
    converges_to=_LIMIT,
    stages=(
        MirrorStage(anchor=pull, payoff=lambda step: {Slot.CURRENT: 2.0, Slot.PREVIOUS: -1.0}),
    ),
)

# base_{t+1} proportional to base_t * exp(eta * p_t), pi_{t+1} proportional to base_{t+1} *
# exp(eta * p_t). Eliminating the base gives OMWU with p_{-1} = 0: the first step is doubled.
OMWU_TWO_SEQUENCE = MirrorRule(
    name="omwu-two-sequence",
    title="OMWU, two sequences",
    paper=_PAPER,
    converges_to=_LIMIT,
    stages=(
        MirrorStage(
            anchor=lambda step: {Slot.BASE: 1.0}, payoff=against(Slot.CURRENT), writes=Slot.BASE
        ),
        MirrorStage(anchor=lambda step: {Slot.BASE: 1.0}, payoff=against(Slot.CURRENT)),
    ),
)

# Two judgements per step: half way against the current policy, then again from the start against
# where that leads.
OMWU_EXTRAGRADIENT = MirrorRule(
    name="omwu-extragradient",
    title="OMWU, extragradient",
    paper=_PAPER,
    converges_to=_LIMIT,
    stages=(
        MirrorStage(anchor=stay, payoff=against(Slot.CURRENT), writes=Slot.HALF),
        MirrorStage(anchor=stay, payoff=against(Slot.HALF)),
    ),
)
