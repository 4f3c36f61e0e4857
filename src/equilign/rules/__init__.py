"""The algorithms: one equation each, shared by both halves. No torch here."""

from equilign.rules.mirror import MirrorRule, MirrorStage, Slot, Step
from equilign.rules.sppo import SPPO

MIRROR_RULES: dict[str, MirrorRule] = {rule.name: rule for rule in (SPPO,)}
"""Every rule by name: the one list that the command line, the trainers and the tests read."""

__all__ = ["MIRROR_RULES", "SPPO", "MirrorRule", "MirrorStage", "Slot", "Step"]
