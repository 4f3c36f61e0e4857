"""Intervals for means of win probabilities."""

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from scipy import stats


@dataclass(frozen=True)
class Estimate:
    """A mean with a confidence interval.

    Attributes:
        value: the mean.
        low: lower end.
        high: upper end.
        count: independent units behind it (prompts, not comparisons).
    """

    value: float
    low: float
    high: float
    count: int


def clustered_mean(
    per_prompt: np.ndarray,
    confidence: float = 0.95,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> Estimate:
    """Mean over prompts with an interval on the prompts' own means, see `mean_interval`.

    All comparisons on one prompt share the prompt, so prompts are the independent units, and a
    prompt with more comparisons does not count more.

    Args:
        per_prompt: one mean per prompt, shape ``(prompts,)``.
        confidence: coverage aimed at.
        bounds: range of the quantity; infinite ends give Student's t interval.

    Raises:
        ValueError: no prompt.
    """
    values = np.asarray(per_prompt, dtype=np.float64)
    if values.size == 0:
        raise ValueError("an interval needs at least one prompt")
    mean = float(values.mean())
    variance = float(values.var(ddof=1)) if values.size > 1 else 0.0
    return Estimate(
        mean, *mean_interval(mean, variance, values.size, confidence, bounds), values.size
    )


def mean_interval(
    mean: float,
    variance: float,
    count: int,
    confidence: float = 0.95,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> tuple[float, float]:
    """Interval of a mean of independent numbers that lie within ``bounds``.

    Wilson's score interval (Wilson 1927) with the effective number of trials
    ``p (1 - p) / (variance / count)`` and Student's quantile, as for shares in cluster samples
    (Korn & Graubard 1998; Dean & Pagano 2015). In the middle of the range it is Student's t
    interval but for terms of order ``1 / count``. Near an end the spread of a few numbers says
    little of the spread there is; five prompts that were all won have none. Student's interval is
    far too short then, and this one is not. Coverage of both was measured, see the page on
    intervals: with rates that cluster at an end (most prompts at 0, a few far off) and fewer than
    100 prompts no interval made from the mean and the variance covers 95 %.

    Numbers that are all equal, and not at an end, give an interval of no width: all ties.

    Args:
        mean: of the numbers.
        variance: of the numbers, with ``count - 1`` in the denominator; ignored for one.
        count: how many; one says nothing of their spread, and the interval is the range.
        confidence: coverage aimed at.
        bounds: range of the numbers; where an end is infinite, or the mean is outside (numbers
            that were corrected for something may be), Student's t interval, cut to it.
    """
    low, high = bounds
    if count == 1:
        return bounds
    t = student(confidence, count - 1)
    error = variance / count
    width = high - low
    if not np.isfinite(width) or not low <= mean <= high:
        return max(low, mean - t * error**0.5), min(high, mean + t * error**0.5)
    share, error = (mean - low) / width, error / width**2
    spread = share * (1.0 - share)
    inverse = error / spread if spread > 0.0 else 1.0 / count
    scale = 1.0 + t * t * inverse
    centre = (share + t * t * inverse / 2.0) / scale
    half = t / scale * (error + (t * inverse / 2.0) ** 2) ** 0.5
    # Rounding must not move an end past the mean.
    ends = min(share, centre - half), max(share, centre + half)
    return low + width * max(0.0, ends[0]), low + width * min(1.0, ends[1])


@lru_cache(maxsize=4096)
def student(confidence: float, freedom: int) -> float:
    """Student's quantile of a two-sided interval."""
    return float(stats.t.ppf(0.5 + confidence / 2, freedom))


def wilson(successes: float, trials: int, confidence: float = 0.95) -> Estimate:
    """Share of successes with Wilson's score interval (Wilson 1927).

    Args:
        successes: count; may be fractional when ties count one half.
        trials: count, at least 1.
        confidence: coverage aimed at.
    """
    if trials < 1:
        raise ValueError("an interval needs at least one trial")
    z = float(stats.norm.ppf(0.5 + confidence / 2))
    share = successes / trials
    scale = 1.0 + z * z / trials
    centre = (share + z * z / (2 * trials)) / scale
    half = z / scale * (share * (1 - share) / trials + z * z / (4 * trials**2)) ** 0.5
    # At shares 0 and 1 that end is the share itself; rounding must not move it past the share.
    low, high = min(share, centre - half), max(share, centre + half)
    return Estimate(share, max(0.0, low), min(1.0, high), trials)
