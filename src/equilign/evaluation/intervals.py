"""Intervals for means of win probabilities."""

from dataclasses import dataclass

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
    """Mean over prompts with Student's t interval on the prompts' own means.

    All comparisons on one prompt share the prompt, so prompts are the independent units.

    Args:
        per_prompt: one mean per prompt, shape ``(prompts,)``.
        confidence: coverage aimed at.
        bounds: range of the quantity; the interval is cut to it.

    Raises:
        ValueError: no prompt.
    """
    values = np.asarray(per_prompt, dtype=np.float64)
    if values.size == 0:
        raise ValueError("an interval needs at least one prompt")
    mean = float(values.mean())
    if values.size == 1:
        return Estimate(mean, *bounds, 1)
    half = float(
        stats.t.ppf(0.5 + confidence / 2, values.size - 1) * values.std(ddof=1) / values.size**0.5
    )
    return Estimate(
        mean, max(bounds[0], mean - half), min(bounds[1], mean + half), int(values.size)
    )


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
