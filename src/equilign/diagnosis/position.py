"""Whether the answer that is shown first wins more often because it is shown first.

Only comparisons of which both orders are there can tell: the same two players on the same prompt,
or at least the same two players. Within such a stratum the first-shown share of wins is averaged
over the two orders, so that a strong player does not look like a good place.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import ndtri
from scipy.stats import norm, t

from equilign.games.comparisons import Comparisons

_CLUSTERS = 20
_LEAST = 10


@dataclass(frozen=True)
class PositionBias:
    """What being shown first is worth.

    Attributes:
        comparisons: with a known order, in strata with both orders.
        strata: pairs (on a prompt) with both orders.
        first_share: win probability of the answer shown first against an equally good one;
            1/2 means no bias; ties count half.
        low: lower end of the 95 % interval.
        high: upper end.
        p_value: of "no bias", two-sided.
        flips: share of strata with one decided verdict in each order in which the winner
            changes with the order; None if there are no such strata.
        flip_strata: how many such strata there are.
        units: what the interval takes to be independent: ``prompts`` or ``comparisons``.
    """

    comparisons: float
    strata: int
    first_share: float
    low: float
    high: float
    p_value: float
    flips: float | None
    flip_strata: int
    units: str


def position_bias(comparisons: Comparisons) -> PositionBias | None:
    """Measure position bias; None where fewer than ten strata or comparisons have both orders."""
    c = comparisons.subset(comparisons.shown != 0)
    if len(c) < 2:
        return None
    by_prompt = bool((c.prompt >= 0).all()) and len(np.unique(c.prompt)) > 1
    strata = _Strata(c, by_prompt)
    if by_prompt and strata.both.sum() < _LEAST:
        strata = _Strata(c, by_prompt := False)
    both = strata.both
    total = float(strata.number[:, both].sum())
    if total < _LEAST:
        return None
    number, mean, square = strata.number[:, both], strata.mean[:, both], strata.square[:, both]
    shift = mean.mean(axis=0) - 0.5
    weight = number.prod(axis=0) / number.sum(axis=0)
    bias = float((weight * shift).sum() / weight.sum())
    prompts = strata.prompt[both]
    clusters = np.unique(prompts)
    if by_prompt and len(clusters) >= _CLUSTERS:
        sums = np.bincount(np.searchsorted(clusters, prompts), weight * (shift - bias))
        error = float(np.sqrt((sums**2).sum() * len(clusters) / (len(clusters) - 1)))
        factor = float(t.ppf(0.975, len(clusters) - 1))
    else:
        by_prompt = False
        # Shrunk towards 1/2 by one comparison, so that a single verdict is not without noise.
        spread = (number * np.maximum(square - mean**2, 0.0) + 0.25) / (number + 1.0)
        error = float(np.sqrt((weight**2 * (spread / number).sum(axis=0) / 4.0).sum()))
        factor = float(ndtri(0.975))
    error /= float(weight.sum())
    half = factor * error
    decided = both & (strata.number == 1.0).all(axis=0) & (strata.mean != 0.5).all(axis=0)
    flips = strata.mean[0, decided] == strata.mean[1, decided]  # first-shown won (or lost) both
    return PositionBias(
        comparisons=total,
        strata=int(both.sum()),
        first_share=0.5 + bias,
        low=max(0.0, 0.5 + bias - half),
        high=min(1.0, 0.5 + bias + half),
        p_value=float(2.0 * norm.sf(abs(bias) / error)) if error > 0.0 else float(bias == 0.0),
        flips=float(flips.mean()) if flips.size else None,
        flip_strata=int(flips.size),
        units="prompts" if by_prompt else "comparisons",
    )


class _Strata:
    """Per stratum and order: number of comparisons, mean and mean square of the first's score."""

    def __init__(self, c: Comparisons, by_prompt: bool) -> None:
        low, high = np.minimum(c.first, c.second), np.maximum(c.first, c.second)
        key = low * len(c.players) + high
        prompt = c.prompt if by_prompt else np.zeros(len(c), dtype=np.int64)
        # Two steps of unique, since the product of all three ranges may overflow.
        _, pair = np.unique(key, return_inverse=True)
        keys = prompt * (pair.max() + 1) + pair
        _, start, stratum = np.unique(keys, return_index=True, return_inverse=True)
        size = len(start)
        score = np.where(c.shown == 1, c.score, 1.0 - c.score)
        low_first = (c.first == low) == (c.shown == 1)
        flat = stratum + size * low_first
        self.number = np.bincount(flat, c.weight, 2 * size).reshape(2, size)
        safe = np.maximum(self.number, 1e-300)
        self.mean = np.bincount(flat, c.weight * score, 2 * size).reshape(2, size) / safe
        self.square = np.bincount(flat, c.weight * score**2, 2 * size).reshape(2, size) / safe
        self.both = (self.number > 0.0).all(axis=0)
        self.prompt = prompt[start]
