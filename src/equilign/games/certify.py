"""From a policy, or from payoffs, to a `Solution` whose value and gap are measured."""

from collections.abc import Iterator
from types import EllipsisType

import numpy as np
from jaxtyping import Bool, Float

from equilign.errors import ConfigError
from equilign.games.measures import duality_gap
from equilign.games.preference_game import PreferenceGame
from equilign.games.solution import Solution

STATUSES = ("optimal", "not unique", "inaccurate", "none")
"""From best to worst; a batch has the worst status of its games."""


def tie_tolerance(game: PreferenceGame) -> float:
    """Win rates closer than this count as equal: rounding of float32 or float64 entries."""
    return 1e-6 if game.prefs.dtype == np.float32 else 1e-9


def margin_slices(
    game: PreferenceGame,
) -> Iterator[tuple[slice | EllipsisType, Float[np.ndarray, "*batch n n"]]]:
    """As `PreferenceGame.margins`; a single game is one slice, ``...``."""
    if game.is_batch:
        yield from game.margins()
    else:
        yield ..., game.margin


def exist(game: PreferenceGame) -> Bool[np.ndarray, "*batch n"]:
    """Which responses there are."""
    return np.ones(game.shape, dtype=bool) if game.mask is None else game.mask


def broadcast_policy(
    game: PreferenceGame, policy: Float[np.ndarray, "*some n"] | None
) -> Float[np.ndarray, "*batch n"]:
    """A checked policy of the shape of the game; the reference if None.

    Raises:
        PolicyError: it is no distribution over the responses of the game.
    """
    given = game.reference if policy is None else np.asarray(policy, dtype=np.float64)
    if given.ndim == 1 and game.is_batch and game.mask is None and given.shape == (game.size,):
        given = np.broadcast_to(given, game.shape)
    game.check_policy(given)
    return given


def split_evenly(
    payoff: Float[np.ndarray, "*batch n"], there: Bool[np.ndarray, "*#batch n"], tolerance: float
) -> tuple[Float[np.ndarray, "*batch n"], Bool[np.ndarray, "*batch"]]:
    """The best of the responses that exist, several of them in equal shares; and whether one is."""
    seen = np.where(there, payoff, -np.inf)
    best = seen >= seen.max(axis=-1, keepdims=True) - tolerance
    number = best.sum(axis=-1)
    return best / number[..., None], np.asarray(number == 1)


def gibbs(
    game: PreferenceGame, payoff: Float[np.ndarray, "*batch n"], beta: float
) -> Float[np.ndarray, "*batch n"]:
    """The policy ``ref * exp(payoff / beta)``, normalised in log-space; ``beta > 0``."""
    with np.errstate(divide="ignore"):
        log_ref = np.log(game.reference)
    top = np.where(np.isfinite(log_ref), payoff, -np.inf).max(axis=-1, keepdims=True)
    logits = log_ref + (payoff - top) / beta  # subtracting first: payoff / beta may overflow
    weight = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return weight / weight.sum(axis=-1, keepdims=True)


def log_sum_exp(logits: Float[np.ndarray, "*batch n"]) -> Float[np.ndarray, "*batch"]:
    """``log sum exp`` over the last axis; entries may be -inf, not all of a row."""
    top = logits.max(axis=-1, keepdims=True)
    return np.asarray(top[..., 0] + np.log(np.exp(logits - top).sum(axis=-1)))


def kl(
    policy: Float[np.ndarray, "*batch n"], log_other: Float[np.ndarray, "*batch n"]
) -> Float[np.ndarray, "*batch"]:
    """``KL(policy || other)`` in nats, ``>= 0``.

    A sum of terms ``>= 0``, ``p (exp(-d) - 1 + d)`` with ``d`` the log-ratio: nothing cancels
    where the two are near each other.
    """
    with np.errstate(divide="ignore", invalid="ignore", over="ignore"):
        d, other = np.log(policy) - log_other, np.exp(log_other)
        near = policy * (np.expm1(-np.maximum(d, -1.0)) + d)
        terms = np.where(d > -1.0, near, other - policy + policy * d)
    terms = np.where(policy > 0.0, terms, other)
    return np.asarray(np.maximum(terms.sum(axis=-1), 0.0))


def answer(
    concept: str,
    game: PreferenceGame,
    policy: Float[np.ndarray, "*batch n"],
    unique: Bool[np.ndarray, "*batch"],
    notes: tuple[str, ...] = (),
) -> Solution:
    """A `Solution` with value and gap measured; zero rows of ``policy`` mean no answer."""
    none = np.asarray(~(policy > 0.0).any(axis=-1))
    value = np.where(none, np.nan, 1.0 - game.win_rates(policy).max(axis=-1))
    played = np.where(none[..., None], game.uniform(), policy)
    gap = np.where(none, np.nan, duality_gap(game, played))
    statuses = [name for name, hit in (("none", none), ("not unique", ~unique)) if hit.any()]
    status = max([*statuses, "optimal"], key=STATUSES.index)
    if game.is_batch:
        return Solution(concept, policy, value, gap, unique, status, game.names, notes=notes)
    return Solution(
        concept, policy, float(value), float(gap), bool(unique), status, game.names, notes=notes
    )


def tie_note(unique: Bool[np.ndarray, "*batch"], what: str) -> tuple[str, ...]:
    """A sentence on games in which several responses are best."""
    if unique.all():
        return ()
    if unique.ndim == 0:
        return (f"Several responses have the {what}; they are played equally often.",)
    return (
        f"In {int((~unique).sum())} of {unique.size} games several responses have the {what}; "
        "they are played equally often.",
    )


def check_beta(beta: float | None, game: PreferenceGame, name: str = "beta") -> float:
    """``beta``, or the game's; finite and ``>= 0``.

    Raises:
        ConfigError: it is not.
    """
    chosen = game.beta if beta is None else beta
    if not (np.isfinite(chosen) and chosen >= 0.0):
        raise ConfigError(f"{name} = {chosen}; a KL weight must be finite and >= 0")
    return float(chosen)
