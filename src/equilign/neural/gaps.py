"""Duality gaps of a batch of policies, in float64."""

import numpy as np
from jaxtyping import Bool, Float

from equilign.games import PreferenceGame, duality_gap


class Measure:
    """Gaps of every game at one moment: of the last policy, of the average, and regularised."""

    def __init__(self, game: PreferenceGame, beta: float) -> None:
        self.plain = game.beta == 0.0
        self.game, self.beta = game, beta
        self.singles = [game[x] for x in range(len(game))] if game.is_batch else [game]
        self.regularised = [PreferenceGame(g.prefs, g.reference, beta) for g in self.singles]

    def __call__(
        self,
        policy: Float[np.ndarray, "x n"],
        average: Float[np.ndarray, "x n"],
        t: int,
        alive: Bool[np.ndarray, " x"],
    ) -> Float[np.ndarray, "3 x"]:
        """Gaps of the last and of the average policy (``t`` of them), and the regularised one.

        Games that are not ``alive`` read nan.
        """
        mean = average if t else policy
        found = np.full((3, len(policy)), np.nan)
        found[0], found[1] = self._gap(policy), self._gap(mean)
        if self.beta > 0.0:
            pairs = zip(self.regularised, policy, strict=True)
            found[2] = [duality_gap(g, p / p.sum()) for g, p in pairs]
        found[:, ~alive] = np.nan
        return found

    def _gap(self, policies: Float[np.ndarray, "x n"]) -> Float[np.ndarray, " x"]:
        policies = policies / policies.sum(axis=1, keepdims=True)
        if not self.plain:
            pairs = zip(self.singles, policies, strict=True)
            return np.array([duality_gap(g, p) for g, p in pairs])
        rows = policies if self.game.is_batch else policies[0]
        return np.atleast_1d(2.0 * np.maximum(self.game.win_rates(rows).max(axis=-1) - 0.5, 0.0))
