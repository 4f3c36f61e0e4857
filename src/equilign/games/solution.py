"""What `equilign.games.solve` returns."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float


@dataclass(frozen=True, eq=False)
class Solution:
    """A policy that a solution concept picks in a game, with its certificate.

    For a batch every number is an array with one entry per game.

    Attributes:
        concept: as asked for: ``nash``, ``stackelberg``, ...
        policy: shape ``(n,)`` or ``(X, n)``; a leader's policy for ``stackelberg``.
        value: what the first player gets, in win probability: 1/2 at a Nash equilibrium; the
            leader's guaranteed value (after its KL penalty) for ``stackelberg``; the worst case
            ``min_j Pr(policy beats j)`` for every other concept.
        gap: duality gap of ``policy`` in the game it was asked of, ``>= 0``, 0 at a Nash
            equilibrium; for ``stackelberg`` what both players could still gain by moving
            optimally in the sequential game. Measured on the answer, never assumed.
        unique: whether the concept has one answer in this game; where not, ``policy`` is the
            canonical choice that the concept's documentation names. None where it was not
            decided.
        status: ``optimal``, ``inaccurate`` (solved, but the gap is above 1e-9), ``not unique``
            (optimal, a canonical choice among several), ``none`` (the concept has no answer
            here, such as a Condorcet winner in a cycle; the policy is then all zeros).
        follower: answer to each leader action, rows on the simplex, shape ``(n, n)`` or
            ``(X, n, n)``; ``stackelberg`` only.
        labels: names of the responses.
        notes: plain sentences about choices that were made.
    """

    concept: str
    policy: Float[np.ndarray, "*batch n"]
    value: float | Float[np.ndarray, " x"]
    gap: float | Float[np.ndarray, " x"]
    unique: bool | Bool[np.ndarray, " x"] | None
    status: str
    labels: tuple[str, ...]
    follower: Float[np.ndarray, "*batch n n"] | None = None
    notes: tuple[str, ...] = ()

    def support(self, threshold: float = 1e-9) -> dict[str, float]:
        """Responses that are played with more than ``threshold``, most often first."""
        if self.policy.ndim != 1:
            raise IndexError("support() is of one game; index the batch first")
        order = np.argsort(-self.policy, kind="stable")
        return {self.labels[i]: float(self.policy[i]) for i in order if self.policy[i] > threshold}
