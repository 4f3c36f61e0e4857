"""The KL-regularised equilibrium of a preference game, in logarithms."""

import numpy as np
from jaxtyping import Float

from equilign.errors import ConfigError
from equilign.games.preference_game import PreferenceGame

LARGEST_COMPILED = 200
"""Responses up to which the compiled elimination is used; above, LAPACK."""


def regularised_log_policy(game: PreferenceGame) -> Float[np.ndarray, "*batch n"]:
    """Logarithms of the policy with ``policy ~ ref * exp(prefs @ policy / beta)``.

    The only equilibrium of a game with ``beta > 0``. Probabilities of any size keep their
    digits: with a small ``beta`` those of losing responses underflow, their logarithms do not.

    Args:
        game: one game or a batch, with ``beta > 0``.

    Returns:
        Shape ``(n,)`` or ``(X, n)``; ``-inf`` where the reference is 0 or the mask leaves a
        response out.

    Raises:
        ConfigError: ``beta`` is 0.

    References:
        Munos et al. 2024 (arXiv:2312.00886). A barrier path, then Newton's method in the
        logarithms, see `equilign.games.interior_point`.
    """
    log_policy, _ = regularised_equilibria(game)
    return log_policy if game.is_batch else log_policy[0]


def regularised_equilibria(
    game: PreferenceGame,
) -> tuple[Float[np.ndarray, "x n"], Float[np.ndarray, " x"]]:
    """Logarithms of the equilibria, and their exploitabilities; a single game is a batch of one.

    Raises:
        ConfigError: ``beta`` is 0.
    """
    if game.beta == 0.0:
        raise ConfigError(
            "beta = 0: without a KL weight the equilibrium has no logarithms; "
            "use nash(game), or give the game beta > 0"
        )
    with np.errstate(divide="ignore"):
        log_ref = np.atleast_2d(np.log(game.reference))
    if game.size > LARGEST_COMPILED:
        return _one_by_one(game, log_ref)
    from equilign.games.interior_point import run

    prefs = game.prefs if game.is_batch else game.prefs[None]
    mask = np.empty((0, game.size), dtype=bool) if game.mask is None else game.mask
    return run(prefs, mask, game.beta, log_ref, np.arange(len(prefs)))


def _one_by_one(
    game: PreferenceGame, log_ref: Float[np.ndarray, "_ n"]
) -> tuple[Float[np.ndarray, "x n"], Float[np.ndarray, " x"]]:
    from equilign.games.large import fixed_point

    answers = np.full((len(game), game.size), -np.inf)
    gains = np.empty(len(game))
    for x in range(len(game)):
        logs = log_ref[x if len(log_ref) > 1 else 0]
        keep = np.isfinite(logs)
        if game.mask is not None:
            keep &= game.mask[x]
        margin = compact_margin(game, x, keep)
        answers[x, keep], gains[x] = fixed_point(margin, game.beta, logs[keep])
    return answers, gains


def compact_margin(
    game: PreferenceGame, x: int, keep: np.ndarray | None
) -> Float[np.ndarray, "m m"]:
    """Exactly skew float64 margin of game ``x`` among the responses that are kept."""
    prefs = game.prefs[x] if game.is_batch else game.prefs
    if keep is not None and not keep.all():
        prefs = prefs[np.ix_(keep, keep)]
    wide = prefs.astype(np.float64)
    return (wide - wide.T) / 2.0
