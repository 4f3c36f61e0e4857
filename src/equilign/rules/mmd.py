"""Magnetic mirror descent (Sokota et al. 2023, arXiv:2206.05825; MPO's inner step)."""

from collections.abc import Mapping

from equilign.rules.mirror import MirrorRule, MirrorStage, Slot, Step


def _anchor(step: Step) -> Mapping[Slot, float]:
    pull = step.eta * step.beta
    return {Slot.CURRENT: 1.0 / (1.0 + pull), Slot.REFERENCE: pull / (1.0 + pull)}


# pi_{t+1} proportional to [pi_t * magnet^(eta beta) * exp(eta p_t)]^(1 / (1 + eta beta)).
MMD = MirrorRule(
    name="mmd",
    title="MMD",
    paper="arXiv:2206.05825",
    converges_to="the KL-regularised Nash equilibrium, last iterate, for eta of the order of beta",
    stages=(
        MirrorStage(
            anchor=_anchor,
            payoff=lambda step: {Slot.CURRENT: 1.0 / (1.0 + step.eta * step.beta)},
        ),
    ),
)
