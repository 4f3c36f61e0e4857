"""Compiled steps of Newton's method in ``log p``; see `equilign.games.interior_point`."""

import numpy as np

from equilign.compiled import strict_kernel
from equilign.games.barrier_kernels import LIMIT, P
from equilign.kernels import payoffs

Array = np.ndarray

_LEAST = -745.0


# -- Newton in theta = log p: state = rows p, sqrt(p), d, payoff, change of payoff ------------

ROOT, D, PAYOFF, MOVED = 1, 2, 3, 4


@strict_kernel
def normalise(logits: Array, policy: Array) -> None:
    """Subtract ``log sum exp`` from the logits and set the policy to their exponentials."""
    top, total = logits[0], 0.0
    for i in range(len(logits)):
        top = max(top, logits[i])
    for i in range(len(logits)):
        policy[i] = np.exp(max(logits[i] - top, _LEAST))
        total += policy[i]
    rest = np.log(total)
    for i in range(len(logits)):
        policy[i] /= total
        logits[i] = (logits[i] - top) - rest


@strict_kernel
def log_respond(margin: Array, tau: float, log_ref: Array, theta: Array, state: Array) -> None:
    """Set theta to the best response to the policy in ``state[P]``."""
    payoffs(margin, state[P], state[PAYOFF])
    for i in range(len(theta)):
        theta[i] = log_ref[i] + state[PAYOFF, i] / tau


@strict_kernel
def _divergence(p: float, best: float, d: float) -> float:
    """``p (exp(-d) - 1 + d)`` where ``best = p exp(-d)``, without cancellation."""
    if abs(d) > 0.1:
        return best - p + p * d
    series = 0.0
    for k in range(11, 1, -1):
        series = (1.0 - series) * d / k
    return p * series * d


@strict_kernel
def log_gap(margin: Array, tau: float, log_ref: Array, theta: Array, state: Array) -> float:
    """Normalise theta; exploitability, from ``d = theta - log(best response)`` without loss."""
    normalise(theta, state[P])
    log_respond(margin, tau, log_ref, state[D], state)
    normalise(state[D], state[ROOT])
    gap = 0.0
    for i in range(len(theta)):
        state[D, i] = theta[i] - state[D, i]
        gap += _divergence(state[P, i], state[ROOT, i], state[D, i])
        state[ROOT, i] = np.sqrt(state[P, i])
    return tau * max(gap, 0.0)


@strict_kernel
def log_active(tau: float, state: Array, active: Array) -> int:
    """Number the responses whose column in the Newton matrix is more than rounding."""
    count = 0
    for i in range(state.shape[1]):
        if state[P, i] > 1e-14 * min(tau, 1.0):
            active[count] = i
            count += 1
    return count


@strict_kernel
def log_system(
    margin: Array, tau: float, state: Array, active: Array, matrix: Array, border: Array
) -> None:
    """Newton matrix over the active responses, columns scaled by sqrt(p), and its border."""
    for a in range(len(active)):
        root = state[ROOT, active[a]]
        line, source = matrix[a], margin[active[a]]
        for b in range(len(active)):
            line[b] = -root * source[active[b]] * state[ROOT, active[b]]
        line[a] = tau
        border[a] = root


@strict_kernel
def log_side(tau: float, state: Array, active: Array, side: Array) -> None:
    """Right-hand side of a Newton step."""
    for a in range(len(active)):
        side[a] = -state[ROOT, active[a]] * tau * state[D, active[a]]


@strict_kernel
def log_step(
    margin: Array, tau: float, theta: Array, state: Array, active: Array, solved: Array, last: bool
) -> None:
    """Move theta, given the solved side and border as rows.

    The relative change is read off the equation: dividing by sqrt(p) would lose small ones.
    Upwards theta moves by log(1 + d), which keeps early steps short; the last one is whole.
    """
    top, bottom = 0.0, 0.0
    for a in range(len(active)):
        top += state[ROOT, active[a]] * solved[0, a]
        bottom += state[ROOT, active[a]] * solved[1, a]
    change = top / bottom
    state[PAYOFF] = 0.0
    for a in range(len(active)):
        i = active[a]
        state[PAYOFF, i] = state[ROOT, i] * (solved[0, a] - change * solved[1, a])
    payoffs(margin, state[PAYOFF], state[MOVED])
    for i in range(len(theta)):
        d = (state[MOVED, i] - change) / tau - state[D, i]
        theta[i] += d if last or d < 0.0 else np.log1p(d)


@strict_kernel
def log_stage(step: int, gap: float, before: float, tau: float, stage: int) -> int:
    """After ``stage``: 0 last step, 1 step with the factors at hand, 2 factorise and step."""
    near = 1e-14 + 1e-16 / tau  # one more step with good factors ends in rounding
    if step == LIMIT or not np.isfinite(gap):
        return 0
    if step == 0:
        return 2
    falling = gap < (1e-2 if stage == 1 else 0.1) * before
    if gap <= tau * near**2 or (gap < 1e-16 * tau and stage == 2 and not falling):
        return 0
    return 1 if gap < 1e-10 * tau and falling else 2
