"""Independent ways to the equilibria of a small game, and families of games to try them on."""

import itertools
from fractions import Fraction

import numpy as np
from scipy.optimize import linprog


def skew(matrix):
    lower = np.tril(matrix, -1)
    return lower - lower.T


def uniform(rng, n):
    return 0.5 + skew(rng.random((n, n)) - 0.5)


def noisy_bradley_terry(rng, n):
    scores = rng.normal(size=n)
    margin = 1.0 / (1.0 + np.exp(scores - scores[:, None])) - 0.5
    return 0.5 + skew(np.clip(margin + 0.1 * rng.normal(size=(n, n)), -0.5, 0.5))


def low_rank(rng, n):
    points = rng.normal(size=(n, 4))
    turn = np.kron(np.eye(2), [[0.0, 1.0], [-1.0, 0.0]])
    return 0.5 + skew(1.0 / (1.0 + np.exp(-points @ turn @ points.T)) - 0.5)


def tournament(rng, n):
    return 0.5 + skew(rng.integers(0, 2, (n, n)) - 0.5)


def counts(rng, n):
    """Wins out of eight: many ties."""
    return 0.5 + skew(rng.integers(0, 9, (n, n)) / 8 - 0.5)


def clones(rng, n):
    kinds = rng.integers(0, max(1, n // 2), n)
    return uniform(rng, max(1, n // 2))[np.ix_(kinds, kinds)]


FAMILIES = [uniform, noisy_bradley_terry, low_rank, tournament, counts, clones]


def full_support(rng, n):
    """A game with a positive x such that margin @ x = 0."""
    x = rng.dirichlet(np.full(n, 2.0))
    away = np.eye(n) - np.outer(x, x) / (x @ x)
    margin = away @ skew(rng.normal(size=(n, n))) @ away
    return 0.5 + skew(margin / (2.0 * np.abs(margin).max())), x


def _solve(rows, side):
    """Rational Gauss elimination: the only solution, or None."""
    size = len(side)
    table = [[*row, b] for row, b in zip(rows, side, strict=True)]
    for k in range(size):
        pivot = next((i for i in range(k, len(table)) if table[i][k] != 0), None)
        if pivot is None:
            return None
        table[k], table[pivot] = table[pivot], table[k]
        table[k] = [v / table[k][k] for v in table[k]]
        for i in range(len(table)):
            if i != k and table[i][k] != 0:
                factor = table[i][k]
                table[i] = [a - factor * b for a, b in zip(table[i], table[k], strict=True)]
    return [row[-1] for row in table[:size]]


def vertices(prefs):
    """All vertices of ``{x in simplex : margin @ x <= 0}``, in rational arithmetic."""
    n = len(prefs)
    margin = [[(Fraction(prefs[i, j]) - Fraction(prefs[j, i])) / 2 for j in range(n)]
              for i in range(n)]  # fmt: skip
    units = [[Fraction(int(i == j)) for j in range(n)] for i in range(n)]
    found = set()
    for tight in itertools.combinations(range(2 * n), n - 1):
        rows = [[Fraction(1)] * n, *(units[t] if t < n else margin[t - n] for t in tight)]
        x = _solve(rows, [Fraction(1)] + [Fraction(0)] * (n - 1))
        if x is None or min(x) < 0:
            continue
        if all(sum(a * b for a, b in zip(row, x, strict=True)) <= 0 for row in margin):
            found.add(tuple(x))
    return np.array(sorted(found), dtype=object)


def equilibrium_ranges(prefs):
    """Smallest and largest probability of every response over all equilibria, by HiGHS."""
    n = len(prefs)
    margin = (prefs - prefs.T) / 2
    scale = np.abs(margin).max() or 1.0
    bounds = np.empty((2, n))
    for i in range(n):
        for k, sign in enumerate((1.0, -1.0)):
            found = linprog(sign * np.eye(n)[i], margin / scale, np.zeros(n), np.ones((1, n)), [1],
                            method="highs")  # fmt: skip
            assert found.status == 0
            bounds[k, i] = sign * found.fun
    return bounds


def highs_equilibrium(prefs):
    """Maximin policy from the plain linear programme ``max v : x @ prefs >= v``."""
    n = len(prefs)
    found = linprog(
        np.r_[np.zeros(n), -1.0],
        np.c_[-prefs.T, np.ones(n)],
        np.zeros(n),
        np.r_[np.ones(n), 0.0][None],
        [1],
        [(0, None)] * n + [(None, None)],
        method="highs",
    )
    assert found.status == 0
    return found.x[:n]
