"""What one stands to lose by trusting Bradley-Terry's favourite."""

from dataclasses import dataclass

import numpy as np

from equilign.diagnosis.significance import LEVEL, win_rate_bounds


@dataclass(frozen=True)
class WorstLoss:
    """How the favourite fares against its worst opponent.

    Attributes:
        opponent: number of the opponent that beats it most often.
        loss: Pr(that opponent wins) - 1/2, at least 0; what a best response gains.
        low: lower bound of the largest loss over all opponents.
        high: upper bound; 1/2 where an opponent was never met. Together they hold in 95 of 100
            data sets, whichever player is the favourite: all pairs are bounded at once.
    """

    opponent: int
    loss: float
    low: float
    high: float


def worst_loss(prefs: np.ndarray, wins: np.ndarray | None, player: int) -> WorstLoss:
    """The largest loss of a player, with bounds where counts are known (else they equal it)."""
    others = np.arange(len(prefs)) != player
    rates = np.where(others, prefs[:, player], -1.0)
    opponent = int(rates.argmax())
    loss = max(float(rates[opponent]) - 0.5, 0.0)
    if wins is None:
        return WorstLoss(opponent, loss, loss, loss)
    counts = wins + wins.T
    pairs = max(int((counts > 0.0).sum()) // 2, 1)
    low, high = win_rate_bounds(wins, counts, LEVEL / pairs)
    return WorstLoss(
        opponent,
        loss,
        max(float(low[others, player].max()) - 0.5, 0.0),
        max(float(high[others, player].max()) - 0.5, 0.0),
    )
