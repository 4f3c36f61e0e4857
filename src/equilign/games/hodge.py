r"""How much of a game is rating, and how much is cycle.

A margin ``prefs - 1/2`` is a flow on the graph of compared pairs. The combinatorial Hodge
decomposition (Jiang, Lim, Yao and Ye 2011, Mathematical Programming 127; HodgeRank) splits it
into the differences of one rating per player, the best such ones in weighted least squares, and
a rest without any rating in it: cycles. The two parts are orthogonal.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from equilign.errors import DataError


@dataclass(frozen=True, eq=False)
class Hodge:
    """A margin as differences of ratings plus cycles.

    Attributes:
        ratings: in units of the margin, mean zero in every connected part, shape ``(n,)``.
        gradient: ``ratings[i] - ratings[j]`` on compared pairs, 0 elsewhere, shape ``(n, n)``.
        cyclic: what is left of the margin on compared pairs, shape ``(n, n)``.
        cyclic_share: weighted sum of squares of ``cyclic`` over that of the margin, in [0, 1];
            0 for a margin that is zero everywhere.
        leverage: share of its own noise that each pair puts into ``gradient``, shape ``(n, n)``;
            the sum over pairs is the number of free ratings.
    """

    ratings: Float[np.ndarray, " n"]
    gradient: Float[np.ndarray, "n n"]
    cyclic: Float[np.ndarray, "n n"]
    cyclic_share: float
    leverage: Float[np.ndarray, "n n"]


def hodge(
    margin: Float[np.ndarray, "n n"], weights: Float[np.ndarray, "n n"] | None = None
) -> Hodge:
    """Split a margin into rating differences and cycles.

    Args:
        margin: skew-symmetric; any scale.
        weights: symmetric, ``>= 0``, 0 for a pair without data; the diagonal is not looked at.
            Every pair counts alike when not given. Comparisons per pair weigh pairs by how well
            they are known.

    Raises:
        DataError: the margin is not skew, or weights are negative, not finite or not symmetric.
    """
    size = len(margin)
    if weights is None:
        weights = np.ones((size, size))
    _check(margin, weights)
    weights = (weights + weights.T) / 2.0
    np.fill_diagonal(weights, 0.0)
    margin = (margin - margin.T) / 2.0
    # Scaled to a mean of one, so that the cut-off of the pseudo-inverse means the same everywhere.
    scale = weights.max() if weights.any() else 1.0
    scaled = weights / scale
    laplacian = np.diag(scaled.sum(axis=1)) - scaled
    inverse = np.linalg.pinv(laplacian, rcond=1e-12 * size, hermitian=True)
    ratings = inverse @ (scaled * margin).sum(axis=1)
    compared = scaled > 0.0
    gradient = np.where(compared, ratings[:, None] - ratings[None, :], 0.0)
    cyclic = np.where(compared, margin - gradient, 0.0)
    total = float((scaled * margin**2).sum())
    share = float((scaled * cyclic**2).sum()) / total if total > 0.0 else 0.0
    diagonal = np.diag(inverse)
    resistance = diagonal[:, None] + diagonal[None, :] - 2.0 * inverse
    return Hodge(ratings, gradient, cyclic, min(share, 1.0), scaled * resistance)


def corrected_cyclic_share(
    margin: Float[np.ndarray, "n n"],
    variance: Float[np.ndarray, "n n"],
    compared: Bool[np.ndarray, "n n"],
) -> float | None:
    """The cyclic share of the true margins behind noisy ones, every pair counting alike.

    Noise adds to both sums of squares; what it adds on average is taken off again: the variance
    of each pair from the whole, and the part of it that no rating takes up from the cycles.

    Args:
        margin: as observed; skew-symmetric.
        variance: of each entry of the margin, an unbiased estimate; symmetric.
        compared: pairs with data.

    Returns:
        A number in [0, 1], or None where noise explains the whole sum of squares.
    """
    weights = compared.astype(np.float64)
    np.fill_diagonal(weights, 0.0)
    split = hodge(margin, weights)
    noise = weights * variance
    total = float((weights * margin**2).sum() - noise.sum())
    cyclic = float((split.cyclic**2).sum() - (noise * (1.0 - split.leverage)).sum())
    if total <= 0.0:
        return None
    return min(max(cyclic / total, 0.0), 1.0)


def cyclic_shares(
    margins: Float[np.ndarray, "x n n"], compared: Bool[np.ndarray, "n n"]
) -> Float[np.ndarray, " x"]:
    """`Hodge.cyclic_share` of many margins on the same pairs, every pair counting alike.

    Args:
        margins: skew-symmetric, shape ``(X, n, n)``.
        compared: pairs with data.
    """
    weights = compared & ~np.eye(len(compared), dtype=bool)
    laplacian = np.diag(weights.sum(axis=1)) - weights.astype(np.float64)
    inverse = np.linalg.pinv(laplacian, rcond=1e-12 * len(weights), hermitian=True)
    kept = np.where(weights, margins, 0.0)
    ratings = kept.sum(axis=2) @ inverse
    # By orthogonality the squares of the gradient are what the cycles lack to the whole.
    total = (kept**2).sum(axis=(1, 2))
    gradient = 2.0 * (ratings * kept.sum(axis=2)).sum(axis=1)
    share = np.divide(total - gradient, total, out=np.zeros(len(total)), where=total > 0.0)
    return np.clip(share, 0.0, 1.0)


def _check(margin: np.ndarray, weights: np.ndarray) -> None:
    if weights.shape != margin.shape:
        raise DataError(f"weights have shape {weights.shape}, the margin {margin.shape}")
    if not np.isfinite(margin).all() or np.abs(margin + margin.T).max(initial=0.0) > 1e-6:
        raise DataError("a margin must be finite and skew: margin + margin.T == 0")
    if not np.isfinite(weights).all() or (weights < 0.0).any():
        raise DataError("weights must be finite and >= 0")
    if np.abs(weights - weights.T).max(initial=0.0) > 1e-6 * np.abs(weights).max(initial=1.0):
        raise DataError("weights must be symmetric: a pair has one weight")
