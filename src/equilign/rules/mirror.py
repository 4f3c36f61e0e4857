r"""Mirror rules: the Nash family's algorithms, written as data.

Every one of them is a sequence of stages

    log q_new = sum_k a_k log q_k + eta * sum_m b_m P q_m - log Z

where the anchors ``q_k`` and the opponents ``q_m`` are *slots*. A rule only names the slots and
their weights, and how the right-hand side becomes a policy again. It is interpreted exactly on
a matrix (`equilign.play`), and by regression on sampled responses of a language model
(`equilign.losses.mirror` with `equilign.trainers`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from enum import StrEnum

from equilign.errors import ConfigError


class Slot(StrEnum):
    """A policy that a stage can use as an anchor or as an opponent."""

    CURRENT = "current"
    """The policy at the start of the step (of the round, for a language model)."""
    PREVIOUS = "previous"
    """The one before that; the start policy at first."""
    REFERENCE = "reference"
    """The regularising policy, also called the magnet."""
    BASE = "base"
    """A second sequence that the rule carries along; the start policy at first."""
    HALF = "half"
    """What an earlier stage of the same step wrote."""
    MIXTURE = "mixture"
    """The normalised geometric mixture that the stage defines."""


class Closing(StrEnum):
    """How the right-hand side of a stage becomes a policy."""

    NORMALISE = "normalise"
    """Divide by the exact Z: mirror descent in the entropy geometry."""
    PROJECT = "project"
    """Combine probabilities in place of their logarithms; project onto the simplex (Euclid)."""
    REGRESS = "regress"
    """Replace log Z by ``eta / 2`` times the payoff weights' sum; take the policy with the least
    squared error of the equation, weighted by the current policy."""
    GRADIENT = "gradient"
    """Move the logits by the change times the softmax Jacobian ``diag(pi) - pi pi^T`` of the
    current policy: policy gradient ascent on the logits."""


@dataclass(frozen=True)
class Step:
    """Hyperparameters of one step.

    Attributes:
        eta: mirror step, nats per unit of win probability.
        beta: KL weight towards the reference, win probability per nat.
        mixture: weight of the reference in the opponent of Nash-MD-PG, in [0, 1].
        inner_steps: steps between two moves of the reference, for rules that move it.
    """

    eta: float
    beta: float = 0.0
    mixture: float = 0.125
    inner_steps: int = 10


Weights = Callable[[Step], Mapping[Slot, float]]


def stay(step: Step) -> Mapping[Slot, float]:
    """Anchor: the current policy."""
    return {Slot.CURRENT: 1.0}


def pull(step: Step) -> Mapping[Slot, float]:
    """Anchor: the current policy, pulled to the reference by ``eta * beta``."""
    weight = step.eta * step.beta
    return {Slot.CURRENT: 1.0 - weight, Slot.REFERENCE: weight}


def against(slot: Slot) -> Weights:
    """Payoff: the win rate against one slot."""
    return lambda step: {slot: 1.0}


@dataclass(frozen=True)
class MirrorStage:
    """One application of the equation above.

    Attributes:
        anchor: the weights ``a_k``; they sum to 1, so that the result does not depend on how
            the anchors are normalised.
        payoff: the weights ``b_m``.
        writes: the slot that receives the result.
        mixture: weights of the geometric mixture that this stage may use as an opponent.
    """

    anchor: Weights
    payoff: Weights
    writes: Slot = Slot.CURRENT
    mixture: Weights | None = None


@dataclass(frozen=True)
class MirrorRule:
    """An algorithm of the Nash family.

    Attributes:
        name: as on the command line.
        title: as in prose.
        paper: where it is from.
        converges_to: what the theory promises, in a few words.
        stages: applied in order within one step. The last one writes ``CURRENT``; earlier ones
            write ``HALF`` or ``BASE``, so that ``CURRENT`` is what it was when the step began.
        closing: how each stage ends.
        moves_reference: whether the reference becomes the current policy every
            ``inner_steps`` steps.

    Raises:
        ConfigError: a stage writes what it must not.
    """

    name: str
    title: str
    paper: str
    converges_to: str
    stages: tuple[MirrorStage, ...]
    closing: Closing = Closing.NORMALISE
    moves_reference: bool = False

    def __post_init__(self) -> None:
        written = [stage.writes for stage in self.stages]
        if not written or written[-1] != Slot.CURRENT:
            raise ConfigError(f"{self.title}: the last stage must write {Slot.CURRENT!s}")
        if set(written[:-1]) - {Slot.HALF, Slot.BASE}:
            raise ConfigError(
                f"{self.title}: a stage before the last one must write {Slot.HALF!s} or "
                f"{Slot.BASE!s}"
            )

    def slots(self, step: Step) -> tuple[frozenset[Slot], frozenset[Slot]]:
        """The slots in use (non-zero weight): as anchors or in mixtures, and as opponents."""
        named = [st.anchor(step) for st in self.stages]
        named += [st.mixture(step) for st in self.stages if st.mixture is not None]
        anchors = {s for weights in named for s, w in weights.items() if w != 0.0}
        payoffs = {s for st in self.stages for s, w in st.payoff(step).items() if w != 0.0}
        return frozenset(anchors), frozenset(payoffs)
