r"""How well one number per player explains who beats whom.

The Bradley-Terry model is fitted, and data sets of the same size are drawn from the fit (the
parametric bootstrap): what they show although they have no cycles in truth is what noise does.
Where ties are known they are kept as they are and only decided comparisons are drawn, so that
ties do not look like a fit that is too good.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from equilign.games.bradley_terry import BradleyTerry, fit_bradley_terry, simulate_wins
from equilign.games.build import prefs_from_counts
from equilign.games.hodge import corrected_cyclic_share, cyclic_shares, hodge

Progress = Callable[[int, int], None]
_CHUNK_ENTRIES = 2**20
_Z95 = 1.645


@dataclass(frozen=True, eq=False)
class Null:
    """What data sets drawn from the fitted model show, one entry per data set.

    Attributes:
        deviance: of their own fits.
        squared_error: mean squared distance of their win rates from their own fit.
        cyclic_triples: strict majority cycles.
        cyclic_share: share of squared margin without a rating.
    """

    deviance: np.ndarray
    squared_error: np.ndarray
    cyclic_triples: np.ndarray
    cyclic_share: np.ndarray


@dataclass(frozen=True)
class FitErrors:
    """Distance of win rates from the fitted ones, in win probability.

    Attributes:
        mean: mean absolute distance, pairs weighted by comparisons.
        rms: root of the mean square, weighted as well.
        largest: the largest of a pair.
        wrong_side: share of decided pairs whose majority the model gets wrong.
    """

    mean: float
    rms: float
    largest: float
    wrong_side: float


def fit_errors(fit: BradleyTerry, wins: np.ndarray) -> FitErrors:
    """Compare a fit with the wins it was made from."""
    counts = wins + wins.T
    np.fill_diagonal(counts, 0.0)
    prefs, fitted = prefs_from_counts(wins), fit.prefs
    error = np.where(counts > 0.0, np.abs(prefs - fitted), 0.0)
    total = counts.sum()
    strict = (counts > 0.0) & (np.abs(prefs - 0.5) > 1e-12)
    wrong = strict & (np.sign(prefs - 0.5) != np.sign(fitted - 0.5))
    return FitErrors(
        mean=float((counts * error).sum() / total),
        rms=float(np.sqrt((counts * error**2).sum() / total)),
        largest=float(error.max()),
        wrong_side=float(wrong.sum() / max(strict.sum(), 1)),
    )


def mean_squared_error(wins: np.ndarray, fitted: np.ndarray) -> np.ndarray:
    """Mean of ``(win rate - fitted)**2`` over comparisons, of each of a batch ``(X, n, n)``."""
    counts = wins + wins.swapaxes(1, 2)
    share = np.divide(wins, counts, out=np.full(wins.shape, 0.5), where=counts > 0.0)
    total = counts.sum(axis=(1, 2))
    squares = (counts * (share - fitted) ** 2).sum(axis=(1, 2))
    return np.asarray(squares / np.maximum(total, 1e-300))


def draw_null(
    fit: BradleyTerry,
    wins: np.ndarray,
    ties: np.ndarray | None,
    samples: int,
    rng: np.random.Generator,
    progress: Progress | None = None,
) -> Null:
    """Draw data sets from a fit, and fit and describe each of them.

    Args:
        fit: the model fitted to ``wins``.
        wins: ties counted half.
        ties: ties per pair, where known.
        samples: how many data sets.
        rng: source of randomness.
        progress: called with the number done and ``samples``.
    """
    size = len(wins)
    counts = wins + wins.T
    tied = np.zeros_like(wins) if ties is None else ties
    free = counts - tied
    chance = np.full_like(wins, 0.5)
    np.divide(fit.prefs * counts - tied / 2.0, free, out=chance, where=free > 1e-9)
    chance = np.clip(chance, 0.0, 1.0)
    chance = (chance + 1.0 - chance.T) / 2.0
    parts = []
    step = max(1, min(_CHUNK_ENTRIES // (size * size), -(-samples // 10)))
    for start in range(0, samples, step):
        drawn = simulate_wins(chance, free, rng, samples=min(step, samples - start)) + tied / 2.0
        parts.append(_describe(drawn, counts > 0.0))
        if progress is not None:
            progress(min(start + step, samples), samples)
    return Null(*(np.concatenate(part) for part in zip(*parts, strict=True)))


def _describe(wins: np.ndarray, compared: np.ndarray) -> tuple[np.ndarray, ...]:
    fit = fit_bradley_terry(wins)
    beats = (wins > wins.swapaxes(1, 2)).astype(np.float64)
    triples = np.einsum("xij,xji->x", beats @ beats, beats) / 3.0
    counts = wins + wins.swapaxes(1, 2)
    share = np.divide(wins, counts, out=np.full(wins.shape, 0.5), where=counts > 0.0)
    return (
        np.asarray(fit.deviance),
        mean_squared_error(wins, fit.prefs),
        np.rint(triples),
        cyclic_shares(share - 0.5, compared),
    )


def upper_p_value(observed: float, null: np.ndarray) -> float:
    """Share of data sets at least as extreme, ``(1 + #) / (1 + B)`` so that it is never zero."""
    slack = 1e-9 * max(1.0, abs(observed))
    return float((1 + (null >= observed - slack).sum()) / (1 + len(null)))


def misfit(
    squared_error: float, null: np.ndarray, comparisons: float, exact_noise: bool
) -> tuple[float, float]:
    """Typical distance of the true win rates from the model, and an upper 95 % bound.

    Noise adds on average what it adds to data sets drawn from the model; that is taken off. The
    bound is the misfit under which so small an error as the observed one has a chance of 5 %:
    the mean grows by its square, and the variance by at most ``misfit**2 / comparisons``, from
    the product of misfit and noise. Where ties were counted as halves and nobody knows how many
    there are, drawn data are noisier than real ones, and the bound takes nothing off.

    Args:
        squared_error: `mean_squared_error` of the data.
        null: the same of data sets drawn from the fitted model.
        comparisons: number of comparisons.
        exact_noise: whether drawn data have the noise of real ones: ties are known, or none.

    Returns:
        Root mean squares in win probability, ``>= 0``.
    """
    typical = max(squared_error - float(null.mean()), 0.0) ** 0.5
    if not exact_noise:
        return typical, squared_error**0.5
    excess = squared_error - float(np.quantile(null, 0.05))
    spread, size = float(null.std()), 0.0
    for _ in range(50):  # converges fast: the right side grows like the root of the left
        size = max(excess + _Z95 * ((spread**2 + size / comparisons) ** 0.5 - spread), 0.0)
    return typical, size**0.5


@dataclass(frozen=True)
class Intransitivity:
    """Share of the squared margins that no rating explains.

    Attributes:
        cyclic_share: as observed; noise raises it.
        corrected: with the noise taken off; None where noise explains everything, or where
            numbers of comparisons are unknown.
        under_bradley_terry: mean over data sets drawn from the fitted model.
        p_value: of the observed share among them.
        ratings: least-squares ratings, in margin.
    """

    cyclic_share: float
    corrected: float | None
    under_bradley_terry: float | None
    p_value: float | None
    ratings: tuple[float, ...]


def intransitivity(
    prefs: np.ndarray, wins: np.ndarray | None, ties: np.ndarray | None, null: Null | None
) -> Intransitivity:
    """Hodge's decomposition of a matrix, with what noise does to it."""
    margin = prefs - 0.5
    if wins is None:
        split = hodge(margin)
        return Intransitivity(split.cyclic_share, None, None, None, tuple(split.ratings.tolist()))
    counts = wins + wins.T
    compared = counts > 0.0
    split = hodge(margin, compared.astype(np.float64))
    tied = np.zeros_like(wins) if ties is None else ties
    # Unbiased for two or more comparisons; a single one says nothing about its variance.
    spread = np.where(compared, (wins - tied / 4.0) / np.maximum(counts, 1.0) - prefs**2, 0.0)
    variance = np.where(counts > 1.0, spread / np.maximum(counts - 1.0, 1e-9), 0.25)
    variance = np.where(counts >= 2.0, variance, 0.25)
    corrected = corrected_cyclic_share(margin, np.maximum(variance, 0.0), compared)
    return Intransitivity(
        cyclic_share=split.cyclic_share,
        corrected=corrected,
        under_bradley_terry=None if null is None else float(null.cyclic_share.mean()),
        p_value=None if null is None else upper_p_value(split.cyclic_share, null.cyclic_share),
        ratings=tuple(split.ratings.tolist()),
    )
