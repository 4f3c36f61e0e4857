"""How good a judge is on pairs it was not fitted to: numbers with intervals, prompt by prompt.

Every prompt counts the same, however many pairs it has, and prompts are the independent units of
every interval.

Accuracy counts the pairs with a majority (label not 1/2); a verdict of exactly 1/2 is half right.
Log-loss is the cross-entropy with the label, in nats: ``log 2`` says nothing, and no judge gets
below the labels' own entropy on average.

Calibration: a verdict's confidence is ``max(P, 1 - P)``. Pairs are sorted by confidence into at
most `BINS` bins of equal size, `FEWEST` pairs or more each; a bin's gap is its share of right
answers less its mean confidence. ``ece`` is the mean absolute gap (expected calibration error; Guo
et al. 2017, arXiv:1706.04599). Noise alone makes it positive, for a perfect judge too, and no
correction of an absolute value takes that away. The *calibration error* reported here is the root
mean square gap, whose square the bootstrap over prompts corrects without bias (Kumar et al. 2019,
arXiv:1909.10155, on why squares; Efron & Tibshirani 1993, sections 10.6 and 13.4, on the bootstrap
and its "basic" interval). It is never smaller than the true mean absolute gap of the same bins.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from equilign.evaluation.intervals import Estimate, clustered_mean

BINS = 10
FEWEST = 20
DRAWS = 1000
_FACTORS = (1e-3, 1e3)


@dataclass(frozen=True)
class Bin:
    """One bin of the reliability plot.

    Attributes:
        low: smallest confidence.
        high: largest.
        pairs: how many.
        confidence: their mean confidence.
        right: share of right answers among them, label weights counted.
        right_low: lower end of its 95 % interval over prompts.
        right_high: upper end.
    """

    low: float
    high: float
    pairs: int
    confidence: float
    right: float
    right_low: float
    right_high: float


@dataclass(frozen=True)
class Measures:
    """A judge on held-out pairs.

    Attributes:
        accuracy: share of majorities it agrees with.
        log_loss: nats per pair.
        calibration: root mean square gap, corrected for noise.
        ece: mean absolute gap, not corrected.
        bins: of the reliability plot; empty ones left out.
        pairs: how many.
        prompts: how many.
        decided: pairs with a majority.
    """

    accuracy: Estimate
    log_loss: Estimate
    calibration: Estimate
    ece: float
    bins: tuple[Bin, ...]
    pairs: int
    prompts: int
    decided: int


def log_losses(margins: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cross-entropy per pair, nats: ``log(1 + e^m) - p m``; any shape, always finite."""
    return np.asarray(np.logaddexp(0.0, margins) - labels * margins)


def right_answers(margins: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """1 where the sign of the margin agrees with the majority, 1/2 at margin 0; nan at ties."""
    agree = np.where(labels > 0.5, margins > 0.0, margins < 0.0) + 0.5 * (margins == 0.0)
    return np.where(labels == 0.5, np.nan, agree)


def per_prompt(values: np.ndarray, prompts: np.ndarray) -> np.ndarray:
    """Mean of each prompt's values, nan left out; prompts without any are dropped.

    Args:
        values: shape ``(n,)``.
        prompts: number of each value's prompt, shape ``(n,)``.
    """
    kept = np.isfinite(values)
    count = np.bincount(prompts[kept], minlength=int(prompts.max(initial=-1)) + 1)
    total = np.bincount(prompts[kept], values[kept], minlength=len(count))
    return np.asarray(total[count > 0] / count[count > 0])


def mean_over_prompts(
    values: np.ndarray, prompts: np.ndarray, bounds: tuple[float, float] = (0.0, 1.0)
) -> Estimate:
    """`clustered_mean` of values by prompt; all of the bounds where there are no values."""
    means = per_prompt(values, prompts)
    if not means.size:
        return Estimate(float("nan"), *bounds, 0)
    return clustered_mean(means, bounds=bounds)


def prompt_weights(prompts: np.ndarray) -> np.ndarray:
    """Weight of each pair, ``1 / (prompts * pairs of its prompt)``; sums to 1."""
    _, inverse, count = np.unique(prompts, return_inverse=True, return_counts=True)
    return np.asarray(1.0 / (len(count) * count[inverse]))


@dataclass(frozen=True)
class _Binned:
    """Bin, confidence, and how right the favoured answer is (its label), of each pair."""

    place: np.ndarray
    confidence: np.ndarray
    right: np.ndarray
    edges: np.ndarray

    def gaps(self, weights: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Weight of each bin (summing to 1), and its gap."""
        count = len(self.edges) - 1
        size = np.bincount(self.place, weights, minlength=count)
        total = np.bincount(self.place, weights * (self.right - self.confidence), minlength=count)
        return size / size.sum(), total / np.where(size > 0.0, size, 1.0)

    def mean_square(self, weights: np.ndarray) -> float:
        size, gap = self.gaps(weights)
        return float((size * gap**2).sum())


def _binned(margins: np.ndarray, labels: np.ndarray) -> _Binned:
    confidence = 1.0 / (1.0 + np.exp(-np.abs(margins)))
    right = np.where(margins > 0.0, labels, np.where(margins < 0.0, 1.0 - labels, 0.5))
    count = int(np.clip(len(margins) // FEWEST, 1, BINS))
    inner = np.unique(np.quantile(confidence, np.arange(1, count) / count))
    place = np.searchsorted(inner, confidence, side="right")
    edges = np.array([confidence.min(), *inner, confidence.max()])
    return _Binned(place, confidence, right, edges)


def expected_calibration_error(
    margins: np.ndarray, labels: np.ndarray, weights: np.ndarray
) -> float:
    """Mean absolute gap, see above; not corrected for noise.

    Args:
        margins: logits of the verdicts, shape ``(n,)``.
        labels: Pr(first preferred), shape ``(n,)``.
        weights: of the pairs, with a positive sum.
    """
    size, gap = _binned(margins, labels).gaps(weights)
    return float((size * np.abs(gap)).sum())


def squared_calibration(
    margins: np.ndarray, labels: np.ndarray, prompts: np.ndarray, seed: int
) -> Estimate:
    """Mean square gap, corrected for noise (so it may be negative), with its interval.

    With fewer than two prompts there is no telling: the interval is all there can be.
    """
    binned, weight = _binned(margins, labels), prompt_weights(prompts)
    plug_in = binned.mean_square(weight)
    units, unit = np.unique(prompts, return_inverse=True)
    if len(units) < 2:
        return Estimate(plug_in, 0.0, 1.0, len(units))
    rng = np.random.default_rng(seed)
    draws = np.empty(DRAWS)
    for k in range(DRAWS):
        # A resample of prompts is a reweighting of their pairs.
        times = np.bincount(rng.integers(len(units), size=len(units)), minlength=len(units))
        draws[k] = binned.mean_square(weight * times[unit])
    low, high = 2.0 * plug_in - np.quantile(draws, [0.975, 0.025])
    return Estimate(2.0 * plug_in - float(draws.mean()), float(low), float(high), len(units))


def calibration(
    margins: np.ndarray, labels: np.ndarray, prompts: np.ndarray, seed: int
) -> Estimate:
    """Root mean square gap, corrected for noise, with its interval; all at least 0."""
    found = squared_calibration(margins, labels, prompts, seed)
    value, low, high = (max(0.0, x) ** 0.5 for x in (found.value, found.low, found.high))
    return Estimate(value, min(low, value), max(high, value), found.count)


def reliability(margins: np.ndarray, labels: np.ndarray, prompts: np.ndarray) -> tuple[Bin, ...]:
    """The bins of the reliability plot; empty ones are left out."""
    binned = _binned(margins, labels)
    found = []
    for k in range(len(binned.edges) - 1):
        inside = binned.place == k
        if inside.any():
            share = mean_over_prompts(binned.right[inside], prompts[inside])
            centre = mean_over_prompts(binned.confidence[inside], prompts[inside], (0.5, 1.0))
            found.append(
                Bin(
                    float(binned.edges[k]),
                    float(binned.edges[k + 1]),
                    int(inside.sum()),
                    centre.value,
                    share.value,
                    share.low,
                    share.high,
                )
            )
    return tuple(found)


def measure(
    margins: Sequence[float] | np.ndarray,
    labels: Sequence[float] | np.ndarray,
    prompts: Sequence[int] | np.ndarray,
    *,
    seed: int = 0,
) -> Measures:
    """Accuracy, log-loss and calibration of verdicts on labelled pairs.

    Args:
        margins: logit of Pr(first beats second), one per pair, finite.
        labels: the share of people who preferred the first, in [0, 1].
        prompts: number of each pair's prompt.
        seed: of the bootstrap.
    """
    m, p, x = np.asarray(margins, float), np.asarray(labels, float), np.asarray(prompts, int)
    return Measures(
        accuracy=mean_over_prompts(right_answers(m, p), x),
        log_loss=mean_over_prompts(log_losses(m, p), x, (0.0, np.inf)),
        calibration=calibration(m, p, x, seed),
        ece=expected_calibration_error(m, p, prompt_weights(x)),
        bins=reliability(m, p, x),
        pairs=len(m),
        prompts=len(np.unique(x)),
        decided=int((p != 0.5).sum()),
    )


def difference(
    first: np.ndarray, second: np.ndarray, prompts: np.ndarray, bound: float = np.inf
) -> Estimate:
    """Mean over prompts of ``first - second`` on the same pairs, with its interval."""
    return mean_over_prompts(first - second, np.asarray(prompts, int), (-bound, bound))


def best_factor(margins: np.ndarray, labels: np.ndarray) -> float:
    """Factor on the margins with the least log-loss on these pairs ("temperature scaling").

    Guo et al. 2017 (arXiv:1706.04599), with Platt's targets (Platt 1999): labels are drawn towards
    one half as if two more pairs had tied, so that a few pairs that all agree do not make the judge
    sure. One number, so a few dozen pairs can set it. Between 1e-3 and 1e3; at the lower end the
    judge knows nothing of these pairs and says 1/2.
    """
    low, high = np.log(_FACTORS)
    target = (labels * len(labels) + 1.0) / (len(labels) + 2.0)
    found = minimize_scalar(
        lambda x: float(log_losses(np.exp(x) * margins, target).mean()),
        bounds=(low, high),
        method="bounded",
    )
    return float(np.exp(found.x))
