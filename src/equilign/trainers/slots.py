"""Which policies a mirror rule needs besides the model, and when they move."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial

from equilign.rules import Closing, MirrorRule, MirrorStage, Slot, Step
from equilign.trainers.references import References

_MADE = (Slot.MIXTURE,)  # not stored: sampled from those that it mixes


@dataclass(frozen=True)
class StagePlan:
    """A rule's stages laid out over rounds: one round trains one stage.

    Attributes:
        rule: the algorithm.
        step: its hyperparameters.
    """

    rule: MirrorRule
    step: Step

    def at(self, index: int) -> tuple[int, int]:
        """Number of the step and of the stage within it, of round ``index`` (all from 0)."""
        return divmod(index, len(self.rule.stages))

    def stage(self, index: int) -> MirrorStage:
        """What round ``index`` trains."""
        return self.rule.stages[self.at(index)[1]]

    def anchors(self, index: int) -> frozenset[Slot]:
        """Anchors with a weight in round ``index``."""
        weights = self.stage(index).anchor(self.step)
        return frozenset(slot for slot, w in weights.items() if w != 0.0)

    def opponents(self, index: int) -> frozenset[Slot]:
        """Opponents with a weight in round ``index``."""
        weights = self.stage(index).payoff(self.step)
        return frozenset(slot for slot, w in weights.items() if w != 0.0)

    def stored(self) -> frozenset[Slot]:
        """Slots whose weights are kept beside the model, the reference always among them."""
        anchors, opponents = self.rule.slots(self.step)
        needed = set(anchors | opponents | {Slot.REFERENCE}) - set(_MADE)
        # With one stage that begins there and no memory, the model itself is the current policy.
        begins = self.begins_at(0) == Slot.CURRENT
        if len(self.rule.stages) == 1 and begins and Slot.PREVIOUS not in needed:
            needed.discard(Slot.CURRENT)
        else:
            needed.add(Slot.CURRENT)
        return frozenset(needed)

    def begins_at(self, index: int) -> Slot:
        """Where training starts: the anchor with the largest weight, the current one of equals.

        The target does not depend on it; it is the nearest point that is known. A gradient is taken
        where the policy is.
        """
        if self.rule.closing == Closing.GRADIENT:
            return Slot.CURRENT
        weights = self.stage(index).anchor(self.step)
        return max(weights, key=lambda slot: (weights[slot], slot == Slot.CURRENT))


class Slots:
    """The policies of a run by slot, kept in `References`."""

    def __init__(self, plan: StagePlan, references: References) -> None:
        self.plan = plan
        self.references = references

    def start_round(self, index: int) -> None:
        """Move the slots and put the model where round ``index`` starts; once per round."""
        step, stage = self.plan.at(index)
        stored = self.plan.stored()
        if index == 0:
            self.references.take(Slot.REFERENCE)
            for slot in stored - {Slot.REFERENCE, Slot.HALF}:
                self.references.copy(Slot.REFERENCE, slot)
        elif stage > 0:
            self.references.take(self.plan.stage(index - 1).writes)
        else:
            if Slot.PREVIOUS in stored:
                self.references.copy(Slot.CURRENT, Slot.PREVIOUS)
            if Slot.CURRENT in stored:
                self.references.take(Slot.CURRENT)
            if self.plan.rule.moves_reference and step % self.plan.step.inner_steps == 0:
                self.references.take(Slot.REFERENCE)
        begin = self.plan.begins_at(index)
        if begin in stored and (stage > 0 or begin != Slot.CURRENT):
            self.references.put(begin)

    def playing(self, slot: Slot) -> AbstractContextManager[None]:
        """Within, the model is the policy of ``slot``."""
        return self.references.playing(slot) if slot in self.references else nullcontext()

    def mixture(self, index: int) -> list[tuple[float, Callable[[], AbstractContextManager[None]]]]:
        """The parts of round ``index``'s geometric mixture; empty where there is none."""
        weights = self.plan.stage(index).mixture
        if weights is None:
            return []
        return [
            (w, partial(self.playing, slot))
            for slot, w in weights(self.plan.step).items()
            if w != 0.0
        ]
