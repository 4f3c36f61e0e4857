"""Bradley-Terry by penalised maximum likelihood, and how well it predicts."""

import math
from dataclasses import dataclass

import numpy as np
from ratings import Comparison, bucket
from scipy.optimize import minimize

from equilign.oracles.reward_heads import STYLE_CAP, bounded_style
from equilign.oracles.text_features import WordTables, fault_vector, phrase_vector, phrases

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


@dataclass(frozen=True, eq=False)
class Features:
    """What the model sees of n pairs.

    Attributes:
        faults: faults of b minus faults of a, shape (n, f), so that a weight is a cost.
        style_a: phrase shares of a, shape (n, p).
        style_b: phrase shares of b, shape (n, p).
    """

    faults: np.ndarray
    style_a: np.ndarray
    style_b: np.ndarray

    def rows(self, keep: np.ndarray) -> "Features":
        """The pairs of a mask, shape (n,)."""
        return Features(self.faults[keep], self.style_a[keep], self.style_b[keep])

    def logits(self, weights: np.ndarray) -> np.ndarray:
        """``score(a) - score(b)`` for weights of shape (f + p,): faults, then phrases."""
        costs, worth = np.split(weights, [self.faults.shape[1]])
        style = bounded_style(self.style_a @ worth) - bounded_style(self.style_b @ worth)
        return self.faults @ costs + style


def objective(
    weights: np.ndarray, x: Features, signs: np.ndarray, mean: np.ndarray, ridge: np.ndarray
) -> tuple[float, np.ndarray]:
    """Penalised negative log-likelihood of Bradley-Terry, and its gradient.

    Args:
        weights: shape (f + p,).
        x: the pairs.
        signs: +1 where a was rated above b, -1 where below, shape (n,).
        mean: prior mean, shape (f + p,).
        ridge: prior precision, shape (f + p,).
    """
    z = signs * x.logits(weights)
    off = weights - mean
    value = np.logaddexp(0.0, -z).sum() + 0.5 * (ridge * off**2).sum()
    pull = signs * np.exp(-np.logaddexp(0.0, z))
    worth = weights[x.faults.shape[1] :]
    slope_a, slope_b = (
        pull * (1 - np.tanh(style @ worth / STYLE_CAP) ** 2) for style in (x.style_a, x.style_b)
    )
    gain = np.r_[x.faults.T @ pull, x.style_a.T @ slope_a - x.style_b.T @ slope_b]
    return float(value), ridge * off - gain


def fit_weights(x: Features, signs: np.ndarray, penalty: Penalty) -> np.ndarray:
    """Weights of least `objective`, shape (f + p,); fault costs are held >= 0.

    The bound on style makes the objective slightly non-convex; the search always starts from
    the prior mean, so that it ends in the same place every time.
    """
    faults, known = x.faults.shape[1], x.style_a.shape[1]
    mean = np.r_[np.full(faults, penalty.fault_cost), np.zeros(known)]
    ridge = np.r_[np.full(faults, penalty.fault_ridge), np.full(known, penalty.phrase_ridge)]
    bounds = [(0.0, None)] * faults + [(None, None)] * known
    options = {"maxiter": 2000, "ftol": 1e-9, "gtol": 1e-4}
    return minimize(
        objective, mean, (x, signs, mean, ridge), "L-BFGS-B", True, bounds=bounds, options=options
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


def pair_features(
    comparisons: list[Comparison], tables: WordTables, known: dict[str, int]
) -> Features:
    """Features of all pairs."""
    fault_rows, style_a, style_b = [], [], []
    for c in comparisons:
        a, b = fault_vector(c.prompt, c.a, tables), fault_vector(c.prompt, c.b, tables)
        fault_rows.append(b - a)
        style_a.append(phrase_vector(c.prompt, c.a, known))
        style_b.append(phrase_vector(c.prompt, c.b, known))
    return Features(np.array(fault_rows), np.array(style_a), np.array(style_b))


def margins(comparisons: list[Comparison], attribute: str) -> np.ndarray:
    """Rating of a minus rating of b, shape (n,)."""
    return np.array([c.margin[attribute] for c in comparisons])


def folds(comparisons: list[Comparison]) -> np.ndarray:
    """Fold of each comparison; all of one meaning representation share one. Shape (n,)."""
    return np.array([bucket(c.group, FOLDS, "fold:") for c in comparisons])


def cross_validated(
    blocks: dict[int, Features], fold: np.ndarray, margin: np.ndarray, penalty: Penalty
) -> np.ndarray:
    """Out-of-fold logits, shape (n,).

    Args:
        blocks: per fold the features of all n pairs, made without a look at that fold.
        fold: fold of each pair, shape (n,).
        margin: rating margins, shape (n,).
        penalty: as for `fit_weights`.
    """
    logits = np.zeros(len(margin))
    for number, x in blocks.items():
        use = (fold != number) & (margin != 0)
        weights = fit_weights(x.rows(use), np.sign(margin[use]), penalty)
        logits[fold == number] = x.rows(fold == number).logits(weights)
    return logits
