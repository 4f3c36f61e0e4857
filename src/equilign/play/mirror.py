"""Mirror rules on games: from a rule's weights to a trajectory."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from equilign.errors import ConfigError
from equilign.games import PreferenceGame
from equilign.play.exact import (
    SampledFeedback,
    exact_feedback,
    log_normalise,
    mirror_step,
    start_slots,
)
from equilign.play.loop import Dynamics, run
from equilign.play.options import (
    PlayOptions,
    Schedule,
    check_kl_weights,
    check_positive,
    start_policy,
    suggest_eta,
)
from equilign.play.trajectory import Trajectory
from equilign.rules import Closing, MirrorRule, Slot, Step

COMPILED = {Closing.NORMALISE: 0, Closing.PROJECT: 1, Closing.GRADIENT: 2}
"""The closings that `equilign.play.mirror_kernel` knows, and its numbers for them."""

_NEVER = -1e250  # in place of -inf, which times a weight of 0 would be nan


@dataclass(frozen=True, eq=False)
class MirrorOptions(PlayOptions):
    """Options of mirror rules.

    Attributes:
        eta: mirror step, nats per unit of win probability, or a function of the step's number;
            by default what `suggest_eta` says.
        beta: KL weight of the rule's pull to the reference; that of the game by default. Gaps
            are always those of the game as it is.
        mixture: weight of the reference in Nash-MD-PG's opponent.
        inner_steps: steps between two moves of the reference, for rules that move it. Their
            reference starts at the start policy.
    """

    eta: float | Schedule | None = None
    beta: float | None = None
    mixture: float = 0.125
    inner_steps: int = 10

    def __post_init__(self) -> None:
        super().__post_init__()
        if not 0.0 <= self.mixture <= 1.0:
            raise ConfigError(f"mixture = {self.mixture}; a weight in [0, 1]")
        if self.beta is not None:
            check_kl_weights(beta=self.beta)
        if self.eta is not None and not callable(self.eta):
            check_positive(eta=self.eta)
        check_positive(inner_steps=self.inner_steps)


@dataclass(frozen=True, eq=False)
class MirrorRun:
    """A rule, a game and its options, ready for an interpreter.

    Attributes:
        rule, game, options: as given.
        step: hyperparameters by the step's number.
        constant: whether they are the same at every step.
        log_start, log_ref, log_slot: start policy, the game's reference, the rule's reference
            slot: nats, one row per game or one for all; -1e250 stands for ``-inf``.
    """

    rule: MirrorRule
    game: PreferenceGame
    options: MirrorOptions
    step: Callable[[int], Step]
    constant: bool
    log_start: Float[np.ndarray, "_ n"]
    log_ref: Float[np.ndarray, "_ n"]
    log_slot: Float[np.ndarray, "_ n"]

    def reported(self) -> dict[str, Any]:
        """The hyperparameters in use, for the trajectory."""
        step = self.step(0)
        return {
            "eta": step.eta if self.constant else "schedule",
            "beta": step.beta,
            "mixture": step.mixture,
            "inner_steps": step.inner_steps,
            "samples": self.options.samples,
            "seed": self.options.seed,
        }


def play_mirror(game: PreferenceGame, rule: MirrorRule, options: MirrorOptions) -> Trajectory:
    """Play a mirror rule; see `equilign.play.play`.

    Exact expectations run compiled, over a batch in parallel; sampled feedback, and closings that
    are not compiled, run in the readable interpreter, game by game.

    Raises:
        ConfigError: ``tolerance`` was given for a batch.
    """
    if options.tolerance is not None and game.is_batch:
        raise ConfigError("tolerance stops one game; a batch plays all its steps")
    weight = game.beta if options.beta is None else options.beta
    eta = suggest_eta(rule, game, weight) if options.eta is None else options.eta

    def step(t: int) -> Step:
        now = float(eta(t)) if callable(eta) else float(eta)
        return Step(now, weight, options.mixture, options.inner_steps)

    log_start = _logs(start_policy(game, options.start, options.seed))
    log_ref = _logs(game.reference)
    log_slot = log_start if rule.moves_reference else log_ref
    mirror_run = MirrorRun(
        rule, game, options, step, not callable(eta), log_start, log_ref, log_slot
    )
    if options.samples is not None or rule.closing not in COMPILED:
        return _readable(mirror_run)
    from equilign.play import compiled_mirror

    one = compiled_mirror.play_batch if game.is_batch else compiled_mirror.play_one
    return one(mirror_run)


def _logs(policy: Float[np.ndarray, "*batch n"]) -> Float[np.ndarray, "_ n"]:
    with np.errstate(divide="ignore"):
        return np.atleast_2d(np.maximum(np.log(policy), _NEVER))


def _readable(this: MirrorRun) -> Trajectory:
    """Sampled feedback, and closings that are not compiled; a batch game by game."""
    if not this.game.is_batch:
        return _readable_game(this, this.options.generator())
    parts = []
    for x in range(len(this.game)):
        keep = slice(None) if this.game.mask is None else this.game.mask[x]
        rows = [a[x % len(a)][keep][None] for a in (this.log_start, this.log_ref, this.log_slot)]
        one = MirrorRun(this.rule, this.game[x], this.options, this.step, this.constant, *rows)
        parts.append(_readable_game(one, this.options.generator(x)))
    return _stack(this, parts)


def _readable_game(this: MirrorRun, generator: np.random.Generator) -> Trajectory:
    samples, rule = this.options.samples, this.rule
    exact = exact_feedback(this.game)
    feedback = exact if samples is None else SampledFeedback(this.game, samples, generator)

    def advance(slots: dict[Slot, Any], t: int) -> dict[Slot, Any]:
        step = this.step(t)
        new = mirror_step(rule, slots, feedback, step)
        if rule.moves_reference and (t + 1) % step.inner_steps == 0:
            new[Slot.REFERENCE] = new[Slot.CURRENT]
        return new

    dynamics = Dynamics(
        name=rule.name,
        start=start_slots(log_normalise(this.log_start[0]), log_normalise(this.log_slot[0])),
        log_policy=lambda slots: slots[Slot.CURRENT],
        advance=advance,
        gap=None,
        finish=lambda slots: {},
        reported=this.reported(),
    )
    return run(this.game, dynamics, this.options)


def _stack(this: MirrorRun, parts: list[Trajectory]) -> Trajectory:
    record, shape = this.options.recorded(), this.game.shape
    gaps = np.full((2, shape[0], record.size), np.nan)
    final, average = np.full(shape, -np.inf), np.zeros(shape)
    stopped = np.full(shape[0], -1)
    for x, part in enumerate(parts):
        keep = slice(None) if this.game.mask is None else this.game.mask[x]
        gaps[0, x, : part.steps.size] = part.duality_gap
        gaps[1, x, : part.steps.size] = part.average_duality_gap
        final[x, keep], average[x, keep] = part.final_log_policy, part.average_policy
        if part.status == "diverged":
            stopped[x] = int(part.steps[-1]) + 1
    return batch_trajectory(this, gaps, final, average, stopped)


def batch_trajectory(
    this: MirrorRun,
    gaps: Float[np.ndarray, "2 x r"],
    final: Float[np.ndarray, "x n"],
    average: Float[np.ndarray, "x n"],
    stopped: Int[np.ndarray, " x"],
) -> Trajectory:
    """The results of a batch; ``stopped`` is the step of each game's divergence, or -1."""
    return Trajectory(
        rule=this.rule.name,
        game=this.game,
        steps=this.options.recorded(),
        duality_gap=gaps[0],
        average_duality_gap=gaps[1],
        final_log_policy=final,
        average_policy=average,
        status="diverged" if (stopped >= 0).any() else "done",
        options=this.reported(),
        diverged_at=stopped,
    )
