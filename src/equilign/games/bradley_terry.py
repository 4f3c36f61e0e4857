r"""Bradley-Terry scores: what a reward model fitted to comparisons would say.

The model is ``Pr(i beats j) = sigmoid(score_i - score_j)`` (Bradley and Terry 1952, Biometrika 39).
Its log-likelihood is concave in the scores, so Newton's method with backtracking finds the maximum.
The maximum is finite exactly if every player can be reached from every other one of the same
connected part by a chain of wins (Ford 1957, American Mathematical Monthly 64).
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int

from equilign.errors import ConfigError, DataError
from equilign.games.checks import check_prefs

VANISHING_RIDGE = 1e-6
"""Ridge on the scores where the likelihood has no finite maximum, per mean weight of a pair."""

_TIE_NATS = 1e-9
_CHUNK_BYTES = 2**25


@dataclass(frozen=True, eq=False)
class BradleyTerry:
    """A fitted model of one set of comparisons, or of a batch (one entry per set).

    Attributes:
        scores: nats, shape ``(n,)`` or ``(X, n)``; the mean is zero in every connected part.
        deviance: twice the log-likelihood that the model lacks to the observed shares,
            summed over pairs, ``>= 0``.
        degrees_of_freedom: compared pairs less free scores; the deviance of counts drawn from
            the model is near it on average where counts are large.
        converged: whether the last step was below 1e-9 nats.
        separated: the likelihood has no finite maximum: some group never lost to the rest of
            its part. The scores are then those of a vanishing ridge (`VANISHING_RIDGE`): they
            rank the players and their large differences stand for infinite ones.
        components: number of connected parts of the graph of compared pairs. Scores of
            different parts cannot be compared with one another.
    """

    scores: Float[np.ndarray, "*batch n"]
    deviance: float | Float[np.ndarray, " x"]
    degrees_of_freedom: int | Int[np.ndarray, " x"]
    converged: bool | Bool[np.ndarray, " x"]
    separated: bool | Bool[np.ndarray, " x"]
    components: int | Int[np.ndarray, " x"]

    @property
    def prefs(self) -> Float[np.ndarray, "*batch n n"]:
        """Fitted win probabilities ``sigmoid(score_i - score_j)``."""
        return bradley_terry_prefs(self.scores)

    @property
    def favourite(self) -> int | Int[np.ndarray, " x"]:
        """Player with the highest score; the first one of those within 1e-9 nats of it."""
        top = self.scores.max(axis=-1, keepdims=True)
        first = (self.scores >= top - _TIE_NATS).argmax(axis=-1)
        return int(first) if self.scores.ndim == 1 else first


def bradley_terry_prefs(scores: Float[np.ndarray, "*batch n"]) -> Float[np.ndarray, "*batch n n"]:
    """Win probabilities ``sigmoid(score_i - score_j)`` of scores in nats."""
    return _sigmoid(scores[..., :, None] - scores[..., None, :])


def fit_bradley_terry(
    wins: Float[np.ndarray, "*batch n n"],
    *,
    ridge: float | None = None,
    max_steps: int = 200,
) -> BradleyTerry:
    """Maximum-likelihood Bradley-Terry scores of weighted comparisons.

    Args:
        wins: ``wins[i, j]`` is the weight of comparisons in which i was preferred to j, ``>= 0``;
            a tie adds one half to both; the diagonal is not looked at; a pair that was never
            compared is zero on both sides. A matrix of win probabilities counts every pair once.
            Shape ``(n, n)``, or ``(X, n, n)`` for a batch fitted together.
        ridge: subtract ``ridge / 2 * sum(scores**2)`` from the log-likelihood. Without one:
            zero, and `VANISHING_RIDGE` times the mean weight of a compared pair where the
            likelihood has no finite maximum.
        max_steps: Newton steps before giving up with ``converged=False``.

    Raises:
        DataError: ``wins`` is not square, or has an entry that is negative or not finite.
        ConfigError: a negative ridge, or no steps.
    """
    if ridge is not None and not (np.isfinite(ridge) and ridge >= 0.0):
        raise ConfigError(f"ridge = {ridge}; it must be finite and >= 0")
    if max_steps < 1:
        raise ConfigError(f"max_steps = {max_steps}; at least one Newton step is needed")
    check_wins(wins)
    games = wins[None] if wins.ndim == 2 else wins
    size = games.shape[-1]
    step = max(1, _CHUNK_BYTES // (8 * size * size))
    parts = [
        _fit(games[start : start + step].astype(np.float64), ridge, max_steps)
        for start in range(0, len(games), step)
    ]
    scores, deviance, freedom, converged, separated, components = (
        np.concatenate([part[k] for part in parts]) for k in range(6)
    )
    if wins.ndim == 3:
        return BradleyTerry(scores, deviance, freedom, converged, separated, components)
    return BradleyTerry(
        scores[0],
        float(deviance[0]),
        int(freedom[0]),
        bool(converged[0]),
        bool(separated[0]),
        int(components[0]),
    )


def simulate_wins(
    prefs: Float[np.ndarray, "n n"],
    counts: Float[np.ndarray, "n n"],
    rng: np.random.Generator,
    *,
    samples: int | None = None,
) -> Float[np.ndarray, "*samples n n"]:
    """Wins of ``counts[i, j]`` independent comparisons per pair: the parametric bootstrap.

    A count that is no whole number is rounded up or down at random, right on average.

    Args:
        prefs: Pr(i beats j).
        counts: comparisons per pair, symmetric, ``>= 0``; the diagonal is not looked at.
        rng: source of randomness.
        samples: how many data sets, shape ``(samples, n, n)``; without it one, ``(n, n)``.

    Raises:
        PreferenceMatrixError: ``prefs`` is no matrix of win probabilities.
        DataError: ``counts`` has another shape, or is negative or not symmetric somewhere.
        ConfigError: fewer than one sample.
    """
    check_prefs(prefs)
    if counts.shape != prefs.shape:
        raise DataError(f"counts has shape {counts.shape}, prefs {prefs.shape}; they must agree")
    check_wins(counts, "counts")
    if not np.allclose(counts, counts.T, rtol=1e-9, atol=1e-9):
        i, j = np.unravel_index(np.abs(counts - counts.T).argmax(), counts.shape)
        raise DataError(
            f"counts[{i}, {j}] = {counts[i, j]:g}, but counts[{j}, {i}] = {counts[j, i]:g}; "
            "both are the number of comparisons of that pair (wins + wins.T)"
        )
    if samples is not None and samples < 1:
        raise ConfigError(f"samples = {samples}; at least one is needed")
    repeats = 1 if samples is None else samples
    above, below = np.triu_indices(len(prefs), 1)
    whole = np.floor(counts[above, below] + 1e-9)
    rest = np.clip(counts[above, below] - whole, 0.0, 1.0)
    trials = whole + (rng.random((repeats, len(above))) < rest)
    won = rng.binomial(trials.astype(np.int64), np.clip(prefs[above, below], 0.0, 1.0))
    wins = np.zeros((repeats, *prefs.shape))
    wins[:, above, below] = won
    wins[:, below, above] = trials - won
    return wins[0] if samples is None else wins


def check_wins(wins: Float[np.ndarray, "*batch n m"], name: str = "wins") -> None:
    """Raise unless ``wins`` holds weights of comparisons.

    Raises:
        DataError: not square, empty, or an entry off the diagonal is negative or not finite.
    """
    if wins.ndim not in (2, 3) or wins.shape[-1] != wins.shape[-2] or 0 in wins.shape:
        raise DataError(
            f"{name} has shape {wins.shape}; a square table is needed, one row per player: "
            "(n, n), or (X, n, n) for a batch"
        )
    bad = ~((wins >= 0.0) & (wins < np.inf))
    diagonal = np.arange(wins.shape[-1])
    bad[..., diagonal, diagonal] = False
    if bad.any():
        where = tuple(int(k) for k in np.argwhere(bad)[0])
        raise DataError(
            f"{name}[{', '.join(map(str, where))}] = {wins[where]}; weights of comparisons must be "
            "finite and >= 0. Use 0 for a pair that was never compared."
        )


# -- the fit ------------------------------------------------------------------------------


def _sigmoid(x: np.ndarray) -> np.ndarray:
    tail = np.exp(-np.abs(x))
    return np.where(x >= 0.0, 1.0, tail) / (1.0 + tail)


def _log_sigmoid(x: np.ndarray) -> np.ndarray:
    return np.minimum(x, 0.0) - np.log1p(np.exp(-np.abs(x)))


def _fit(wins: np.ndarray, ridge: float | None, max_steps: int) -> tuple[np.ndarray, ...]:
    """Scores, deviance, degrees of freedom, converged, separated, components of a batch."""
    size = wins.shape[-1]
    wins[:, np.arange(size), np.arange(size)] = 0.0
    counts = wins + wins.swapaxes(1, 2)
    compared = counts > 0.0
    pairs = compared.sum(axis=(1, 2)) // 2
    weight = counts.sum(axis=(1, 2)) / np.maximum(2 * pairs, 1)
    weight[weight == 0.0] = 1.0
    parts = _components(compared)
    separated = ~_strongly_connected(wins > 0.0, parts)
    if ridge is None:
        ridges = np.where(separated, VANISHING_RIDGE * weight, 0.0)
    else:
        ridges = np.full(len(wins), ridge)
    # Scaling the weights leaves the maximum where it is; the deviance is scaled back.
    scaled = wins / weight[:, None, None]
    scores, converged = _newton(scaled, ridges / weight, parts, max_steps)
    number = (parts == np.arange(size)).sum(axis=1)
    deviance = _deviance(wins, counts, scores)
    return scores, deviance, pairs - (size - number), converged, separated, number


def _newton(
    wins: np.ndarray, ridges: np.ndarray, parts: np.ndarray, max_steps: int
) -> tuple[np.ndarray, np.ndarray]:
    """Scores and whether they converged; ``parts`` names the connected part of each player."""
    games, size = wins.shape[:2]
    scores = np.zeros((games, size))
    converged = np.zeros(games, dtype=bool)
    left = np.arange(games)
    likelihood = _likelihood(wins, ridges, scores)
    for _ in range(max_steps):
        part, penalty, current, before = wins[left], ridges[left], scores[left], likelihood[left]
        step = _newton_step(part, penalty, parts[left], current)
        moved = np.abs(step).max(axis=1)
        scale, trying = np.ones(len(left)), np.arange(len(left))
        for _ in range(40):  # backtracking: the likelihood must not fall
            new = current[trying] + scale[trying, None] * step[trying]
            value = _likelihood(part[trying], penalty[trying], new)
            likelihood[left[trying]] = value
            slack = 1e-13 * (1.0 + np.abs(before[trying]))
            trying = trying[value < before[trying] - slack]
            if not trying.size:
                break
            scale[trying] /= 2.0
        scores[left] = current + scale[:, None] * step
        done = (moved <= _TIE_NATS) & (scale == 1.0)
        converged[left[done]] = True
        left = left[~done]
        if not left.size:
            break
    return scores, converged


def _newton_step(
    wins: np.ndarray, ridges: np.ndarray, parts: np.ndarray, scores: np.ndarray
) -> np.ndarray:
    """The Newton step at ``scores``, of mean zero in every part."""
    size = scores.shape[1]
    beats = _sigmoid(scores[:, :, None] - scores[:, None, :])
    counts = wins + wins.swapaxes(1, 2)
    gradient = (wins - counts * beats).sum(axis=2) - ridges[:, None] * scores
    hessian = -counts * beats * beats.swapaxes(1, 2)
    diagonal = np.arange(size)
    curvature = -hessian.sum(axis=2)
    hessian[:, diagonal, diagonal] = curvature + ridges[:, None]
    # Adding a constant to a part's scores changes nothing: fix it by a matrix of rank one each.
    same = parts[:, :, None] == parts[:, None, :]
    typical = np.maximum(curvature.mean(axis=1), 1e-300) / size
    hessian += np.where(same, typical[:, None, None], 0.0)
    alone = same.sum(axis=2) == 1
    hessian[:, diagonal, diagonal] = np.where(alone, 1.0, hessian[:, diagonal, diagonal])
    step = np.linalg.solve(hessian, gradient[:, :, None])[:, :, 0]
    for_part = same / same.sum(axis=2, keepdims=True)
    return step - np.matmul(for_part, step[:, :, None])[:, :, 0]


def _likelihood(wins: np.ndarray, ridges: np.ndarray, scores: np.ndarray) -> np.ndarray:
    difference = scores[:, :, None] - scores[:, None, :]
    log_beats = _log_sigmoid(difference)
    penalty = ridges / 2.0 * (scores**2).sum(axis=1)
    return np.einsum("xij,xij->x", wins, log_beats) - penalty


def _deviance(wins: np.ndarray, counts: np.ndarray, scores: np.ndarray) -> np.ndarray:
    share = np.divide(wins, counts, out=np.zeros_like(wins), where=counts > 0.0)
    log_share = np.log(share, out=np.zeros_like(wins), where=share > 0.0)
    lacking = wins * (log_share - _log_sigmoid(scores[:, :, None] - scores[:, None, :]))
    return np.maximum(2.0 * lacking.sum(axis=(1, 2)), 0.0)


def _components(compared: np.ndarray) -> np.ndarray:
    """Smallest player of the connected part of each player, shape ``(X, n)``."""
    games, size = compared.shape[:2]
    parts = np.broadcast_to(np.arange(size), (games, size)).copy()
    while True:
        nearby = np.where(compared, parts[:, None, :], size).min(axis=2)
        smaller = np.minimum(parts, nearby)
        if (smaller == parts).all():
            return parts
        parts = smaller


def _strongly_connected(beats: np.ndarray, parts: np.ndarray) -> np.ndarray:
    """Whether in every part a chain of wins leads from each player to each other one."""
    first = parts == np.arange(parts.shape[1])
    down = _reached(first, beats)
    up = _reached(first, beats.swapaxes(1, 2))
    return (down & up).all(axis=1)


def _reached(start: np.ndarray, edges: np.ndarray) -> np.ndarray:
    reached = start
    while True:
        more = reached | (edges & reached[:, :, None]).any(axis=1)
        if (more == reached).all():
            return reached
        reached = more
