"""How often an interval holds the true mean: simulated evaluations with known win rates.

A prompt has a win probability of its own, drawn from a beta distribution; it is compared a number
of times, possibly another one than other prompts; some comparisons tie and count one half.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from equilign.evaluation.intervals import Estimate

Interval = Callable[[np.ndarray], Estimate]
"""From one mean per prompt."""


@dataclass(frozen=True)
class Design:
    """An evaluation.

    Attributes:
        prompts: how many.
        alpha: of the beta distribution of the prompts' win probabilities.
        beta: likewise; their mean is ``alpha / (alpha + beta)``.
        comparisons: fewest and most on one prompt, uniform in between; None: the probabilities
            themselves are seen.
        ties: share of the comparisons that tie.
    """

    prompts: int
    alpha: float
    beta: float
    comparisons: tuple[int, int] | None = (1, 7)
    ties: float = 0.0

    @property
    def truth(self) -> float:
        """The mean that intervals are to hold."""
        share = 1.0 if self.comparisons is None else 1.0 - self.ties
        return share * self.alpha / (self.alpha + self.beta) + (1.0 - share) / 2.0

    def draw(self, rng: np.random.Generator, runs: int) -> np.ndarray:
        """Prompts' means of so many evaluations, ``(runs, prompts)``."""
        rates = rng.beta(self.alpha, self.beta, (runs, self.prompts))
        if self.comparisons is None:
            return rates
        low, high = self.comparisons
        count = rng.integers(low, high + 1, rates.shape)
        ties = rng.binomial(count, self.ties)
        return (rng.binomial(count - ties, rates) + ties / 2.0) / count


@dataclass(frozen=True)
class Coverage:
    """What came out.

    Attributes:
        share: of the evaluations whose interval holds the truth.
        above: of those whose interval lies above the truth altogether.
        below: likewise below it.
        width: mean length of the intervals.
        error: standard error of a share of 0.95 with that many evaluations.
    """

    share: float
    above: float
    below: float
    width: float
    error: float


def coverage(interval: Interval, design: Design, runs: int = 4000, seed: int = 0) -> Coverage:
    """Simulate ``runs`` evaluations and see how often the interval holds the truth."""
    means = design.draw(np.random.default_rng(seed), runs)
    found = [interval(row) for row in means]
    low, high = (np.array([getattr(e, end) for e in found]) for end in ("low", "high"))
    # The truth is a sum of rounded numbers, and so is an end that equals it.
    above, below = low > design.truth + 1e-12, high < design.truth - 1e-12
    return Coverage(
        share=float(1.0 - (above | below).mean()),
        above=float(above.mean()),
        below=float(below.mean()),
        width=float((high - low).mean()),
        error=(0.95 * 0.05 / runs) ** 0.5,
    )
