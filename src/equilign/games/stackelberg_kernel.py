"""The compiled closed form of the sequential game, one game after the other."""

# mypy: allow-untyped-defs, allow-untyped-calls
import math

import numpy as np

from equilign.compiled import kernel
from equilign.kernels import LEAST, exp


@kernel
def soft_minima(prefs, log_ref, beta, values, start, stop):  # noqa: ANN001, ANN201
    """Set ``values[x, i]`` to ``-beta * log sum_j exp(log_ref[.., j] - P[i, j] / beta)``.

    Args:
        prefs: win probabilities, shape (X, n, n); the exactly skew margin is taken.
        log_ref: shape (1 or X, 1 or n, n); -inf for replies that do not exist.
        beta: KL weight of the follower, > 0.
        values: output, shape (X, n).
        start: first game.
        stop: game after the last one.
    """
    size = prefs.shape[1]
    per_game, per_row = log_ref.shape[0] > 1, log_ref.shape[1] > 1
    logits = np.empty(size)
    turned = np.empty((size, size + 1))  # rows off powers of two spare the cache
    rate = 0.5 / beta
    for x in range(start, stop):
        game = prefs[x]
        for i in range(size):  # one pass in the order of memory, for the columns
            row = game[i]
            for j in range(size):
                turned[j, i] = row[j]
        refs = log_ref[x if per_game else 0]
        for i in range(size):
            row, column = game[i], turned[i]
            ref = refs[i if per_row else 0]
            top = -np.inf
            for j in range(size):
                # In float64 before subtracting: margins of float32 entries stay exactly skew.
                cost = (np.float64(row[j]) - column[j]) * rate
                logits[j] = ref[j] - cost if ref[j] > -np.inf else -np.inf
            for j in range(size):
                top = max(top, logits[j])
            total = 0.0
            for j in range(size):
                shifted = logits[j] - top
                total += exp(max(shifted, LEAST)) if shifted >= LEAST else 0.0
            values[x, i] = 0.5 - beta * (top + math.log(total))


@kernel
def leaders(values, log_ref, beta, policy, value, gap, start, stop):  # noqa: ANN001, ANN201, PLR0913
    """Set the leader's ``ref * exp(values / beta)``, its value and its measured gap.

    Args:
        values: what each leader action is worth, shape (X, n).
        log_ref: shape (1 or X, n); -inf for responses that do not exist.
        beta: KL weight of the leader, > 0.
        policy: output, shape (X, n).
        value: output, ``beta * log sum exp(log_ref + values / beta)``, shape (X,).
        gap: output, ``beta * KL(policy || optimal policy)``, shape (X,).
        start: first game.
        stop: game after the last one.
    """
    size = values.shape[1]
    logits = np.empty(size)
    for x in range(start, stop):
        ref = log_ref[x if log_ref.shape[0] > 1 else 0]
        best = -np.inf
        for i in range(size):
            if ref[i] > -np.inf:
                best = max(best, values[x, i])
        top = -np.inf
        for i in range(size):
            logits[i] = ref[i] + (values[x, i] - best) / beta
            top = max(top, logits[i])
        total = 0.0
        for i in range(size):
            shifted = logits[i] - top
            policy[x, i] = exp(max(shifted, LEAST)) if shifted >= LEAST else 0.0
            total += policy[x, i]
        scale, norm, lost = 1.0 / total, top + math.log(total), 0.0
        for i in range(size):
            policy[x, i] *= scale
            p = policy[x, i]
            if p > 0.0:
                d = math.log(p) - (logits[i] - norm)
                lost += p * (math.expm1(-d) + d)
        value[x] = best + beta * norm
        gap[x] = beta * max(lost, 0.0)
