r"""Which comparisons to put to people first: those whose answers are expected to tell most.

Answers to a prompt have Bradley-Terry scores with a normal prior, ``s ~ N(0, sd^2)`` each, and a
vote says ``i`` beats ``j`` with probability ``sigmoid(s_i - s_j)``. What a vote is expected to tell
about the scores is its mutual information with them,

    I = H(E p) - E H(p),    p = sigmoid(d),    d = s_i - s_j,

``H`` the entropy of a coin in nats and ``E`` over the posterior of ``d``, taken as normal (by
Laplace's method). The model only chooses what to ask; verdicts are shares of votes, and may be as
cyclic as people are.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import expit, xlogy

_NODES, _WEIGHTS = np.polynomial.hermite_e.hermegauss(40)
_WEIGHTS = _WEIGHTS / _WEIGHTS.sum()
_STEPS = 50


@dataclass(frozen=True)
class Votes:
    """What is known about the answers to one prompt.

    Attributes:
        size: number of answers.
        first: one answer of each pair, shape ``(m,)``.
        second: the other one.
        wins: votes for the first, ties half, shape ``(m,)``.
        votes: all votes, shape ``(m,)``.
    """

    size: int
    first: np.ndarray
    second: np.ndarray
    wins: np.ndarray
    votes: np.ndarray


def _coin_entropy(p: np.ndarray) -> np.ndarray:
    return np.asarray(-xlogy(p, p) - xlogy(1.0 - p, 1.0 - p))


def vote_information(mean: np.ndarray, variance: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What one vote tells about a normal score difference.

    Args:
        mean: of the difference, any shape.
        variance: of it, the same shape.

    Returns:
        Mutual information in nats, and the expected Fisher information ``E p (1 - p)``.
    """
    spread = np.sqrt(np.maximum(variance, 0.0))
    p = expit(np.asarray(mean)[..., None] + spread[..., None] * _NODES)
    told = _coin_entropy(p @ _WEIGHTS) - _coin_entropy(p) @ _WEIGHTS
    return np.maximum(told, 0.0), (p * (1.0 - p)) @ _WEIGHTS


def posterior(votes: Votes, sd: float = 1.0) -> tuple[np.ndarray, np.ndarray]:
    """Mode and covariance of the scores, by Newton's method on a concave function.

    Args:
        votes: what people said about this prompt's answers.
        sd: standard deviation of a score before anything is known.
    """
    n = votes.size
    design = np.zeros((len(votes.first), n))
    rows = np.arange(len(votes.first))
    design[rows, votes.first] += 1.0
    design[rows, votes.second] -= 1.0
    scores, precision = np.zeros(n), np.eye(n) / sd**2
    for _ in range(_STEPS):
        p = expit(design @ scores)
        gradient = design.T @ (votes.wins - votes.votes * p) - scores / sd**2
        precision = (design.T * (votes.votes * p * (1.0 - p))) @ design + np.eye(n) / sd**2
        step = np.linalg.solve(precision, gradient)
        scores = scores + step / max(1.0, float(np.abs(step).max()))
        if np.abs(step).max() < 1e-9:
            break
    return scores, np.linalg.inv(precision)


class _Game:
    """One prompt while pairs are chosen: its posterior, and what each pair would tell."""

    def __init__(self, votes: Votes, sd: float) -> None:
        self._votes = votes
        self.scores, self._covariance = posterior(votes, sd)
        self._open = np.ones(len(votes.first), dtype=bool)
        self._measure()

    def _measure(self) -> None:
        i, j, c = self._votes.first, self._votes.second, self._covariance
        variance = c[i, i] + c[j, j] - 2.0 * c[i, j]
        told, self._fisher = vote_information(self.scores[i] - self.scores[j], variance)
        self.told = np.where(self._open, told, -1.0)

    def close(self, pairs: Sequence[int]) -> None:
        """These are not to be chosen."""
        self._open[list(pairs)] = False
        self.told[list(pairs)] = -1.0

    def take(self, pair: int) -> None:
        """Go on as if ``pair`` were answered: one vote's worth is known, not which way."""
        i, j = int(self._votes.first[pair]), int(self._votes.second[pair])
        moved = self._covariance[:, i] - self._covariance[:, j]
        weight = self._fisher[pair] / (1.0 + self._fisher[pair] * (moved[i] - moved[j]))
        self._covariance = self._covariance - weight * np.outer(moved, moved)
        self._open[pair] = False
        self._measure()


def most_informative(
    games: Sequence[Votes], candidates: Sequence[Sequence[int]], budget: int, sd: float = 1.0
) -> list[tuple[int, int, float]]:
    """Pairs to ask, greedily: each is the best one given that those before it are asked.

    Args:
        games: one per prompt.
        candidates: for each game, which of its pairs may be asked.
        budget: how many to choose at most.
        sd: see `posterior`.

    Returns:
        ``(game, pair, nats)``, best first; nats given those before it. Earlier games and pairs
        come first among equals.
    """
    states = [_Game(votes, sd) for votes in games]
    for state, votes, may in zip(states, games, candidates, strict=True):
        state.close(sorted(set(range(len(votes.first))) - set(may)))
    best = np.array([s.told.max(initial=-1.0) for s in states])
    chosen: list[tuple[int, int, float]] = []
    while len(chosen) < budget and best.size and best.max() >= 0.0:
        # Equal up to rounding is equal: the order must not hang on the last bit.
        game = int(np.argmax(best >= best.max() - 1e-12))
        told = states[game].told
        pair = int(np.argmax(told >= told.max() - 1e-12))
        chosen.append((game, pair, float(told[pair])))
        states[game].take(pair)
        best[game] = states[game].told.max(initial=-1.0)
    return chosen
