"""From a mirror rule's weights to the compiled loop, and back to a trajectory."""

from collections.abc import Callable, Mapping
from functools import partial

import numpy as np
from jaxtyping import Float, Int
from scipy.special import logsumexp

from equilign.compiled import over_games
from equilign.play import mirror_kernel as kernels
from equilign.play.exact import LEAST_LOG, log_normalise
from equilign.play.mirror import COMPILED, MirrorRun, batch_trajectory
from equilign.play.trajectory import Trajectory
from equilign.rules import Slot

_SLOTS = list(Slot)
_CHUNK_STEPS = 4096
_SMALL, _MOST_LANES, _LANE_BYTES = 24, 128, 2**19
_CHUNK_WORK = 2e9  # multiplications between two reports of progress, about half a second


def _tables(
    this: MirrorRun, first: int, last: int
) -> tuple[
    Float[np.ndarray, "k stages slots"],
    Float[np.ndarray, "k stages slots"],
    Float[np.ndarray, "k stages slots"],
]:
    """Weights of anchors, payoffs (times eta) and mixtures at the steps from first to last."""
    count = 1 if this.constant else last - first
    anchor, payoff, mixture = (
        np.zeros((count, len(this.rule.stages), len(_SLOTS))) for _ in range(3)
    )
    for k in range(count):
        step = this.step(first + k)
        for i, stage in enumerate(this.rule.stages):
            _fill(anchor[k, i], stage.anchor(step), 1.0)
            _fill(payoff[k, i], stage.payoff(step), step.eta)
            if stage.mixture is not None:
                _fill(mixture[k, i], stage.mixture(step), 1.0)
    return anchor, payoff, mixture


def _fill(row: Float[np.ndarray, " slots"], weights: Mapping[Slot, float], scale: float) -> None:
    for slot, weight in weights.items():
        row[_SLOTS.index(slot)] = scale * weight


def _plan(this: MirrorRun, *, ends: bool, keeps: bool) -> Int[np.ndarray, " k"]:
    """What the kernel must know besides weights; see `mirror_kernel.play_game`."""
    step, stages = this.step(0), this.rule.stages
    named = [w for stage in stages for w in (stage.anchor, stage.mixture) if w is not None]
    anchors = {slot for weights in named for slot in weights(step)}
    opponents = {slot for stage in stages for slot in stage.payoff(step)}
    return np.array(
        [
            COMPILED[this.rule.closing],
            step.inner_steps if this.rule.moves_reference else 0,
            ends,
            keeps,
            *[_SLOTS.index(stage.writes) for stage in stages],
            *[stage.mixture is not None for stage in stages],
            *[slot in opponents for slot in _SLOTS],
            *[slot in anchors for slot in _SLOTS],
        ],
        dtype=np.int64,
    )


def play_one(this: MirrorRun) -> Trajectory:
    """One game, a few thousand steps at a time."""
    game, options, record = this.game, this.options, this.options.recorded()
    state = _start(this)
    gaps, kept = np.full((2, record.size), np.nan), np.zeros((record.size, game.size))
    chunk = max(1, int(min(_CHUNK_STEPS, _CHUNK_WORK / game.size**2)))
    first, status = 0, "done"
    while True:
        last = min(first + chunk, options.steps)
        kernels.play_lanes(
            game.margin,
            (first, last),
            _tables(this, first, last),
            _plan(this, ends=last == options.steps, keeps=True),
            (game.beta, this.log_ref[0]),
            state,
            (record, gaps[None], kept),
        )
        first = last
        if state[4][0] >= 0:
            status = "diverged"
        elif options.tolerance is not None and (gaps[0] <= options.tolerance).any():
            status = "converged"
        if options.progress is not None:
            options.progress(first, options.steps)
        if status != "done" or first == options.steps:
            break
    count = int((~np.isnan(gaps[0])).sum())
    if status == "converged" and options.tolerance is not None:
        count = int(np.flatnonzero(gaps[0] <= options.tolerance)[0]) + 1
    policies = kept[:count] - logsumexp(kept[:count], axis=1, keepdims=True)
    final = log_normalise(state[0][0]) if status == "done" else policies[-1]
    average = state[3][0] if options.steps else np.exp(final)
    return Trajectory(
        rule=this.rule.name,
        game=game,
        steps=record[:count],
        duality_gap=gaps[0, :count],
        average_duality_gap=gaps[1, :count],
        final_log_policy=final,
        average_policy=average / average.sum(),
        status=status,
        options=this.reported(),
        log_policies=policies,
    )


def _start(this: MirrorRun) -> kernels.State:
    size = this.game.size
    logs = np.zeros((len(_SLOTS), size))
    for slot in (Slot.CURRENT, Slot.PREVIOUS, Slot.BASE):
        logs[_SLOTS.index(slot)] = this.log_start[0] - this.log_start[0].max()
    logs[_SLOTS.index(Slot.REFERENCE)] = this.log_slot[0] - this.log_slot[0].max()
    probs = np.exp(np.maximum(logs, LEAST_LOG))
    probs /= probs.sum(axis=1, keepdims=True)
    zeros = np.zeros((len(_SLOTS), size))
    return logs, probs, zeros, np.zeros((2, size)), np.full(1, -1), np.zeros((7, size))


def _lanes(size: int) -> int:
    """Games that are played at a time: many while their margins fit the second cache level."""
    return min(_MOST_LANES, _LANE_BYTES // (8 * size * size)) if size <= _SMALL else 1


def _shifted(function: Callable[[int, int], None], by: int, start: int, stop: int) -> None:
    function(by + start, by + stop)


def play_batch(this: MirrorRun) -> Trajectory:
    """A batch, all steps of a game before the next one, a thread per slice of games."""
    game, options, record = this.game, this.options, this.options.recorded()
    shape = game.shape
    mask = np.ones((1, game.size), bool) if game.mask is None else game.mask
    members = np.broadcast_to(np.argsort(~mask, axis=1, kind="stable"), shape)
    sizes = np.broadcast_to(mask.sum(axis=1), shape[:1])
    gaps = np.full((shape[0], 2, record.size), np.nan)
    final, average = np.full(shape, -np.inf), np.zeros(shape)
    stopped = np.full(shape[0], -1)
    order = np.argsort(sizes, kind="stable")
    lanes = _lanes(game.size)
    tables, plan = _tables(this, 0, options.steps), _plan(this, ends=True, keeps=False)

    def play_slice(start: int, stop: int) -> None:
        kernels.play_games(
            (start, stop, options.steps, lanes),
            (game.prefs, members, sizes, order),
            tables,
            plan,
            (game.beta, this.log_ref, this.log_start, this.log_slot),
            record,
            (gaps, final, average, stopped),
        )

    block = max(2 * lanes, int(_CHUNK_WORK / (options.steps + 1) / game.size**2))
    for begin in range(0, shape[0], block):
        end = min(begin + block, shape[0])
        play_here = partial(_shifted, play_slice, begin)
        over_games(play_here, end - begin, least=lanes // 2)
        if options.progress is not None:
            options.progress(end, shape[0])
    return batch_trajectory(this, gaps.swapaxes(0, 1), final, average, stopped)
