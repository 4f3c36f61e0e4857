"""Equilibria of one large game: the steps of `equilign.games.interior_point` around LAPACK.

NumPy arrays throughout. Where the process has loaded torch anyway, its LU (MKL) is used from
300 responses on, because it is about twice as fast as the one behind scipy.
"""

import sys
from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

Solver = Callable[[np.ndarray], np.ndarray]

FEWEST_FOR_TORCH = 300


def factorise(matrix: Float[np.ndarray, "n n"]) -> Solver:
    """LU of a C-ordered matrix, which is overwritten; returns the function that solves with it."""
    torch: Any = sys.modules.get("torch")
    if torch is not None and len(matrix) >= FEWEST_FOR_TORCH:
        factors, swaps = torch.linalg.lu_factor(torch.from_numpy(matrix))

        def with_torch(side: np.ndarray) -> np.ndarray:
            column = torch.from_numpy(np.ascontiguousarray(side[:, None]))
            solved: np.ndarray = torch.linalg.lu_solve(factors, swaps, column).numpy()[:, 0]
            return solved

        return with_torch
    from scipy.linalg import lapack  # not at start-up: scipy takes a third of a second

    # The transpose of a C-ordered matrix is what LAPACK reads without a copy.
    factors, swaps, _ = lapack.dgetrf(matrix.T, overwrite_a=True)
    return lambda side: lapack.dgetrs(factors, swaps, side, trans=1)[0]


def path(
    margin: Float[np.ndarray, "n n"],
    tau: float,
    log_ref: Float[np.ndarray, " n"],
    enough: float,
) -> Float[np.ndarray, "5 n"]:
    """Follow the barrier until ``n mu <= enough``; the state, policy first."""
    from equilign.games import barrier_kernels as steps

    size = len(margin)
    state, unknowns, matrix = np.empty((5, size)), np.empty((2, size)), np.empty((size, size))
    value = steps.path_start(margin, tau, log_ref, state)
    before = np.inf
    for _ in range(steps.LIMIT):
        mu = steps.path_system(margin, tau, log_ref, value, state, matrix, unknowns)
        if steps.path_ended(size, mu, before, enough):
            break
        before = mu
        solve = factorise(matrix)
        unknowns[:] = solve(unknowns[0]), solve(unknowns[1])
        target = steps.path_correct(mu, state, unknowns)
        unknowns[0] = solve(unknowns[0])
        value = steps.path_advance(target, value, state, unknowns)
    return state


def newton(
    margin: Float[np.ndarray, "n n"],
    tau: float,
    log_ref: Float[np.ndarray, " n"],
    state: Float[np.ndarray, "5 n"],
) -> tuple[Float[np.ndarray, " n"], float]:
    """From the policy in ``state[0]`` to the fixed point: its logarithms and exploitability."""
    from equilign.games import newton_kernels as steps

    size = len(margin)
    solved, theta, space = np.empty((2, size)), np.empty(size), np.empty(size, dtype=np.int64)
    solve: Solver = np.copy
    active = space[:0]
    steps.log_respond(margin, tau, log_ref, theta, state)
    step, before, stage = 0, np.inf, 2
    while True:
        gap = steps.log_gap(margin, tau, log_ref, theta, state)
        if stage == 0:
            return theta, gap
        stage = steps.log_stage(step, gap, before, tau, stage)
        if stage == 2:
            active = space[: steps.log_active(tau, state, space)]
            matrix = np.empty((len(active), len(active)))
            steps.log_system(margin, tau, state, active, matrix, solved[1])
            solve = factorise(matrix)
            solved[1, : len(active)] = solve(solved[1, : len(active)])
        steps.log_side(tau, state, active, solved[0])
        solved[0, : len(active)] = solve(solved[0, : len(active)])
        steps.log_step(margin, tau, theta, state, active, solved, stage == 0)
        step, before = step + 1, gap


def centre(
    margin: Float[np.ndarray, "n n"],
) -> tuple[Float[np.ndarray, " n"], float]:
    """Analytic centre of the equilibrium set, and what a best response gains against it."""
    scale = float(np.abs(margin).max()) or 1.0
    policy = path(margin / scale, 0.0, np.zeros(len(margin)), 1e-14)[0]
    policy[policy < 1e-14] = 0.0
    policy /= policy.sum()
    return policy, max(float((margin @ policy).max()), 0.0)


def fixed_point(
    margin: Float[np.ndarray, "n n"], beta: float, log_ref: Float[np.ndarray, " n"]
) -> tuple[Float[np.ndarray, " n"], float]:
    """Logarithms of the KL-regularised equilibrium, and its exploitability."""
    from equilign.games.interior_point import DIRECT
    from equilign.games.newton_kernels import log_gap

    scale = max(float(np.abs(margin).max()), beta)
    game, tau = margin / scale, beta / scale
    best, gap = log_ref, np.inf
    for attempt in range(0 if tau >= DIRECT else 1, 5):
        if attempt == 0:
            state = np.empty((5, len(game)))
            state[0] = np.exp(log_ref)
        else:
            state = path(game, tau, log_ref, 10.0 ** (-2 * attempt) * tau)
        theta, found = newton(game, tau, log_ref, state)
        if found < gap:
            best, gap = theta, found
        if gap < 1e-13 * tau:
            return best, scale * gap
    # Newton fails where beta is hardly more than rounding; there the path itself is near enough.
    state = path(game, tau, log_ref, max(1e-2 * tau, 1e-16))
    theta = np.log(np.maximum(state[0], 1e-300))
    found = log_gap(game, tau, log_ref, theta, state)
    return (theta, scale * found) if found < gap else (best, scale * gap)
