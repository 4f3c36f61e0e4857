"""Small games that several files play."""

import numpy as np

from equilign.games import PreferenceGame

COMAL = np.array([[0.5, 0.1, 0.8], [0.9, 0.5, 0.1], [0.2, 0.9, 0.5]])
COMAL_NASH = np.array([4.0, 3.0, 4.0]) / 11.0
# Row 0 beats row 1, and so on round.
SIGNS = np.array([[0.5, 1.0, 0.0], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]])
CYCLE59 = np.array([[0.5, 5 / 9, 4 / 9], [4 / 9, 0.5, 5 / 9], [5 / 9, 4 / 9, 0.5]])
START = np.array([0.2, 0.5, 0.3])


def random_matrix(seed, size):
    """Lower triangle uniform, as in EGPO's simulations."""
    lower = np.tril(np.random.default_rng(seed).random((size, size)), -1)
    return lower + np.triu(1.0 - lower.T, 1) + 0.5 * np.eye(size)


def random_game(seed, size, beta=0.0):
    rng = np.random.default_rng([seed, 7])
    return PreferenceGame(random_matrix(seed, size), rng.dirichlet(np.ones(size)), beta)


def interior_game(seed):
    """Three responses with an equilibrium inside the simplex, and that equilibrium."""
    a, b, c = np.random.default_rng(seed).uniform(0.05, 0.45, 3)
    margin = np.array([[0.0, a, -b], [-a, 0.0, c], [b, -c, 0.0]])
    return PreferenceGame(0.5 + margin), np.array([c, b, a]) / (a + b + c)


def fixed_point(prefs, ref, beta, steps=20_000, eta=0.5):
    """The regularised equilibrium by plain damped iteration in numpy, for small games."""
    log_pi = np.log(ref)
    for _ in range(steps):
        best = np.log(ref) + prefs @ np.exp(log_pi) / beta
        log_pi = log_pi + eta * beta * (best - log_pi)
        log_pi -= np.log(np.exp(log_pi).sum())
    return np.exp(log_pi)
