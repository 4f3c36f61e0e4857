r"""Equilibria by Newton's method, with or without a KL penalty: the compiled steps.

One system serves both games. With ``A`` the skew margin and ``tau >= 0`` the KL weight, a
symmetric equilibrium ``p`` and a value ``v`` satisfy

    s = v - A p + tau (log p - log ref),    p_i s_i = mu,    sum(p) = 1

in the limit ``mu -> 0``. For ``tau = 0`` the path ends in the analytic centre of the equilibrium
set and ``v = n mu`` bounds the exploitability all along it. For ``tau > 0`` the path only leads
near the fixed point ``p ~ ref exp(A p / tau)``; Newton's method then finishes in
``log p``, where probabilities of 1e-200 keep their digits.

The steps are separate functions around the linear solves, because those are done by a compiled
elimination for small games (`run`) and by LAPACK for large ones (`equilign.games.large`):
`equilign.games.barrier_kernels` and `equilign.games.newton_kernels`.

References:
    Mehrotra 1992, "On the implementation of a primal-dual interior point method". Analytic
    centres of complementarity problems: McLinden 1980.
"""

import numpy as np

from equilign.compiled import kernel, over_games, strict_kernel
from equilign.games.barrier_kernels import (
    LIMIT,
    P,
    S,
    path_advance,
    path_correct,
    path_ended,
    path_start,
    path_system,
)
from equilign.games.newton_kernels import (
    log_active,
    log_gap,
    log_respond,
    log_side,
    log_stage,
    log_step,
    log_system,
)
from equilign.kernels import payoffs

Array = np.ndarray

DIRECT = 0.15
"""KL weight, in units of the largest margin, from which on no barrier path is needed."""


@kernel
def _factor(matrix: Array, swaps: Array, pivot: Array) -> None:
    """LU with row exchanges, in place; ``pivot`` is a buffer.

    The buffer, and slices in place of ranges that start late, let the inner loop become SIMD.
    """
    size = len(matrix)
    for k in range(size):
        chosen = k
        for i in range(k + 1, size):
            if abs(matrix[i, k]) > abs(matrix[chosen, k]):
                chosen = i
        swaps[k] = chosen
        line = matrix[chosen]
        for j in range(size):
            pivot[j] = line[j]
        if chosen != k:
            other = matrix[k]
            for j in range(size):
                line[j] = other[j]
                other[j] = pivot[j]
        inverse, rest = 1.0 / pivot[k], pivot[k + 1 : size]
        for i in range(k + 1, size):
            line = matrix[i]
            factor = line[k] * inverse
            line[k] = factor
            tail = line[k + 1 :]
            for j in range(len(rest)):
                tail[j] -= factor * rest[j]


@kernel
def _substitute(matrix: Array, swaps: Array, vector: Array) -> None:
    size = len(matrix)
    for k in range(size):
        other = swaps[k]
        vector[k], vector[other] = vector[other], vector[k]
    for i in range(1, size):
        line = matrix[i]
        total = 0.0
        for j in range(i):
            total += line[j] * vector[j]
        vector[i] -= total
    for i in range(size - 1, -1, -1):
        tail, known = matrix[i, i + 1 :], vector[i + 1 : size]
        total = 0.0
        for j in range(len(known)):
            total += tail[j] * known[j]
        vector[i] = (vector[i] - total) / matrix[i, i]


# -- both, with the compiled elimination ----------------------------------------------------


@strict_kernel
def _path(
    margin: Array,
    tau: float,
    log_ref: Array,
    enough: float,
    work: Array,
    matrix: Array,
    ints: Array,
) -> None:
    """Follow the barrier until ``n mu <= enough``; the policy is then in ``work[P]``."""
    state, unknowns, swaps = work[:5], work[5:7], ints[0]
    value = path_start(margin, tau, log_ref, state)
    before = np.inf
    for _ in range(LIMIT):
        mu = path_system(margin, tau, log_ref, value, state, matrix, unknowns)
        if path_ended(len(margin), mu, before, enough):
            break
        before = mu
        _factor(matrix, swaps, work[10])
        _substitute(matrix, swaps, unknowns[0])
        _substitute(matrix, swaps, unknowns[1])
        target = path_correct(mu, state, unknowns)
        _substitute(matrix, swaps, unknowns[0])
        value = path_advance(target, value, state, unknowns)


@strict_kernel
def _newton(
    margin: Array, tau: float, log_ref: Array, theta: Array, work: Array, matrix: Array, ints: Array
) -> float:
    """From the policy in ``work[P]`` to the fixed point, as theta; returns its gap."""
    state, solved, swaps, space = work[:5], work[5:7], ints[0], matrix.reshape(-1)
    log_respond(margin, tau, log_ref, theta, state)
    step, before, count, stage = 0, np.inf, 0, 2
    while True:
        gap = log_gap(margin, tau, log_ref, theta, state)
        if stage == 0:
            return gap
        stage = log_stage(step, gap, before, tau, stage)
        if stage == 2:
            count = log_active(tau, state, ints[1])
        active, block = ints[1, :count], space[: count * count].reshape(count, count)
        if stage == 2:
            log_system(margin, tau, state, active, block, solved[1])
            _factor(block, swaps, work[10])
            _substitute(block, swaps, solved[1])
        log_side(tau, state, active, solved[0])
        _substitute(block, swaps, solved[0])
        log_step(margin, tau, theta, state, active, solved, stage == 0)
        step, before = step + 1, gap


@strict_kernel
def _fixed_point(
    margin: Array, tau: float, log_ref: Array, theta: Array, work: Array, matrix: Array, ints: Array
) -> float:
    """Newton from the reference where the penalty is strong, else from near the path's end."""
    best = np.inf
    theta[:] = log_ref
    for attempt in range(0 if tau >= DIRECT else 1, 5):
        if attempt == 0:
            work[P] = np.exp(log_ref)
        else:
            _path(margin, tau, log_ref, 10.0 ** (-2 * attempt) * tau, work, matrix, ints)
        gap = _newton(margin, tau, log_ref, work[7], work, matrix, ints)
        if gap < best:
            best = gap
            theta[:] = work[7]
        if best < 1e-13 * tau:
            return best
    # Newton fails where beta is hardly more than rounding; there the path itself is near enough.
    _path(margin, tau, log_ref, max(1e-2 * tau, 1e-16), work, matrix, ints)
    work[7] = np.log(np.maximum(work[P], 1e-300))
    gap = log_gap(margin, tau, log_ref, work[7], work[:5])
    if gap < best:
        best = gap
        theta[:] = work[7]
    return best


@strict_kernel
def _centre(margin: Array, log_ref: Array, work: Array, matrix: Array, ints: Array) -> float:
    """End of the unregularised path without the rounding of zeros; returns the exploitability."""
    _path(margin, 0.0, log_ref, 1e-16, work, matrix, ints)
    policy = work[P]
    for i in range(len(margin)):
        if policy[i] < 1e-14:
            policy[i] = 0.0
    policy /= policy.sum()
    payoffs(margin, policy, work[S])
    return max(work[S].max(), 0.0)


@strict_kernel
def _gather(
    prefs: Array, x: int, where: Array, log_ref: Array, logs: Array, margin: Array, scale: float
) -> float:
    """Exactly skew margin and log-reference of game x, the margin in units of the answer."""
    for a in range(len(where)):
        i = where[a]
        logs[a] = log_ref[i]
        margin[a, a] = 0.0
        for b in range(a):
            j = where[b]
            half = (np.float64(prefs[x, i, j]) - np.float64(prefs[x, j, i])) / 2.0
            margin[a, b] = half
            scale = max(scale, abs(half))
    scale = scale if scale > 0.0 else 1.0
    for a in range(len(where)):
        for b in range(a):
            margin[a, b] /= scale
            margin[b, a] = -margin[a, b]
    return scale


@strict_kernel
def _players(exist: Array, x: int, log_ref: Array, where: Array) -> int:
    """Write down the responses of game x that exist and that the reference plays."""
    count = 0
    for i in range(len(log_ref)):
        if (exist.shape[0] == 0 or exist[x, i]) and log_ref[i] > -np.inf:
            where[count] = i
            count += 1
    return count


@strict_kernel
def _solve(
    prefs: Array,
    exist: Array,
    beta: float,
    log_ref: Array,
    games: Array,
    span: tuple[int, int],
    out: tuple[Array, Array],
) -> None:
    most = prefs.shape[1]
    squares, matrices, lines = np.empty(most * most), np.empty(most * most), np.empty(11 * most)
    where, space = np.empty(most, np.int64), np.empty(2 * most, np.int64)
    answers, gains = out
    for k in range(span[0], span[1]):
        x = games[k]
        reference = log_ref[min(x, len(log_ref) - 1)]
        size = _players(exist, x, reference, where)
        margin = squares[: size * size].reshape(size, size)
        matrix = matrices[: size * size].reshape(size, size)
        ints, work = space[: 2 * size].reshape(2, size), lines[: 11 * size].reshape(11, size)
        logs, theta = work[8], work[9]
        scale = _gather(prefs, x, where[:size], reference, logs, margin, beta)
        if beta > 0.0:
            gain = _fixed_point(margin, beta / scale, logs, theta, work, matrix, ints)
        else:
            gain = _centre(margin, logs, work, matrix, ints)
            theta = work[P]
        gains[k] = scale * gain
        answers[k] = -np.inf if beta > 0.0 else 0.0
        for i in range(size):
            answers[k, where[i]] = theta[i]


def run(
    prefs: Array, exist: Array, beta: float, log_ref: Array, games: Array
) -> tuple[Array, Array]:
    """Solve the numbered games, some to each thread.

    Args:
        prefs: shape ``(X, n, n)``, float32 or float64, not copied.
        exist: which responses exist, shape ``(X, n)``, or ``(0, n)`` for all of them.
        beta: KL weight; 0 for the analytic centre of the equilibrium set.
        log_ref: shape ``(1, n)`` or ``(X, n)``, ``-inf`` where the reference is 0; zeros for
            ``beta = 0``.
        games: numbers of the games to solve, shape ``(G,)``.

    Returns:
        Policies (for ``beta > 0`` their logarithms), shape ``(G, n)``, and exploitabilities,
        shape ``(G,)``.
    """
    out = np.empty((len(games), prefs.shape[1])), np.empty(len(games))

    def work(start: int, stop: int) -> None:
        _solve(prefs, exist, float(beta), log_ref, games, (start, stop), out)

    over_games(work, len(games), least=max(1, 5_000 // prefs.shape[1] ** 3))
    return out
