"""Bradley-Terry by penalised maximum likelihood, and how well it predicts."""

import math
from dataclasses import dataclass

import numpy as np
from ratings import Comparison, bucket
from scipy.optimize import minimize

from equilign.oracles.text_features import (
    FAULTS,
    WordTables,
    fault_vector,
    phrase_vector,
    phrases,
)

FOLDS = 5
LEAST_PAIRS = 20
"""A phrase is known when it occurs in this many rated sentences of the training data."""


@dataclass(frozen=True)
class Penalty:
    """Gaussian prior of the weights; precisions in 1/logit².

    Attributes:
        fault_cost: prior mean of the cost of a complete fault, in logits. Above 0, so that a
            fault the rated sentences never show (no full stop, ten repetitions) still costs.
        fault_ridge: how firmly fault costs are held to it.
        phrase_ridge: how firmly phrase weights are held to 0.
    """

    fault_cost: float
    fault_ridge: float
    phrase_ridge: float


@dataclass(frozen=True)
class Measure:
    """Prediction of the pairs that are no tie.

    Attributes:
        pairs: how many there are.
        ties: how many pairs of equal rating were left out.
        accuracy: share predicted right; an undecided prediction counts one half.
        low: lower end of the 95 % Wilson interval.
        high: upper end.
        log_loss: mean of -ln Pr(observed order); ln 2 = 0.693 for a coin.
    """

    pairs: int
    ties: int
    accuracy: float
    low: float
    high: float
    log_loss: float


def wilson(share: float, n: int, z: float = 1.959964) -> tuple[float, float]:
    """95 % interval of a share (Wilson 1927, JASA 22:209-212)."""
    if n == 0:
        return 0.0, 1.0
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    return centre - half, centre + half


def measure(logits: np.ndarray, margins: np.ndarray) -> Measure:
    """Compare ``score(a) - score(b)`` with the sign of the rating margin, both shape (n,)."""
    decided = margins != 0
    signed = (logits * np.sign(margins))[decided]
    n = int(decided.sum())
    accuracy = float(((signed > 0) + 0.5 * (signed == 0)).mean()) if n else float("nan")
    loss = float(np.logaddexp(0.0, -signed).mean()) if n else float("nan")
    low, high = wilson(accuracy, n)
    return Measure(n, int((~decided).sum()), accuracy, low, high, loss)


def objective(
    weights: np.ndarray, x: np.ndarray, signs: np.ndarray, mean: np.ndarray, ridge: np.ndarray
) -> tuple[float, np.ndarray]:
    """Penalised negative log-likelihood of Bradley-Terry, and its gradient.

    Args:
        weights: shape (d,).
        x: features of a minus features of b, shape (n, d).
        signs: +1 where a was rated above b, -1 where below, shape (n,).
        mean: prior mean, shape (d,).
        ridge: prior precision, shape (d,).
    """
    z = signs * (x @ weights)
    off = weights - mean
    value = np.logaddexp(0.0, -z).sum() + 0.5 * (ridge * off**2).sum()
    wrong = np.exp(-np.logaddexp(0.0, z))
    return float(value), ridge * off - x.T @ (signs * wrong)


def fit_weights(x: np.ndarray, signs: np.ndarray, penalty: Penalty, faults: int) -> np.ndarray:
    """Weights of least `objective`; the first ``faults`` columns are held >= 0.

    Their columns must hold minus the faults, so that a weight is a cost.
    """
    rest = x.shape[1] - faults
    mean = np.r_[np.full(faults, penalty.fault_cost), np.zeros(rest)]
    ridge = np.r_[np.full(faults, penalty.fault_ridge), np.full(rest, penalty.phrase_ridge)]
    bounds = [(0.0, None)] * faults + [(None, None)] * rest
    arguments = (x, signs, mean, ridge)
    options = {"maxiter": 2000, "ftol": 1e-12, "gtol": 1e-7}
    return minimize(
        objective, mean, arguments, "L-BFGS-B", jac=True, bounds=bounds, options=options
    ).x


def known_phrases(comparisons: list[Comparison]) -> dict[str, int]:
    """Phrases that occur in at least `LEAST_PAIRS` of the rated sentences, with their place."""
    counts: dict[str, int] = {}
    for c in comparisons:
        for answer in (c.a, c.b):
            for phrase in phrases(c.prompt, answer):
                counts[phrase] = counts.get(phrase, 0) + 1
    kept = sorted(phrase for phrase, count in counts.items() if count >= LEAST_PAIRS)
    return {phrase: place for place, phrase in enumerate(kept)}


def fault_differences(comparisons: list[Comparison], tables: WordTables) -> np.ndarray:
    """Faults of b minus faults of a, shape (n, len(FAULTS))."""
    rows = [
        fault_vector(c.prompt, c.b, tables) - fault_vector(c.prompt, c.a, tables)
        for c in comparisons
    ]
    return np.array(rows).reshape(-1, len(FAULTS))


def phrase_differences(comparisons: list[Comparison], known: dict[str, int]) -> np.ndarray:
    """Phrases of a minus phrases of b, shape (n, len(known))."""
    rows = [
        phrase_vector(c.prompt, c.a, known) - phrase_vector(c.prompt, c.b, known)
        for c in comparisons
    ]
    return np.array(rows).reshape(-1, len(known))


def margins(comparisons: list[Comparison], attribute: str) -> np.ndarray:
    """Rating of a minus rating of b, shape (n,)."""
    return np.array([c.margin[attribute] for c in comparisons])


def folds(comparisons: list[Comparison]) -> np.ndarray:
    """Fold of each comparison; all of one meaning representation share one. Shape (n,)."""
    return np.array([bucket(c.group, FOLDS, "fold:") for c in comparisons])


def cross_validated(
    blocks: dict[int, tuple[np.ndarray, int]], fold: np.ndarray, margin: np.ndarray, p: Penalty
) -> np.ndarray:
    """Out-of-fold logits, shape (n,).

    Args:
        blocks: per fold the feature differences of all pairs, (n, d), and how many leading
            columns are faults; made without that fold's pairs.
        fold: fold of each pair, shape (n,).
        margin: rating margins, shape (n,).
        p: the penalty.
    """
    logits = np.zeros(len(margin))
    for number, (x, faults) in blocks.items():
        use = (fold != number) & (margin != 0)
        weights = fit_weights(x[use], np.sign(margin[use]), p, faults)
        logits[fold == number] = x[fold == number] @ weights
    return logits
