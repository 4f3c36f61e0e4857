"""The compiled loop of mirror rules: all steps of some games before the next ones.

The margins are gathered into a float64 scratch once, so that the steps read the first cache
levels and not memory, whatever the dtype and the mask of the batch. Policies are carried as
logits with maximum 0; nothing is ever multiplied as a plain probability.

Small games are played many at a time, their entries interleaved: entry ``i`` of game ``l`` of
``lanes`` games lies at ``i * lanes + l``, so that a step is SIMD over the games and a single
game's long chain of dependent operations is hidden. One game is the case of one lane.
"""

import math

import numpy as np

from equilign.compiled import borrowing, kernel
from equilign.play.vector_kernels import copy, gap, log_sum_exp, matvec, project_lanes, softmax

CURRENT, PREVIOUS, REFERENCE, BASE, HALF, MIXTURE = range(6)
SLOTS = 6
NORMALISE, PROJECT, GRADIENT = range(3)

Array = np.ndarray
State = tuple[Array, Array, Array, Array, Array, Array]
"""Logits, probabilities and rates of every slot, ``(SLOTS, m * lanes)``; sums of what was played
and of its rates, ``(2, m * lanes)``; the step at which each lane stopped being finite, or -1;
scratch, ``(7, m * lanes)``."""
Output = tuple[Array, Array, Array]
"""Steps to record; gaps ``(lanes, 2, R)`` of the last and the average policy; logits kept of a
single game, ``(R, m)``."""


@borrowing
def _combine(anchor: Array, payoff: Array, values: Array, rates: Array, out: Array) -> None:
    """``sum_s anchor[s] * values[s] + payoff[s] * rates[s]``: most rules use three slots only."""
    a0, a1, a2, a3, a4, a5 = anchor[0], anchor[1], anchor[2], anchor[3], anchor[4], anchor[5]
    b0, b1, b2, b3, b4, b5 = payoff[0], payoff[1], payoff[2], payoff[3], payoff[4], payoff[5]
    if a3 == 0.0 and a4 == 0.0 and a5 == 0.0 and b3 == 0.0 and b4 == 0.0 and b5 == 0.0:
        for i in range(out.shape[0]):
            out[i] = (a0 * values[0, i] + a1 * values[1, i] + a2 * values[2, i]) + (
                b0 * rates[0, i] + b1 * rates[1, i] + b2 * rates[2, i]
            )
        return
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


@borrowing
def _through_jacobian(target: Array, current: Array, policy: Array, lanes: int) -> None:
    """``current + policy * (change - mean change)``: the change through the softmax Jacobian."""
    size = target.shape[0] // lanes
    for k in range(lanes):
        mean = 0.0
        for i in range(k, size * lanes, lanes):
            mean += policy[i] * (target[i] - current[i])
        for i in range(k, size * lanes, lanes):
            target[i] = current[i] + policy[i] * (target[i] - current[i] - mean)


@borrowing
def _mix(weights: Array, logs: Array, out: Array) -> None:
    """``sum_s weights[s] * logs[s]``."""
    for i in range(out.shape[0]):
        out[i] = 0.0
    for s in range(SLOTS):
        for i in range(out.shape[0]):
            out[i] += weights[s] * logs[s, i]


@borrowing
def _stage(
    weights: tuple[Array, Array], plan: Array, state: State, at: int, target: Array, fresh: Array
) -> None:
    """One stage: new logits in ``target``, new probabilities in ``fresh``."""
    logs, probs, rates, _, stopped, work = state
    anchor, payoff = weights
    if plan[0] == PROJECT:
        _combine(anchor, payoff, probs, rates, target)
        project_lanes(target, fresh, at, stopped, work)
        return
    _combine(anchor, payoff, logs, rates, target)
    if plan[0] == GRADIENT:
        _through_jacobian(target, logs[CURRENT], probs[CURRENT], stopped.shape[0])
    softmax(target, fresh, at, stopped, work)


@borrowing
def _record(at: int, played: int, state: State, of_game: tuple[float, Array], gaps: Array) -> None:
    """Gaps of the last and of the average policy of every lane at one recorded step."""
    logs, probs, rates, sums, stopped, work = state
    beta, log_ref = of_game
    lanes = stopped.shape[0]
    size = log_ref.shape[0] // lanes
    policy, log_policy, rate = work[0, :size], work[1, :size], work[2, :size]
    ref, scratch = work[3, :size], work[4, :size]
    for k in range(lanes):
        for i in range(size):
            policy[i] = probs[CURRENT, i * lanes + k]
            log_policy[i] = logs[CURRENT, i * lanes + k]
            rate[i] = rates[CURRENT, i * lanes + k]
            ref[i] = log_ref[i * lanes + k]
        gaps[k, 0, at] = gap(policy, log_policy, rate, ref, beta, scratch)
        if played > 0:
            for i in range(size):
                policy[i] = sums[0, i * lanes + k] / played
                log_policy[i] = math.log(max(policy[i], 1e-300))
                rate[i] = sums[1, i * lanes + k] / played
        gaps[k, 1, at] = gap(policy, log_policy, rate, ref, beta, scratch)
        if stopped[k] >= 0:
            gaps[k, 0, at] = gaps[k, 1, at] = np.nan


@borrowing
def _set_logs(logs: Array, probs: Array) -> None:
    for i in range(logs.shape[0]):
        logs[i] = math.log(max(probs[i], 1e-300))


@borrowing
def _accumulate(state: State) -> None:
    _, probs, rates, sums, _, _ = state
    for i in range(sums.shape[1]):
        sums[0, i] += probs[CURRENT, i]
        sums[1, i] += rates[CURRENT, i]


@borrowing
def _write(
    slot: int, plan: Array, margin: Array, state: State, target: Array, fresh: Array
) -> None:
    """Put a stage's result into its slot; what was current becomes previous, where it is used."""
    logs, probs, rates, _, _, _ = state
    stages = (plan.shape[0] - 4 - 2 * SLOTS) // 2
    opponents, anchors = 4 + 2 * stages, 4 + 2 * stages + SLOTS
    if slot == CURRENT and plan[anchors + PREVIOUS]:
        copy(logs[CURRENT], logs[PREVIOUS])
        copy(probs[CURRENT], probs[PREVIOUS])
    if slot == CURRENT and plan[opponents + PREVIOUS]:
        copy(rates[CURRENT], rates[PREVIOUS])
    if plan[0] == PROJECT:
        _set_logs(target, fresh)
    copy(target, logs[slot])
    copy(fresh, probs[slot])
    if slot != CURRENT and plan[opponents + slot]:
        matvec(margin, probs[slot], rates[slot])


@borrowing
def play_lanes(  # noqa: C901 - one loop over steps and stages
    margin: Array,
    span: tuple[int, int],
    weights: tuple[Array, Array, Array],
    plan: Array,
    of_game: tuple[float, Array],
    state: State,
    output: Output,
) -> None:
    """Some steps of one game, or of several of the same size, in place.

    Args:
        margin: ``P - 1/2``, exactly skew, ``(m, m * lanes)``.
        span: first and last step; the policy after the last one is left in ``state``.
        weights: of anchors, payoffs (times eta) and mixtures, ``(1 or steps, stages, SLOTS)``.
        plan: ``[closing, period, ends, keeps, writes.., mixes.., opponents (SLOTS), anchors
            (SLOTS)]``: how stages close; steps between moves of the reference or 0; whether the
            last step of the span is the last of all; whether logits are kept; what each stage
            writes and whether it mixes; which slots are opponents and anchors.
        of_game: ``beta`` and log references ``(m * lanes)``, for the gaps.
        state: see `State`. A single game stops where a number is not finite.
        output: see `Output`.
    """
    logs, probs, rates, _, stopped, work = state
    anchor, payoff, mixture = weights
    record, gaps, kept = output
    first, last = span
    stages, lanes = anchor.shape[1], stopped.shape[0]
    opponents = 4 + 2 * stages
    target, fresh = work[5], work[6]
    for s in (REFERENCE, BASE):
        if plan[opponents + s]:
            matvec(margin, probs[s], rates[s])
    at = 0
    while at < record.shape[0] and record[at] < first:
        at += 1
    for t in range(first, last + 1):
        matvec(margin, probs[CURRENT], rates[CURRENT])
        if at < record.shape[0] and record[at] == t and (t < last or plan[2]):
            _record(at, t, state, of_game, gaps)
            if plan[3]:
                copy(logs[CURRENT], kept[at])
            at += 1
        if t == last:
            break
        if t == 0:
            copy(rates[CURRENT], rates[PREVIOUS])
        _accumulate(state)
        k = t - first if anchor.shape[0] > 1 else 0
        for stage in range(stages):
            if plan[4 + stages + stage]:
                _mix(mixture[k, stage], logs, target)
                softmax(target, fresh, t + 1, stopped, work)
                _write(MIXTURE, plan, margin, state, target, fresh)
            _stage((anchor[k, stage], payoff[k, stage]), plan, state, t + 1, target, fresh)
            if lanes == 1 and stopped[0] >= 0:
                return
            _write(plan[4 + stage], plan, margin, state, target, fresh)
        if plan[1] > 0 and (t + 1) % plan[1] == 0:
            copy(logs[CURRENT], target)
            copy(probs[CURRENT], fresh)
            _write(REFERENCE, plan, margin, state, target, fresh)


@kernel
def _gather(prefs: Array, members: Array, lane: int, lanes: int, margin: Array) -> None:
    """The exactly skew float64 margin of the responses ``members`` of one game, in its lane."""
    for i in range(members.shape[0]):
        for j in range(members.shape[0]):
            a, b = members[i], members[j]
            value = (np.float64(prefs[a, b]) - np.float64(prefs[b, a])) / 2.0
            margin[i, j * lanes + lane] = value


@kernel
def _load(
    games: Array, at: int, members: Array, of_game: tuple[float, Array, Array, Array], state: State
) -> Array:
    """Fill the start of the lanes from the games ``games``; the log references ``(m * lanes)``."""
    logs, probs, _, _, stopped, work = state
    _, log_ref, log_start, log_slot = of_game
    lanes = games.shape[0]
    size = logs.shape[1] // lanes
    own = np.empty(size * lanes)
    for k in range(lanes):
        x = games[k]
        for i in range(size):
            here = members[x, i]
            own[i * lanes + k] = log_ref[x % log_ref.shape[0], here]
            for s in (CURRENT, PREVIOUS, BASE):
                logs[s, i * lanes + k] = log_start[x % log_start.shape[0], here]
            logs[REFERENCE, i * lanes + k] = log_slot[x % log_slot.shape[0], here]
    for s in (CURRENT, PREVIOUS, BASE, REFERENCE):
        softmax(logs[s], probs[s], at, stopped, work)
    return own


@kernel
def _store(
    here: Array,
    members: Array,
    state: State,
    steps: int,
    measured: Array,
    results: tuple[Array, Array, Array, Array],
) -> None:
    """Write the lanes' results to their games."""
    gaps, final, average, stops = results
    logs, _, _, sums, stopped, _ = state
    lanes = here.shape[0]
    size = logs.shape[1] // lanes
    one = np.empty(size)
    for k in range(lanes):
        x = here[k]
        stops[x] = stopped[k]
        for m in range(2):
            for r in range(measured.shape[2]):
                gaps[x, m, r] = measured[k, m, r]
        for i in range(size):
            one[i] = logs[CURRENT, i * lanes + k]
        norm = log_sum_exp(one)
        for i in range(size):
            final[x, members[x, i]] = one[i] - norm
            average[x, members[x, i]] = sums[0, i * lanes + k] / max(steps, 1)


@kernel
def play_games(
    part: tuple[int, int, int, int],
    games: tuple[Array, Array, Array, Array],
    weights: tuple[Array, Array, Array],
    plan: Array,
    of_game: tuple[float, Array, Array, Array],
    record: Array,
    results: tuple[Array, Array, Array, Array],
) -> None:
    """All steps of some games of a batch.

    Args:
        part: first entry of the order, the one after the last, number of steps, most lanes.
        games: preferences ``(X, n, n)`` in float32 or float64; the responses that exist, first in
            each row ``(X, n)``; how many ``(X,)``; the order in which to play, by size ``(X,)``.
        weights: as `play_lanes`.
        plan: as `play_lanes`.
        of_game: ``beta``; logarithms of the reference, of the start policy and of the rule's
            reference slot, ``(X, n)`` or one row for all.
        record: as `play_lanes`.
        results: gaps ``(X, 2, R)``; final log-policies and average policies ``(X, n)``, prefilled
            with ``-inf`` and 0; the step of divergence or -1 ``(X,)``.
    """
    prefs, members, sizes, order = games
    scratch = np.empty(prefs.shape[1] * prefs.shape[1] * part[3])
    kept, begin = np.empty((1, 1)), part[0]
    while begin < part[1]:
        size, end = sizes[order[begin]], begin + 1
        while end < part[1] and end - begin < part[3] and sizes[order[end]] == size:
            end += 1
        lanes, here = end - begin, order[begin:end]
        margin = scratch[: size * size * lanes].reshape((size, size * lanes))
        for k in range(lanes):
            _gather(prefs[here[k]], members[here[k], :size], k, lanes, margin)
        state = (
            np.zeros((SLOTS, size * lanes)),
            np.zeros((SLOTS, size * lanes)),
            np.zeros((SLOTS, size * lanes)),
            np.zeros((2, size * lanes)),
            np.full(lanes, -1),
            np.empty((7, size * lanes)),
        )
        own = _load(here, 0, members, of_game, state)
        measured = np.full((lanes, 2, record.shape[0]), np.nan)
        play_lanes(
            margin, (0, part[2]), weights, plan, (of_game[0], own), state, (record, measured, kept)
        )
        _store(here, members, state, part[2], measured, results)
        begin = end
