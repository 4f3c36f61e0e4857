"""The loop that every dynamic shares: record, stop, step."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import numpy as np
from jaxtyping import Float

from equilign.games import PreferenceGame, duality_gap
from equilign.play.options import PlayOptions
from equilign.play.trajectory import Trajectory

State = TypeVar("State")


@dataclass(frozen=True)
class Dynamics(Generic[State]):
    """What a family of rules brings to the loop.

    Attributes:
        name: of the rule.
        start: the state of step 0.
        log_policy: the state's policy, nats, ``(n,)``.
        advance: the state after one more step; may hold numbers that are not finite.
        gap: duality gap of a state; None for that of its policy in the game.
        finish: what only this family reports of the last state.
        reported: hyperparameters for the trajectory.
    """

    name: str
    start: State
    log_policy: Callable[[State], Float[np.ndarray, " n"]]
    advance: Callable[[State, int], State]
    gap: Callable[[State], float] | None
    finish: Callable[[State], dict[str, Any]]
    reported: dict[str, Any]


def run(game: PreferenceGame, dynamics: Dynamics[State], options: PlayOptions) -> Trajectory:
    """Play ``options.steps`` steps, or until a number is not finite or the gap is small enough.

    Args:
        game: one game; its gap is recorded.
        dynamics: what moves.
        options: how long, and what to record.
    """
    record = options.recorded()
    state, total, status, played = dynamics.start, np.zeros(game.size), "done", 0
    gaps: list[tuple[float, float]] = []
    kept: list[Float[np.ndarray, " n"]] = []
    for t in range(options.steps + 1):
        log_policy = dynamics.log_policy(state)
        policy = np.exp(log_policy)
        if len(kept) < record.size and record[len(kept)] == t:
            gaps.append(_gaps(game, dynamics, state, log_policy, total / t if t else policy))
            kept.append(log_policy)
            if options.tolerance is not None and gaps[-1][0] <= options.tolerance:
                status = "converged"
        if t == options.steps or status != "done":
            break
        with np.errstate(over="ignore", invalid="ignore"):
            following = dynamics.advance(state, t)
        if not _usable(dynamics.log_policy(following)):
            status = "diverged"
            break
        total, played, state = total + policy, t + 1, following
        if options.progress is not None and t % 100 == 0:
            options.progress(t + 1, options.steps)
    table = np.array(gaps).reshape(-1, 2)
    return Trajectory(
        rule=dynamics.name,
        game=game,
        steps=record[: len(kept)],
        duality_gap=table[:, 0],
        average_duality_gap=table[:, 1],
        final_log_policy=dynamics.log_policy(state),
        average_policy=total / played if played else np.exp(dynamics.log_policy(state)),
        status=status,
        options=dynamics.reported,
        log_policies=np.array(kept),
        extra=dynamics.finish(state),
    )


def _gaps(
    game: PreferenceGame,
    dynamics: Dynamics[State],
    state: State,
    log_policy: Float[np.ndarray, " n"],
    mean: Float[np.ndarray, " n"],
) -> tuple[float, float]:
    policy = np.exp(log_policy)
    own = dynamics.gap
    last = duality_gap(game, policy / policy.sum()) if own is None else own(state)
    return last, duality_gap(game, mean / mean.sum())


def _usable(log_policy: Float[np.ndarray, " n"]) -> bool:
    return bool(np.isfinite(log_policy.max()) and not np.isnan(log_policy).any())
