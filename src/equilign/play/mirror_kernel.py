"""The compiled loop of mirror rules: all steps of one game before the next game.

A game's margin is gathered into a float64 scratch once, so that its steps read the first cache
levels and not memory, whatever the dtype and the mask of the batch. Policies are carried as
logits with maximum 0; nothing is ever multiplied as a plain probability.
"""

import math

import numpy as np

from equilign.compiled import inlined, kernel, strict_kernel

CURRENT, PREVIOUS, REFERENCE, BASE, HALF, MIXTURE = range(6)
SLOTS = 6
NORMALISE, PROJECT, GRADIENT = range(3)

Array = np.ndarray
State = tuple[Array, Array, Array, Array]
"""Logits, probabilities and rates of every slot, ``(SLOTS, m)``; sums of what was played."""
Output = tuple[Array, Array, Array]
"""Steps to record, gaps ``(2, R)`` of the last and the average policy, logits kept ``(R, m)``."""

_LOG2E = 1.4426950408889634
_LN2_HIGH = 6.93147180369123816490e-01
_LN2_LOW = 1.90821492927058770002e-10
_LEAST = -690.0
_NOTHING = 1e-290


@strict_kernel
def _exp(x: float) -> float:
    """``exp(x)`` for ``-690 <= x <= 0``, to about one ulp, as straight code that becomes SIMD."""
    k = math.floor(x * _LOG2E + 0.5)
    r = (x - k * _LN2_HIGH) - k * _LN2_LOW
    p = 1.0 / 6227020800.0
    p = p * r + 1.0 / 479001600.0
    p = p * r + 1.0 / 39916800.0
    p = p * r + 1.0 / 3628800.0
    p = p * r + 1.0 / 362880.0
    p = p * r + 1.0 / 40320.0
    p = p * r + 1.0 / 5040.0
    p = p * r + 1.0 / 720.0
    p = p * r + 1.0 / 120.0
    p = p * r + 1.0 / 24.0
    p = p * r + 1.0 / 6.0
    p = p * r + 0.5
    p = (p * r) * r + r + 1.0
    return p * np.int64((np.int64(k) + 1023) << 52).view(np.float64)


@inlined
def _matvec(a: Array, x: Array, out: Array) -> None:
    for i in range(x.shape[0]):
        row = a[i]
        total = 0.0
        for j in range(x.shape[0]):
            total += row[j] * x[j]
        out[i] = total


@inlined
def _copy(source: Array, target: Array) -> None:
    for i in range(source.shape[0]):
        target[i] = source[i]


@inlined
def _softmax(logits: Array, probs: Array) -> bool:
    """Shift ``logits`` to maximum 0 and set ``probs``; False where something is not finite."""
    top = -np.inf
    for i in range(logits.shape[0]):
        top = max(top, logits[i])
    if not (-np.inf < top < np.inf):
        return False
    for i in range(logits.shape[0]):
        logits[i] -= top
    total = 0.0
    for i in range(logits.shape[0]):
        probs[i] = _exp(max(logits[i], _LEAST))
        total += probs[i]
    scale = 1.0 / total
    for i in range(logits.shape[0]):
        probs[i] *= scale
    return 0.0 < total < np.inf


@kernel
def _project(point: Array, probs: Array) -> bool:
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


@kernel
def _log_sum_exp(x: Array) -> float:
    top = -np.inf
    for i in range(x.shape[0]):
        top = max(top, x[i])
    total = 0.0
    for i in range(x.shape[0]):
        total += _exp(max(x[i] - top, _LEAST))
    return top + math.log(total)


@kernel
def _gap(
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
    shift = _log_sum_exp(scratch)
    norm = _log_sum_exp(logits)
    total = 0.0
    for i in range(size):
        log_best = scratch[i] - shift
        log_policy = logits[i] - norm
        d = log_policy - log_best
        if probs[i] > _NOTHING:
            if d > -1.0:
                total += probs[i] * (math.expm1(-d) + d)
            else:
                total += math.exp(log_best) - probs[i] + probs[i] * d
        elif log_best > -np.inf:
            total += math.exp(log_best)
    return 2.0 * beta * total


@inlined
def _combine(anchor: Array, payoff: Array, values: Array, rates: Array, out: Array) -> None:
    """``sum_s anchor[s] * values[s] + payoff[s] * rates[s]``, in one pass without branches."""
    a0, a1, a2, a3, a4, a5 = anchor[0], anchor[1], anchor[2], anchor[3], anchor[4], anchor[5]
    b0, b1, b2, b3, b4, b5 = payoff[0], payoff[1], payoff[2], payoff[3], payoff[4], payoff[5]
    for i in range(out.shape[0]):
        out[i] = (
            (a0 * values[0, i] + a1 * values[1, i])
            + (a2 * values[2, i] + a3 * values[3, i])
            + (a4 * values[4, i] + a5 * values[5, i])
        ) + (
            (b0 * rates[0, i] + b1 * rates[1, i])
            + (b2 * rates[2, i] + b3 * rates[3, i])
            + (b4 * rates[4, i] + b5 * rates[5, i])
        )


@inlined
def _stage(
    anchor: Array, payoff: Array, closing: int, state: State, target: Array, fresh: Array
) -> bool:
    """One stage: new logits in ``target``, new probabilities in ``fresh``."""
    logs, probs, rates, _ = state
    if closing == PROJECT:
        _combine(anchor, payoff, probs, rates, target)
        return _project(target, fresh)
    _combine(anchor, payoff, logs, rates, target)
    if closing == GRADIENT:
        mean = 0.0
        for i in range(target.shape[0]):
            target[i] -= logs[CURRENT, i]
            mean += probs[CURRENT, i] * target[i]
        for i in range(target.shape[0]):
            target[i] = logs[CURRENT, i] + probs[CURRENT, i] * (target[i] - mean)
    return _softmax(target, fresh)


@kernel
def _record(
    at: int,
    played: int,
    state: State,
    beta: float,
    log_ref: Array,
    gaps: Array,
    scratch: Array,
) -> None:
    """Gaps of the last and of the average policy at one recorded step."""
    logs, probs, rates, sums = state
    gaps[0, at] = _gap(probs[CURRENT], logs[CURRENT], rates[CURRENT], log_ref, beta, scratch[0])
    if played == 0:
        gaps[1, at] = gaps[0, at]
        return
    mean, mean_log, mean_rate = scratch[1], scratch[2], scratch[3]
    for i in range(log_ref.shape[0]):
        mean[i] = sums[0, i] / played
        mean_log[i] = math.log(mean[i]) if mean[i] > 0.0 else -np.inf
        mean_rate[i] = sums[1, i] / played
    gaps[1, at] = _gap(mean, mean_log, mean_rate, log_ref, beta, scratch[0])


@inlined
def _set_logs(logs: Array, probs: Array) -> None:
    for i in range(logs.shape[0]):
        logs[i] = math.log(max(probs[i], 1e-300))


@inlined
def _accumulate(state: State) -> None:
    _, probs, rates, sums = state
    for i in range(sums.shape[1]):
        sums[0, i] += probs[CURRENT, i]
        sums[1, i] += rates[CURRENT, i]


@inlined
def _write(
    slot: int, plan: Array, margin: Array, state: State, target: Array, fresh: Array
) -> None:
    """Put a stage's result into its slot; what was current becomes previous, where it is used."""
    logs, probs, rates, _ = state
    stages = (plan.shape[0] - 4 - 2 * SLOTS) // 2
    opponents, anchors = 4 + 2 * stages, 4 + 2 * stages + SLOTS
    if slot == CURRENT and plan[anchors + PREVIOUS]:
        _copy(logs[CURRENT], logs[PREVIOUS])
        _copy(probs[CURRENT], probs[PREVIOUS])
    if slot == CURRENT and plan[opponents + PREVIOUS]:
        _copy(rates[CURRENT], rates[PREVIOUS])
    if plan[0] == PROJECT:
        _set_logs(target, fresh)
    _copy(target, logs[slot])
    _copy(fresh, probs[slot])
    if slot != CURRENT and plan[opponents + slot]:
        _matvec(margin, probs[slot], rates[slot])


@kernel
def play_game(  # noqa: C901 - one loop over steps and stages
    margin: Array,
    span: tuple[int, int],
    weights: tuple[Array, Array, Array],
    plan: Array,
    of_game: tuple[float, Array],
    state: State,
    output: Output,
) -> int:
    """Some steps of one game, in place.

    Args:
        margin: ``P - 1/2``, exactly skew, ``(m, m)``.
        span: first and last step; the policy after the last one is left in ``state``.
        weights: of anchors, payoffs (times eta) and mixtures, ``(1 or steps, stages, SLOTS)``.
        plan: ``[closing, period, ends, keeps, writes.., mixes.., opponents (SLOTS), anchors
            (SLOTS)]``: how stages close; steps between moves of the reference or 0; whether the
            last step of the span is the last of all; whether logits are kept; what each stage
            writes and whether it mixes; which slots are opponents and anchors.
        of_game: its ``beta`` and log reference, for the gaps.
        state: see `State`.
        output: see `Output`.

    Returns:
        -1, or the step at which a number stopped being finite.
    """
    logs, probs, rates, _ = state
    anchor, payoff, mixture = weights
    record, gaps, kept = output
    first, last = span
    closing, period, stages, size = plan[0], plan[1], anchor.shape[1], margin.shape[0]
    opponents = 4 + 2 * stages
    target, fresh, scratch = np.empty(size), np.empty(size), np.empty((4, size))
    nothing = np.zeros(SLOTS)
    for s in (REFERENCE, BASE):
        if plan[opponents + s]:
            _matvec(margin, probs[s], rates[s])
    at = np.searchsorted(record, first)
    for t in range(first, last + 1):
        _matvec(margin, probs[CURRENT], rates[CURRENT])
        if at < record.shape[0] and record[at] == t and (t < last or plan[2]):
            _record(at, t, state, of_game[0], of_game[1], gaps, scratch)
            if plan[3]:
                _copy(logs[CURRENT], kept[at])
            at += 1
        if t == last:
            break
        if t == 0:
            _copy(rates[CURRENT], rates[PREVIOUS])
        _accumulate(state)
        k = t - first if anchor.shape[0] > 1 else 0
        for stage in range(stages):
            if plan[4 + stages + stage]:
                _combine(mixture[k, stage], nothing, logs, rates, target)
                if not _softmax(target, fresh):
                    return t + 1
                _write(MIXTURE, plan, margin, state, target, fresh)
            if not _stage(anchor[k, stage], payoff[k, stage], closing, state, target, fresh):
                return t + 1
            _write(plan[4 + stage], plan, margin, state, target, fresh)
        if period > 0 and (t + 1) % period == 0:
            _copy(logs[CURRENT], target)
            _copy(probs[CURRENT], fresh)
            _write(REFERENCE, plan, margin, state, target, fresh)
    return -1


@kernel
def _gather(prefs: Array, members: Array, margin: Array) -> None:
    """The exactly skew float64 margin of the responses ``members`` of one game."""
    for i in range(members.shape[0]):
        for j in range(members.shape[0]):
            a, b = members[i], members[j]
            margin[i, j] = (np.float64(prefs[a, b]) - np.float64(prefs[b, a])) / 2.0


@kernel
def play_games(
    part: tuple[int, int, int],
    games: tuple[Array, Array, Array],
    weights: tuple[Array, Array, Array],
    plan: Array,
    of_game: tuple[float, Array, Array, Array],
    record: Array,
    results: tuple[Array, Array, Array, Array],
) -> None:
    """All steps of some games of a batch.

    Args:
        part: first game, the one after the last, number of steps.
        games: preferences ``(X, n, n)`` in float32 or float64; the responses that exist, first in
            each row ``(X, n)``; how many ``(X,)``.
        weights: as `play_game`.
        plan: as `play_game`.
        record: as `play_game`.
        of_game: ``beta``; logarithms of the reference, of the start policy and of the rule's
            reference slot, ``(X, n)`` or one row for all.
        results: gaps ``(X, 2, R)``; final log-policies and average policies ``(X, n)``, prefilled
            with ``-inf`` and 0; the step of divergence or -1 ``(X,)``.
    """
    prefs, members, sizes = games
    beta, log_ref, log_start, log_slot = of_game
    gaps, final, average, stopped = results
    scratch, kept = np.empty(prefs.shape[1] * prefs.shape[1]), np.empty((1, 1))
    for x in range(part[0], part[1]):
        size = sizes[x]
        here = members[x, :size]
        margin = scratch[: size * size].reshape((size, size))
        _gather(prefs[x], here, margin)
        logs, probs, rates = (
            np.zeros((SLOTS, size)),
            np.zeros((SLOTS, size)),
            np.zeros((SLOTS, size)),
        )
        sums, own = np.zeros((2, size)), np.empty(size)
        for i in range(size):
            own[i] = log_ref[x % log_ref.shape[0], here[i]]
            for s in (CURRENT, PREVIOUS, BASE):
                logs[s, i] = log_start[x % log_start.shape[0], here[i]]
            logs[REFERENCE, i] = log_slot[x % log_slot.shape[0], here[i]]
        for s in (CURRENT, PREVIOUS, BASE, REFERENCE):
            _softmax(logs[s], probs[s])
        state = (logs, probs, rates, sums)
        stopped[x] = play_game(
            margin, (0, part[2]), weights, plan, (beta, own), state, (record, gaps[x], kept)
        )
        norm = _log_sum_exp(logs[CURRENT])
        for i in range(size):
            final[x, here[i]] = logs[CURRENT, i] - norm
            average[x, here[i]] = sums[0, i] / max(part[2], 1)
