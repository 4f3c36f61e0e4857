"""Duality gaps of a batch of policies, in float64."""

import numpy as np
from jaxtyping import Float

from equilign.games import PreferenceGame, duality_gap


class Measure:
    """Gaps of every game at one moment: of the last policy, of the average, and regularised."""

    def __init__(self, game: PreferenceGame, beta: float) -> None:
        self.plain = game.beta == 0.0
        self.game, self.beta = game, beta
        self.singles = [game[x] for x in range(len(game))] if game.is_batch else [game]
        self.regularised = [PreferenceGame(g.prefs, g.reference, beta) for g in self.singles]

    def __call__(
        self, policy: Float[np.ndarray, "x n"], average: Float[np.ndarray, "x n"], t: int
    ) -> Float[np.ndarray, "3 x"]:
        """Gap of the last and of the average policy (``t`` policies) and the regularised one."""
        policy = policy / policy.sum(axis=1, keepdims=True)
        mean = average / average.sum(axis=1, keepdims=True) if t else policy
        own = np.full(len(policy), np.nan)
        if self.beta > 0.0:
            pairs = zip(self.regularised, policy, strict=True)
            own = np.array([duality_gap(g, p) for g, p in pairs])
        return np.stack([self._gap(policy), self._gap(mean), own])

    def _gap(self, policies: Float[np.ndarray, "x n"]) -> Float[np.ndarray, " x"]:
        if not self.plain:
            return np.array(
                [duality_gap(g, p) for g, p in zip(self.singles, policies, strict=True)]
            )
        rows = policies if self.game.is_batch else policies[0]
        return np.atleast_1d(2.0 * np.maximum(self.game.win_rates(rows).max(axis=-1) - 0.5, 0.0))
