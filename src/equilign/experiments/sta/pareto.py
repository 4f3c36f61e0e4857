"""Fronts of distance against reward, and how far one lies above another.

A policy that plays A with probability w and B otherwise has that mean of their rewards and, the KL
divergence being convex, at most that mean of their distances. What lies on a line between two
points of a front can therefore be played.
"""

from collections.abc import Sequence

import numpy as np


def front(kl: Sequence[float], reward: Sequence[float]) -> list[int]:
    """The points that no other dominates, by ascending distance.

    A point is dominated by one that is as near and as good, and better in one of the two. Of equal
    points the first stays.
    """
    order = sorted(range(len(kl)), key=lambda i: (kl[i], -reward[i], i))
    kept: list[int] = []
    for i in order:
        if not kept or reward[i] > reward[kept[-1]]:
            kept.append(i)
    return kept


def mixture(kl: Sequence[float], at: float) -> np.ndarray:
    """Weights of a front's points, by ascending distance, whose mean distance is at most ``at``.

    Of two neighbours, or of the farthest alone where ``at`` is beyond it.

    Raises:
        ValueError: every point is farther than ``at``.
    """
    if at < kl[0]:
        raise ValueError(f"the nearest point is {kl[0]} away, more than {at}")
    weights = np.zeros(len(kl))
    right = int(np.searchsorted(kl, at, side="right"))
    if right == len(kl):
        weights[-1] = 1.0
        return weights
    low, high = kl[right - 1], kl[right]
    share = (at - low) / (high - low)
    weights[right - 1], weights[right] = 1.0 - share, share
    return weights


def heights_over(
    kl: np.ndarray, reward: np.ndarray, other_kl: np.ndarray, other_reward: np.ndarray
) -> np.ndarray:
    """How much more reward than another's front there is at its points' distances.

    Args:
        kl: distance of each policy of a training, the start (0) first, ``(seeds, points)``.
        reward: of each, ``(seeds, points, prompts)``.
        other_kl: of the other training.
        other_reward: of the other training.

    Returns:
        At each of the other front's points but the start, ``(points, seeds, prompts)``. Fronts
        are those of the means over seeds and prompts. Where nothing of the other lies above the
        start, the gain of the best point over it.
    """
    mine = front(_mean_kl(kl), _mean_reward(reward))
    theirs = [i for i in front(_mean_kl(other_kl), _mean_reward(other_reward)) if i > 0]
    distances = [_mean_kl(kl)[i] for i in mine]
    points = np.stack([reward[:, i] for i in mine])
    if not theirs:
        gain: np.ndarray = points[-1:] - other_reward[:, 0]
        return gain
    gaps = []
    for i in theirs:
        weights = mixture(distances, _mean_kl(other_kl)[i])
        gaps.append(np.tensordot(weights, points, axes=1) - other_reward[:, i])
    return np.stack(gaps)


def _mean_kl(kl: np.ndarray) -> list[float]:
    """Estimates may be negative, distances not."""
    found: list[float] = np.maximum(kl.mean(axis=0), 0.0).tolist()
    return found


def _mean_reward(reward: np.ndarray) -> list[float]:
    found: list[float] = reward.mean(axis=(0, 2)).tolist()
    return found
