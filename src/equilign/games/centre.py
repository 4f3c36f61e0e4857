"""From the end of the barrier path to the analytic centre of the equilibrium set, exactly.

The path ends near some equilibrium inside the set, but its last long steps leave the middle. By
then it is known who plays (``B``) and who loses strictly (``N``), so the set is

    { x : A_BB x = 0, sum(x) = 1, x > 0, s = -A_NB x > 0 }

and its analytic centre maximises ``sum log x + sum log s``. Newton's method in a basis of the
null space of ``A_BB`` finds it to rounding. If that null space is one line, the equilibrium is
the only one and is read off it.
"""

import numpy as np

from equilign.compiled import over_games, strict_kernel

Array = np.ndarray

_TIE = 1e-13
"""Weights, and slacks in units of the largest margin, below which they count as zero."""

_TRIES = 20
"""How many of the least played responses may turn out not to be played after all."""


@strict_kernel
def _flat_directions(block: Array) -> Array:
    """Orthonormal basis of ``{x : block @ x = 0}``, as columns."""
    _, sizes, directions = np.linalg.svd(block)
    rank = 0
    for size in sizes:
        if size > 3e-14 * len(block):
            rank += 1
    return np.ascontiguousarray(directions[rank:].T)


@strict_kernel
def _without_sum(basis: Array) -> Array:
    """Basis of the directions of ``basis`` that leave the sum as it is, by one reflection."""
    size = basis.shape[1]
    mirror = np.empty(size)
    for j in range(size):
        mirror[j] = basis[:, j].sum()
    mirror[0] += np.copysign(np.sqrt((mirror**2).sum()), mirror[0])
    length = (mirror**2).sum()
    turned = basis.copy()
    for i in range(len(basis)):
        along = 2.0 * (basis[i] * mirror).sum() / length
        for j in range(size):
            turned[i, j] -= along * mirror[j]
    return np.ascontiguousarray(turned[:, 1:])


@strict_kernel
def _climb(x: Array, losing: Array, moves: Array) -> None:
    """Newton on ``sum log x + sum log(losing @ x)`` over ``x + moves @ w``, in place."""
    slopes = losing @ moves
    for _ in range(100):
        slack = losing @ x
        scaled_moves, scaled_slopes = moves.copy(), slopes.copy()
        for i in range(len(x)):
            scaled_moves[i] /= x[i]
        for i in range(len(slack)):
            scaled_slopes[i] /= slack[i]
        gradient = np.zeros(moves.shape[1])
        for i in range(len(x)):
            gradient += scaled_moves[i]
        for i in range(len(slack)):
            gradient += scaled_slopes[i]
        curvature = scaled_moves.T @ scaled_moves + scaled_slopes.T @ scaled_slopes
        step = np.linalg.solve(curvature, gradient)
        decrement = np.sqrt(max((gradient * step).sum(), 0.0))
        if decrement > 0.25:  # the objective is self-concordant: this step stays inside
            step /= 1.0 + decrement
        x += moves @ step
        if decrement < 1e-8:
            return


@strict_kernel
def _settle_among(margin: Array, scale: float, inside: Array, outside: Array, policy: Array) -> int:
    """-1: no equilibrium has this support; else ``policy`` is set: 1 the only one, 0 the centre."""
    block, losing = np.empty((len(inside), len(inside))), np.empty((len(outside), len(inside)))
    for b in range(len(inside)):
        for a in range(len(inside)):
            block[a, b] = margin[inside[a], inside[b]] / scale
        for a in range(len(outside)):
            losing[a, b] = -margin[outside[a], inside[b]] / scale
    flat = _flat_directions(block)
    x = flat @ (flat.T @ policy[inside])
    if flat.shape[1] == 0 or not x.min() > 0.0:
        return -1
    x /= x.sum()
    slack = losing @ x
    least = slack.min() if len(slack) else 1.0
    if not least > -_TIE:
        return -1
    if flat.shape[1] > 1 and least > 0.0:
        _climb(x, losing, _without_sum(flat))
        x /= x.sum()
    policy[:] = 0.0
    for a in range(len(inside)):
        policy[inside[a]] = x[a]
    return 1 if flat.shape[1] == 1 and x.min() > _TIE and least > _TIE else 0


@strict_kernel
def settle(margin: Array, policy: Array) -> bool:
    """Move ``policy`` to the analytic centre, in place; whether it is the only equilibrium.

    Args:
        margin: exactly skew, float64, C-ordered, shape ``(n, n)``.
        policy: an equilibrium up to about 1e-10, positive wherever some equilibrium is.
    """
    size = len(margin)
    scale = np.abs(margin).max()
    if scale == 0.0:
        policy[:] = 1.0 / size
        return size == 1
    payoff = margin @ policy
    order = np.argsort(-policy)
    count = (policy > -payoff / scale).sum()
    for players in range(count, max(0, count - _TRIES), -1):
        found = _settle_among(margin, scale, order[:players], order[players:], policy)
        if found >= 0:
            return found == 1
    return False


@strict_kernel
def _settle_games(
    prefs: Array,
    exist: Array,
    games: Array,
    span: tuple[int, int],
    out: tuple[Array, Array, Array],
) -> None:
    policies, gains, unique = out
    for k in range(span[0], span[1]):
        x = games[k]
        where = np.arange(prefs.shape[1])
        if exist.shape[0] > 0:
            where = np.flatnonzero(exist[x])
        margin = np.zeros((len(where), len(where)))
        for a in range(len(where)):
            for b in range(a):
                i, j = where[a], where[b]
                margin[a, b] = (np.float64(prefs[x, i, j]) - np.float64(prefs[x, j, i])) / 2.0
                margin[b, a] = -margin[a, b]
        policy = policies[k][where]
        unique[k] = settle(margin, policy)
        gain = max((margin @ policy).max(), 0.0)
        if gain <= max(gains[k], 1e-14):
            gains[k] = gain
            for a in range(len(where)):
                policies[k, where[a]] = policy[a]


def settle_games(prefs: Array, exist: Array, games: Array, policies: Array, gains: Array) -> Array:
    """`settle` for the numbered games; updates policies and gains and returns uniqueness.

    Args:
        prefs: shape ``(X, n, n)``, float32 or float64, not copied.
        exist: which responses exist, shape ``(X, n)``, or ``(0, n)`` for all of them.
        games: numbers of the games, shape ``(G,)``.
        policies: ends of the barrier path, shape ``(G, n)``.
        gains: their exploitabilities, shape ``(G,)``.
    """
    unique = np.empty(len(games), dtype=np.bool_)

    def work(start: int, stop: int) -> None:
        _settle_games(prefs, exist, games, (start, stop), (policies, gains, unique))

    over_games(work, len(games), least=max(1, 5_000 // prefs.shape[1] ** 3))
    return unique
