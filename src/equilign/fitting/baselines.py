"""What a judge must beat: knowing nothing, and liking length."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.optimize import minimize_scalar

from equilign.fitting.measures import log_losses
from equilign.formats import PreferencePair


@dataclass(frozen=True)
class LengthJudge:
    """``P = sigmoid(weight * (log(1 + len(a)) - log(1 + len(b))))``, lengths in characters.

    Attributes:
        weight: positive where longer answers won more often among the pairs it was fitted to.
    """

    weight: float

    def margins(self, pairs: Sequence[PreferencePair]) -> np.ndarray:
        """Logit of Pr(chosen beats rejected) of each pair."""
        return self.weight * length_margins(pairs)


def length_margins(pairs: Sequence[PreferencePair]) -> np.ndarray:
    """Difference of log lengths; its sign is the verdict of "the longer answer wins"."""
    chosen = np.array([len(p.chosen) for p in pairs], dtype=np.float64)
    rejected = np.array([len(p.rejected) for p in pairs], dtype=np.float64)
    return np.asarray(np.log1p(chosen) - np.log1p(rejected))


def labels(pairs: Sequence[PreferencePair]) -> np.ndarray:
    """Pr(chosen beats rejected) of each pair."""
    return np.array([p.chosen_prob for p in pairs], dtype=np.float64)


def fit_length_judge(pairs: Sequence[PreferencePair]) -> LengthJudge:
    """The weight with the least log-loss; 0 where all answers are of the same length."""
    margins, prob = length_margins(pairs), labels(pairs)
    if not margins.any():
        return LengthJudge(0.0)
    found = minimize_scalar(
        lambda w: float(log_losses(w * margins, prob).mean()),
        bounds=(-20.0, 20.0),
        method="bounded",
    )
    return LengthJudge(float(found.x))


def label_entropy(pairs: Sequence[PreferencePair]) -> np.ndarray:
    """Entropy of each pair's label, nats: no judge has a smaller log-loss on average."""
    p = labels(pairs)
    inside = (p > 0.0) & (p < 1.0)
    safe = np.where(inside, p, 0.5)
    entropy = -safe * np.log(safe) - (1.0 - safe) * np.log(1.0 - safe)
    return np.asarray(np.where(inside, entropy, 0.0))
