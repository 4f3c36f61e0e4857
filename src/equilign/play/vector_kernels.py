"""Compiled pieces that dynamics are made of: vectors of one game, or of several in lanes.

Entry ``i`` of game ``k`` of ``lanes`` games lies at ``i * lanes + k``.
"""

import math

import numpy as np

from equilign.compiled import borrowing
from equilign.kernels import LEAST, exp

Array = np.ndarray

_NOTHING = 1e-290


@borrowing
def matvec(a: Array, x: Array, out: Array) -> None:
    """``out = a x`` in every lane, ``a`` of shape ``(m, m * lanes)``."""
    size = a.shape[0]
    lanes = x.shape[0] // size
    if lanes == 1:
        for i in range(size):
            row = a[i]
            total = 0.0
            for j in range(size):
                total += row[j] * x[j]
            out[i] = total
        return
    for i in range(size):
        row, mine = a[i], out[i * lanes : (i + 1) * lanes]
        for k in range(lanes):
            mine[k] = row[k] * x[k]
        for j in range(1, size):
            entries, theirs = row[j * lanes : (j + 1) * lanes], x[j * lanes : (j + 1) * lanes]
            for k in range(lanes):
                mine[k] += entries[k] * theirs[k]


@borrowing
def copy(source: Array, target: Array) -> None:
    """``target = source``; array assignment costs more than a short loop."""
    for i in range(source.shape[0]):
        target[i] = source[i]


@borrowing
def softmax(logits: Array, probs: Array, at: int, stopped: Array, work: Array) -> None:
    """Shift ``logits`` to maximum 0 and set ``probs``; note ``at`` where one is not finite."""
    lanes = stopped.shape[0]
    if lanes > 1:
        softmax_lanes(logits, probs, at, stopped, work)
        return
    top = -np.inf
    for i in range(logits.shape[0]):
        top = max(top, logits[i])
    for i in range(logits.shape[0]):
        logits[i] -= top
    total = 0.0
    for i in range(logits.shape[0]):
        probs[i] = exp(max(logits[i], LEAST))
        total += probs[i]
    scale = 1.0 / total
    for i in range(logits.shape[0]):
        probs[i] *= scale
    if stopped[0] < 0 and not (-np.inf < top < np.inf and 0.0 < total < np.inf):
        stopped[0] = at


@borrowing
def softmax_lanes(logits: Array, probs: Array, at: int, stopped: Array, work: Array) -> None:
    """`softmax` for more than one lane."""
    lanes = stopped.shape[0]
    size = logits.shape[0] // lanes
    top, total = work[0, :lanes], work[1, :lanes]
    for k in range(lanes):
        top[k], total[k] = -np.inf, 0.0
    for i in range(size):
        row = logits[i * lanes : (i + 1) * lanes]
        for k in range(lanes):
            top[k] = max(top[k], row[k])
    for i in range(size):
        row, out = logits[i * lanes : (i + 1) * lanes], probs[i * lanes : (i + 1) * lanes]
        for k in range(lanes):
            row[k] -= top[k]
            value = exp(max(row[k], LEAST))
            out[k] = value
            total[k] += value
    for k in range(lanes):
        if stopped[k] < 0 and not (-np.inf < top[k] < np.inf and 0.0 < total[k] < np.inf):
            stopped[k] = at
        total[k] = 1.0 / total[k]
    for i in range(size):
        out = probs[i * lanes : (i + 1) * lanes]
        for k in range(lanes):
            out[k] *= total[k]


@borrowing
def project_lanes(points: Array, probs: Array, at: int, stopped: Array, work: Array) -> None:
    """Project every lane; note ``at`` where something is not finite."""
    lanes = stopped.shape[0]
    size = points.shape[0] // lanes
    point, result = work[0, :size], work[1, :size]
    for k in range(lanes):
        for i in range(size):
            point[i] = points[i * lanes + k]
        if not project(point, result) and stopped[k] < 0:
            stopped[k] = at
        for i in range(size):
            probs[i * lanes + k] = result[i]


@borrowing
def project(point: Array, probs: Array) -> bool:
    """Nearest point of the simplex (Michelot 1986); False where something is not finite."""
    total = 0.0
    for i in range(point.shape[0]):
        total += point[i]
    if not (-np.inf < total < np.inf):
        return False
    count = point.shape[0]
    level = (total - 1.0) / count
    while True:
        total, above = 0.0, 0
        for i in range(point.shape[0]):
            if point[i] > level:
                total += point[i]
                above += 1
        level = (total - 1.0) / above
        if above == count:
            break
        count = above
    for i in range(point.shape[0]):
        probs[i] = max(point[i] - level, 0.0)
    return True


@borrowing
def log_sum_exp(x: Array) -> float:
    """``log sum exp(x)``; entries of ``-inf`` count nothing that shows."""
    top = -np.inf
    for i in range(x.shape[0]):
        top = max(top, x[i])
    total = 0.0
    for i in range(x.shape[0]):
        total += exp(max(x[i] - top, LEAST))
    return top + math.log(total)


@borrowing
def gap(
    probs: Array, logits: Array, rates: Array, log_ref: Array, beta: float, scratch: Array
) -> float:
    """Duality gap; with ``beta > 0`` summed as ``pi (e^-d - 1 + d)``, free of cancellation."""
    size = probs.shape[0]
    if beta == 0.0:
        best = 0.0
        for i in range(size):
            best = max(best, rates[i])
        return 2.0 * best
    for i in range(size):
        scratch[i] = log_ref[i] + rates[i] / beta
    shift = log_sum_exp(scratch)
    norm = log_sum_exp(logits)
    total = 0.0
    for i in range(size):
        log_best = scratch[i] - shift
        log_policy = logits[i] - norm
        d = log_policy - log_best
        if probs[i] > _NOTHING:
            if log_ref[i] < -1e200:  # a response that the reference never gives
                return np.inf
            if d > -1.0:
                total += probs[i] * (math.expm1(-d) + d)
            else:
                total += math.exp(log_best) - probs[i] + probs[i] * d
        elif log_best > -np.inf:
            total += math.exp(log_best)
    return 2.0 * beta * total
