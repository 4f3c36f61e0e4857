"""What playing a rule leaves behind."""

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from equilign.errors import ConfigError
from equilign.games import PreferenceGame, Solution, solve


@dataclass(frozen=True, eq=False)
class Trajectory:
    """The run of one rule on one game or on a batch.

    Attributes:
        rule: its name.
        game: what was played; its ``beta`` is that of the gaps.
        steps: the recorded steps, shape ``(R,)``; step 0 is the start policy.
        duality_gap: of the last policy, in `game`, shape ``(R,)`` or ``(X, R)``; nan after a
            divergence.
        average_duality_gap: of the mean of the policies played before the recorded step, likewise.
        final_log_policy: nats, shape ``(n,)`` or ``(X, n)``.
        average_policy: mean of all policies played, shape ``(n,)`` or ``(X, n)``.
        status: ``done``; ``converged`` (the gap fell to the tolerance asked for); ``diverged`` (a
            number stopped being finite; the steps after it are not recorded).
        options: the hyperparameters in use.
        log_policies: at the recorded steps, ``(R, n)``; None for a batch.
        diverged_at: for a batch, the step at which each game diverged, or -1.
        extra: what only this kind of rule has, such as ``follower``.
    """

    rule: str
    game: PreferenceGame
    steps: Int[np.ndarray, " r"]
    duality_gap: Float[np.ndarray, "*batch r"]
    average_duality_gap: Float[np.ndarray, "*batch r"]
    final_log_policy: Float[np.ndarray, "*batch n"]
    average_policy: Float[np.ndarray, "*batch n"]
    status: str
    options: dict[str, Any]
    log_policies: Float[np.ndarray, "r n"] | None = None
    diverged_at: Int[np.ndarray, " x"] | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @property
    def final_policy(self) -> Float[np.ndarray, "*batch n"]:
        """The last policy; probabilities below 1e-308 read 0."""
        return np.exp(self.final_log_policy)

    @cached_property
    def equilibrium(self) -> Solution:
        """The exact Nash equilibrium of `game`."""
        return solve(self.game, "nash")

    def _policies(self) -> Float[np.ndarray, "r n"]:
        if self.log_policies is None:
            raise ConfigError("a batch keeps no policies; play one game of it: play(game[x], ...)")
        return self.log_policies

    def kl_from_equilibrium(self) -> Float[np.ndarray, " r"]:
        """``KL(equilibrium || policy)`` at the recorded steps, nats.

        Where the equilibrium is not unique, from the canonical one (`Solution.notes`).
        """
        best = np.asarray(self.equilibrium.policy)
        used = best > 0.0
        logs = self._policies()[:, used]
        return (best[used] * (np.log(best[used]) - logs)).sum(axis=1)

    def distance_to_equilibrium(self) -> Float[np.ndarray, " r"]:
        """Total variation from each recorded policy to the set of equilibria.

        One linear program per recorded step where the equilibrium is not unique.
        """
        policies = np.exp(self._policies())
        if self.equilibrium.unique or self.game.beta > 0.0:
            return np.abs(policies - self.equilibrium.policy).sum(axis=1) / 2.0
        slack = max(float(np.max(self.equilibrium.gap)), 1e-12)
        return np.array([_distance(self.game.margin, p, slack) for p in policies])


def _distance(
    margin: Float[np.ndarray, "n n"], policy: Float[np.ndarray, " n"], slack: float
) -> float:
    """Min over q with ``margin q <= slack`` of half the l1 distance to ``policy``."""
    from scipy.optimize import linprog  # a third of a second that few need

    n = policy.size
    eye = np.eye(n)
    # Variables q and the excess e >= policy - q; half the l1 distance is the sum of the excess.
    result = linprog(
        np.concatenate([np.zeros(n), np.ones(n)]),
        A_ub=np.block([[margin, np.zeros((n, n))], [-eye, -eye]]),
        b_ub=np.concatenate([np.full(n, slack), -policy]),
        A_eq=np.concatenate([np.ones(n), np.zeros(n)])[None],
        b_eq=[1.0],
        bounds=(0.0, None),
        method="highs",
    )
    return float(result.fun)
