"""Means over seeds and prompts, with the spread of both.

Every number is measured for each seed on each prompt: an array ``(seeds, prompts)``. Another
training would have other seeds, another test other prompts. ``seeds`` is Student's interval over
the seeds' means (few, hence wide; it takes these prompts as given), ``prompts`` that over the
prompts' means (it takes these trainings as given), and ``both`` takes both as drawn at random: the
variance of a mean in a two-way layout, ``Var(seed means) / S + Var(prompt means) / P -
Var(rest) / (S P)``, with Satterthwaite's degrees of freedom (Searle, Casella & McCulloch 1992,
"Variance Components").
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE = 0.95
Interval = tuple[float, float]

RATE: Interval = (0.0, 1.0)
"""Range of a win rate."""


@dataclass(frozen=True)
class Spread:
    """A mean with its intervals, 95 % each.

    Attributes:
        value: mean over seeds and prompts.
        seeds: over seeds alone; infinite with one seed.
        prompts: over prompts alone.
        both: over both.
        by_seed: each seed's mean.
    """

    value: float
    seeds: Interval
    prompts: Interval
    both: Interval
    by_seed: tuple[float, ...]

    @property
    def told(self) -> Interval:
        """What is shown: the interval over both; of one seed, that over prompts."""
        return self.both if len(self.by_seed) > 1 else self.prompts


def spread(
    values: np.ndarray | Sequence[Sequence[float]],
    bounds: Interval = (-float("inf"), float("inf")),
) -> Spread:
    """Mean and intervals of ``(seeds, prompts)`` numbers.

    Args:
        values: the numbers.
        bounds: range of the quantity; the intervals are cut to it.

    Raises:
        ValueError: no numbers.
    """
    x = np.asarray(values, dtype=np.float64)
    if x.ndim != 2 or not x.size:
        raise ValueError(f"an array (seeds, prompts) is wanted; got shape {x.shape}")
    mean = float(x.mean())
    rows, columns = x.mean(axis=1), x.mean(axis=0)
    of_seeds, of_prompts = _variance(rows), _variance(columns)
    both, freedom = _together(x, of_seeds, of_prompts)

    def cut(variance: float, freedom: float) -> Interval:
        low, high = _interval(mean, variance, freedom)
        return max(bounds[0], low), min(bounds[1], high)

    return Spread(
        mean,
        cut(of_seeds, len(rows) - 1),
        cut(of_prompts, len(columns) - 1),
        cut(both, freedom),
        tuple(rows.tolist()),
    )


def _variance(means: np.ndarray) -> float:
    """Of the mean of independent means."""
    return float(means.var(ddof=1) / len(means)) if len(means) > 1 else float("inf")


def _together(x: np.ndarray, of_seeds: float, of_prompts: float) -> tuple[float, float]:
    """Variance of the mean when seeds and prompts are both drawn, and its degrees of freedom."""
    count, size = x.shape
    if count < 2 or size < 2:
        return float("inf"), 1.0
    rest = x - x.mean(axis=1, keepdims=True) - x.mean(axis=0, keepdims=True) + x.mean()
    noise = float((rest**2).sum()) / ((count - 1) * (size - 1)) / x.size
    # A negative estimate of a component is none: the larger single variance then stands.
    total = max(of_seeds + of_prompts - noise, of_seeds, of_prompts)
    bottom = of_seeds**2 / (count - 1) + of_prompts**2 / (size - 1)
    return total, total**2 / bottom if bottom > 0.0 else float(count - 1)


def _interval(mean: float, variance: float, freedom: float) -> Interval:
    if not np.isfinite(variance):
        return -float("inf"), float("inf")
    half = float(stats.t.ppf(0.5 + CONFIDENCE / 2, freedom)) * variance**0.5
    return mean - half, mean + half
