"""Compiled steps of the barrier path; see `equilign.games.interior_point` for the equations."""

import numpy as np

from equilign.compiled import strict_kernel
from equilign.kernels import payoffs

Array = np.ndarray

LIMIT = 60
"""Newton steps after which a stage gives up."""


# -- the barrier path: state = rows p, s, residual, dp, ds; unknowns = rows a, b --------------

P, S, R, DP, DS = 0, 1, 2, 3, 4


@strict_kernel
def path_start(margin: Array, tau: float, log_ref: Array, state: Array) -> float:
    """The uniform policy with slacks of at least 1; returns the value v."""
    size = len(margin)
    state[P] = 1.0 / size
    state[DP] = 0.0
    state[DS] = 0.0
    payoffs(margin, state[P], state[R])
    least = np.inf
    for i in range(size):
        state[S, i] = tau * (np.log(state[P, i]) - log_ref[i]) - state[R, i]
        least = min(least, state[S, i])
    for i in range(size):
        state[S, i] += 1.0 - least
    return 1.0 - least


@strict_kernel
def path_system(
    margin: Array,
    tau: float,
    log_ref: Array,
    value: float,
    state: Array,
    matrix: Array,
    unknowns: Array,
) -> float:
    """Newton matrix and right-hand sides of the predictor; returns mu."""
    size = len(margin)
    payoffs(margin, state[P], state[R])
    mu = 0.0
    for i in range(size):
        p, s = state[P, i], state[S, i]
        state[R, i] = value - s - state[R, i]
        if tau > 0.0:
            state[R, i] += tau * (np.log(p) - log_ref[i])
        mu += p * s
        line, source = matrix[i], margin[i]
        for j in range(size):
            line[j] = -source[j]
        line[i] = (s + tau) / p
        unknowns[0, i] = -s - state[R, i]
        unknowns[1, i] = 1.0
    return mu / size


@strict_kernel
def path_ended(size: int, mu: float, before: float, enough: float) -> bool:
    """Whether ``n mu <= enough``, or no longer falling because of rounding."""
    return not size * mu > enough or (size * mu < 1e-11 and mu > 0.3 * before)


@strict_kernel
def _direction(state: Array, unknowns: Array, target: float, second: float) -> float:
    """Step in p and s, in place of the former one, from the two solutions; returns that in v."""
    top, bottom, total = 0.0, 0.0, 0.0
    for i in range(state.shape[1]):
        top += unknowns[0, i]
        bottom += unknowns[1, i]
        total += state[P, i]
    change = (top - (1.0 - total)) / bottom
    for i in range(state.shape[1]):
        p, s = state[P, i], state[S, i]
        product = target - p * s - second * state[DP, i] * state[DS, i]
        state[DP, i] = unknowns[0, i] - change * unknowns[1, i]
        state[DS, i] = (product - s * state[DP, i]) / p
    return change


@strict_kernel
def _room(state: Array) -> float:
    """Longest step that keeps p and s non-negative, at most 1."""
    room = 1.0
    for k in range(2):
        for i in range(state.shape[1]):
            step = state[DP + k, i]
            if step < 0.0 and -room * step > state[P + k, i]:
                room = -state[P + k, i] / step
    return room


@strict_kernel
def path_correct(mu: float, state: Array, unknowns: Array) -> float:
    """After the predictor: the corrector's right-hand side; returns its target for mu."""
    size = state.shape[1]
    _direction(state, unknowns, 0.0, 0.0)
    room = _room(state)
    ahead = 0.0
    for i in range(size):
        ahead += (state[P, i] + room * state[DP, i]) * (state[S, i] + room * state[DS, i])
    target = mu * min((max(ahead, 0.0) / size / mu) ** 3, 0.5)
    for i in range(size):
        p, s = state[P, i], state[S, i]
        product = target - p * s - state[DP, i] * state[DS, i]
        unknowns[0, i] = product / p - state[R, i]
    return target


@strict_kernel
def path_advance(target: float, value: float, state: Array, unknowns: Array) -> float:
    """After the corrector: the step; returns the new value v."""
    change = _direction(state, unknowns, target, 1.0)
    room = _room(state)
    if room < 1.0:
        room *= 0.995 if room > 0.9 else 0.95
    for i in range(state.shape[1]):
        state[P, i] += room * state[DP, i]
        state[S, i] += room * state[DS, i]
    return value + room * change
