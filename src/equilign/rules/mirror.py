r"""Mirror rules: the Nash family's algorithms, written as data.

Every one of them is a sequence of stages

    log pi_{t+1} = sum_k a_k log q_k + eta * sum_m b_m P q_m - log Z

where the anchors ``q_k`` and the opponents ``q_m`` are *slots*. A rule only names the slots and
their weights. It is interpreted twice: exactly on a matrix (`equilign.play`), and by regression
on sampled responses of a language model (`equilign.losses.mirror` with `equilign.trainers`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum


class Slot(StrEnum):
    """A policy that a stage can use as an anchor or as an opponent."""

    CURRENT = "current"
    """The policy at the start of the step (of the round, for a language model)."""
    PREVIOUS = "previous"
    """The one before that."""
    REFERENCE = "reference"
    """The regularising policy."""


@dataclass(frozen=True)
class Step:
    """Hyperparameters of one step.

    Attributes:
        eta: mirror step, nats per unit of win probability.
        beta: KL weight towards the reference, win probability per nat.
    """

    eta: float
    beta: float = 0.0


Weights = Callable[[Step], Mapping[Slot, float]]


@dataclass(frozen=True)
class MirrorStage:
    """One application of the equation above.

    Attributes:
        anchor: the weights ``a_k``; they sum to 1, so that the result does not depend on how
            the anchors are normalised.
        payoff: the weights ``b_m``.
    """

    anchor: Weights
    payoff: Weights


@dataclass(frozen=True)
class MirrorRule:
    """An algorithm of the Nash family.

    Attributes:
        name: as on the command line.
        title: as in prose.
        paper: where it is from.
        converges_to: what the theory promises, in a few words.
        stages: applied in order within one step.
    """

    name: str
    title: str
    paper: str
    converges_to: str
    stages: tuple[MirrorStage, ...]

    def slots(self, step: Step) -> tuple[frozenset[Slot], frozenset[Slot]]:
        """The slots in use (non-zero weight): as anchors, and as opponents."""
        anchors = {s for st in self.stages for s, w in st.anchor(step).items() if w != 0.0}
        payoffs = {s for st in self.stages for s, w in st.payoff(step).items() if w != 0.0}
        return frozenset(anchors), frozenset(payoffs)
