"""The methods that are compared, with the hyperparameters that are tried for each."""

from dataclasses import dataclass, replace

from equilign.rules import MIRROR_RULES, MirrorRule, Slot, Step


@dataclass(frozen=True)
class Contestant:
    """One method with one KL weight.

    Attributes:
        method: key; contestants of one method compete for the same row.
        title: as in prose.
        rule: name in `MIRROR_RULES`.
        beta: KL weight of the rule's pull, win probability per nat.
        iterate: ``last`` or ``average``: which policy is judged, and chosen for.
        inner: steps between two moves of the reference, for nested loops.
        kind: ``unregularised``, ``regularised`` or ``nested``.
        paper: whether the OMWU paper compares with it (a method of that kind).
    """

    method: str
    title: str
    rule: str
    beta: float = 0.0
    iterate: str = "last"
    inner: int = 10
    kind: str = "unregularised"
    paper: bool = True

    @property
    def key(self) -> str:
        """Unique name."""
        return self.method if self.beta == 0.0 else f"{self.method}:{self.beta:g}"

    @property
    def mirror_rule(self) -> MirrorRule:
        """The rule itself."""
        return MIRROR_RULES[self.rule]

    def calls_per_step(self, eta: float) -> int:
        """Oracle calls, see `calls_per_step`."""
        return calls_per_step(self.mirror_rule, Step(eta, self.beta, inner_steps=self.inner))


def calls_per_step(rule: MirrorRule, step: Step) -> int:
    """How many policies a step of the rule has judged: vectors ``P q`` that were not known yet.

    The previous policy was judged a step ago if the current one always is; a half point, a
    mixture and a second sequence are new at every step; the reference is known.
    """
    opponents = rule.slots(step)[1]
    known = {Slot.REFERENCE, Slot.PREVIOUS}
    if Slot.PREVIOUS in opponents and Slot.CURRENT not in opponents:
        known.remove(Slot.PREVIOUS)
    return max(1, len(opponents - known))


REGULARISED_BETAS = (0.1, 0.01, 0.001, 0.0001)
NESTED_BETAS = (0.3, 0.1, 0.03)


def _with(base: Contestant, betas: tuple[float, ...]) -> tuple[Contestant, ...]:
    return tuple(replace(base, beta=beta) for beta in betas)


CONTESTANTS: tuple[Contestant, ...] = (
    Contestant("omwu", "OMWU", "omwu"),
    Contestant("omwu-average", "OMWU, average", "omwu", iterate="average"),
    Contestant("omwu-extragradient", "OMWU, extragradient", "omwu-extragradient", paper=False),
    Contestant("mwu", "MWU = SPPO", "mwu"),
    Contestant("mwu-average", "MWU = SPPO, average", "mwu", iterate="average"),
    *_with(Contestant("omd", "OMD", "omd", kind="regularised"), REGULARISED_BETAS),
    *_with(
        Contestant("omd-average", "OMD, average", "omd", iterate="average", kind="regularised"),
        REGULARISED_BETAS,
    ),
    *_with(Contestant("nash-md", "Nash-MD", "nash-md", kind="regularised"), REGULARISED_BETAS),
    *_with(Contestant("egpo", "EGPO", "egpo", kind="regularised"), REGULARISED_BETAS),
    *_with(Contestant("mpo", "MPO, 10 inner steps", "mpo", kind="nested"), NESTED_BETAS),
    *_with(Contestant("comal", "COMAL, 10 inner steps", "comal", kind="nested"), NESTED_BETAS),
    Contestant("ogda", "OGDA", "ogda", paper=False),
)
"""Everything that is played on matrices. OGDA is not in the paper; it is here as a yardstick."""


def methods() -> tuple[str, ...]:
    """Keys of the methods, in order."""
    return tuple(dict.fromkeys(c.method for c in CONTESTANTS))
