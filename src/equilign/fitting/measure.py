"""How good a judge is on pairs it was not fitted to: numbers with intervals, prompt by prompt.

Every prompt counts the same, however many pairs it has, and prompts are the independent units of
every interval.

Accuracy counts the pairs with a majority (label not 1/2); a verdict of exactly 1/2 is half right.
Log-loss is the cross-entropy with the label, in nats: ``log 2`` says nothing, and no judge gets
below the labels' own entropy on average.

Calibration: a verdict's confidence is ``max(P, 1 - P)``; pairs are put into `BINS` bins of equal
width between 1/2 and 1, and the expected calibration error is the mean over pairs of the distance
between confidence and share of right answers in their bin (Guo et al. 2017, arXiv:1706.04599).
That plug-in value is too large by noise, a perfect judge's too. The bootstrap over prompts estimates
by how much, and the reported value and interval are corrected for it (basic bootstrap; Efron &
Tibshirani 1993, sections 10.6 and 13.4).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from equilign.evaluation.intervals import Estimate, clustered_mean

BINS = 10
DRAWS = 1000
_EDGES = np.linspace(0.5, 1.0, BINS + 1)


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
        calibration: bias-corrected expected calibration error.
        plug_in_calibration: the same without correction.
        bins: of the reliability plot; empty ones left out.
        pairs: how many.
        prompts: how many.
        decided: pairs with a majority.
    """

    accuracy: Estimate
    log_loss: Estimate
    calibration: Estimate
    plug_in_calibration: float
    bins: tuple[Bin, ...]
    pairs: int
    prompts: int
    decided: int


def log_losses(margins: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """Cross-entropy per pair, nats: ``log(1 + e^m) - p m``; any shape, finite for finite margins."""
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


def calibration_error(margins: np.ndarray, labels: np.ndarray, weights: np.ndarray) -> float:
    """The plug-in expected calibration error, see above.

    Args:
        margins: logits of the verdicts, shape ``(n,)``.
        labels: Pr(first preferred), shape ``(n,)``.
        weights: of the pairs, with a positive sum.
    """
    place, confidence, right = _binned(margins, labels)
    size = np.bincount(place, weights, minlength=BINS)
    gap = np.bincount(place, weights * (right - confidence), minlength=BINS)
    return float(np.abs(gap).sum() / size.sum())


def _binned(margins: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bin, confidence, and how right the favoured answer is (its label), of each pair."""
    confidence = 1.0 / (1.0 + np.exp(-np.abs(margins)))
    right = np.where(margins > 0.0, labels, np.where(margins < 0.0, 1.0 - labels, 0.5))
    place = np.clip(np.searchsorted(_EDGES, confidence, side="right") - 1, 0, BINS - 1)
    return place, confidence, right


def calibration(
    margins: np.ndarray, labels: np.ndarray, prompts: np.ndarray, seed: int
) -> tuple[Estimate, float]:
    """Corrected calibration error with its interval, and the plug-in value.

    With fewer than two prompts there is no telling: the interval is all of [0, 1/2].
    """
    plug_in = calibration_error(margins, labels, prompt_weights(prompts))
    units = [np.flatnonzero(prompts == p) for p in np.unique(prompts)]
    if len(units) < 2:
        return Estimate(plug_in, 0.0, 0.5, len(units)), plug_in
    rng = np.random.default_rng(seed)
    weight = prompt_weights(prompts)
    where = np.concatenate(units)
    lengths = np.array([len(u) for u in units])
    draws = np.empty(DRAWS)
    for k in range(DRAWS):
        # A resample of prompts is a reweighting of their pairs.
        times = np.bincount(rng.integers(len(units), size=len(units)), minlength=len(units))
        times_pair = np.repeat(times, lengths)
        draws[k] = calibration_error(margins[where], labels[where], weight[where] * times_pair)
    low, high = 2.0 * plug_in - np.quantile(draws, [0.975, 0.025])
    value = max(0.0, 2.0 * plug_in - float(draws.mean()))
    low, high = max(0.0, float(low)), max(0.0, float(high))
    return Estimate(value, min(low, value), max(high, value), len(units)), plug_in


def reliability(margins: np.ndarray, labels: np.ndarray, prompts: np.ndarray) -> tuple[Bin, ...]:
    """The bins of the reliability plot; empty ones are left out."""
    place, confidence, right = _binned(margins, labels)
    found = []
    for k in range(BINS):
        inside = place == k
        if inside.any():
            share = mean_over_prompts(right[inside], prompts[inside])
            centre = mean_over_prompts(confidence[inside], prompts[inside], (0.5, 1.0))
            found.append(
                Bin(
                    float(_EDGES[k]),
                    float(_EDGES[k + 1]),
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
    error, plug_in = calibration(m, p, x, seed)
    return Measures(
        accuracy=mean_over_prompts(right_answers(m, p), x),
        log_loss=mean_over_prompts(log_losses(m, p), x, (0.0, np.inf)),
        calibration=error,
        plug_in_calibration=plug_in,
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


def as_json(estimate: Estimate, name: str) -> dict[str, Any]:
    """``{name, low, high, count}`` as plain values."""
    return {
        name: estimate.value,
        "low": estimate.low,
        "high": estimate.high,
        "prompts": estimate.count,
    }
