"""Options of playing: step size, start, what to record."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int

from equilign.errors import ConfigError
from equilign.games import PreferenceGame
from equilign.rules import Closing, MirrorRule, Slot, Step

Start = str | Float[np.ndarray, "*batch n"]
Schedule = Callable[[int], float]
"""Mirror step as a function of the step's number, which starts at 0."""

_RECORDS = 200


def decreasing(beta: float) -> Schedule:
    """``2 / (beta (t + 2))``, with which Nash-MD's bias vanishes (arXiv:2312.00886, theorem 1).

    Raises:
        ConfigError: ``beta`` is not positive.
    """
    if not beta > 0.0:
        raise ConfigError(f"beta = {beta}; the decreasing step needs a positive KL weight")
    return lambda t: 2.0 / (beta * (t + 2.0))


def suggest_eta(rule: MirrorRule, game: PreferenceGame, beta: float) -> float:
    """A step that settles where the theory has one that settles, read from the rule's slots.

    With ``a`` the norm of the margin that the geometry asks for (largest entry for entropy,
    spectral for Euclid): ``1 / (2 a)`` for rules that look ahead (an opponent is the previous
    policy, the half point or a second sequence); ``beta / a^2`` for others with a KL weight, as
    their contraction demands, and ``1 / (10 a)`` without. Never more than ``1 / (2 beta)``.
    """
    largest = spectral = 0.0
    parts = [game.margin[None]] if not game.is_batch else (part for _, part in game.margins())
    for part in parts:
        largest = max(largest, float(np.abs(part).max()))
        if rule.closing == Closing.PROJECT:
            spectral = max(spectral, float(np.linalg.norm(part, ord=2, axis=(1, 2)).max()))
    norm = (spectral if rule.closing == Closing.PROJECT else largest) or 0.5
    opponents = rule.slots(Step(eta=0.0, beta=beta))[1]
    if opponents & {Slot.PREVIOUS, Slot.HALF} or any(st.writes == Slot.BASE for st in rule.stages):
        eta = 1.0 / (2.0 * norm)
    elif beta > 0.0:
        eta = min(1.0 / (2.0 * norm), beta / norm**2)
    else:
        eta = 1.0 / (10.0 * norm)
    return min(eta, 1.0 / (2.0 * beta)) if beta > 0.0 else eta


@dataclass(frozen=True, eq=False)
class PlayOptions:
    """What every family of rules understands.

    Attributes:
        steps: how many.
        start: ``random`` (uniform on the simplex, by ``seed``), ``uniform``, ``reference``, or a
            policy.
        record: record every so many steps, or these steps; about 200 by default.
        samples: None for exact expectations, else verdicts per response and step.
        seed: of the start and of the samples.
        tolerance: stop when the recorded gap of the last policy is at most this.
        progress: called with done and total.

    Raises:
        ConfigError: a value is out of range.
    """

    steps: int = 1000
    start: Start = "random"
    record: int | Int[np.ndarray, " r"] | list[int] | None = None
    samples: int | None = None
    seed: int = 0
    tolerance: float | None = None
    progress: Callable[[int, int], None] | None = None

    def __post_init__(self) -> None:
        if self.steps < 0:
            raise ConfigError(f"steps = {self.steps}; at least 0")
        if self.samples is not None and self.samples < 1:
            raise ConfigError(f"samples = {self.samples}; at least 1 verdict per response")
        if self.seed < 0:
            raise ConfigError(f"seed = {self.seed}; it must be >= 0")
        if self.tolerance is not None and not 0.0 <= self.tolerance < np.inf:
            raise ConfigError(f"tolerance = {self.tolerance}; a duality gap, finite and >= 0")
        if isinstance(self.start, str) and self.start not in ("random", "uniform", "reference"):
            raise ConfigError(f"start = {self.start!r}; random, uniform, reference, or a policy")

    def recorded(self) -> Int[np.ndarray, " r"]:
        """The steps to record; see `record_steps`."""
        return record_steps(self.steps, self.record)

    def generator(self, game: int = 0) -> np.random.Generator:
        """For the samples of one game; another stream than that of the start."""
        return np.random.default_rng([self.seed, 1, game])


def check_positive(**values: float | int) -> None:
    """Raise `ConfigError` unless every value is finite and > 0."""
    for name, value in values.items():
        if not (np.isfinite(value) and value > 0):
            raise ConfigError(f"{name} = {value}; it must be finite and > 0")


def check_kl_weights(**values: float | int) -> None:
    """Raise `ConfigError` unless every value is finite and >= 0."""
    for name, value in values.items():
        if not (np.isfinite(value) and value >= 0):
            raise ConfigError(f"{name} = {value}; a KL weight must be finite and >= 0")


def start_policy(game: PreferenceGame, start: Start, seed: int) -> Float[np.ndarray, "*some n"]:
    """The policy of step 0, of the shape of a policy (or one row for a whole batch).

    Raises:
        ConfigError: an unknown word.
        PolicyError: no distribution over the game's responses.
    """
    if not isinstance(start, str):
        policy = np.asarray(start, dtype=np.float64)
        if game.is_batch and policy.ndim == 1:
            policy = np.broadcast_to(policy, game.shape)
        game.check_policy(policy)
        return policy
    if start == "uniform":
        return game.uniform()
    if start == "reference":
        return np.broadcast_to(game.reference, game.shape)
    if start == "random":
        draws = np.random.default_rng(seed).standard_exponential(game.shape)
        if game.mask is not None:
            draws = draws * game.mask
        return draws / draws.sum(axis=-1, keepdims=True)
    raise ConfigError(f"start = {start!r}; random, uniform, reference, or a policy")


def record_steps(
    steps: int, record: int | Int[np.ndarray, " r"] | list[int] | None
) -> Int[np.ndarray, " r"]:
    """The steps to record, ascending; 0 and the last one among them unless listed otherwise.

    Args:
        steps: how many are played.
        record: every so many steps, or the steps themselves; None for all of them where there are
            at most 200, else about 200, evenly on a logarithmic scale.

    Raises:
        ConfigError: no step, or one that is not played.
    """
    if record is None:
        if steps <= _RECORDS:
            return np.arange(steps + 1)
        spaced = np.geomspace(1, steps, _RECORDS).round().astype(np.int64)
        return np.unique(np.concatenate([[0], spaced, [steps]]))
    if isinstance(record, (int, np.integer)):
        if record < 1:
            raise ConfigError(f"record = {record}; record every 1 or more steps")
        return np.unique(np.concatenate([np.arange(0, steps + 1, int(record)), [steps]]))
    chosen = np.unique(np.asarray(record, dtype=np.int64))
    if chosen.size == 0 or chosen[0] < 0 or chosen[-1] > steps:
        raise ConfigError(f"record lists steps outside 0 to {steps}, or none")
    return chosen
