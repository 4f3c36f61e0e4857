"""Nash equilibria of preference games: the von Neumann winner, or maximal lottery."""

import numpy as np
from jaxtyping import Bool, Float

from equilign.errors import ConfigError
from equilign.games.preference_game import PreferenceGame
from equilign.games.regularised import (
    LARGEST_COMPILED,
    compact_margin,
    regularised_equilibria,
)
from equilign.games.solution import Solution

SELECTIONS = ("center", "vertex")
METHODS = ("auto", "simplex", "interior-point")

LARGEST_PIVOTED = 300
"""Responses up to which ``auto`` pivots first."""

ACCURATE = 1e-9
"""Duality gap above which a solution is called inaccurate."""

_TIE = 1e-13
"""Weights, and slacks in units of the largest margin, below which they count as zero."""

Equilibria = tuple[Float[np.ndarray, "x n"], Float[np.ndarray, " x"], Bool[np.ndarray, " x"]]


def nash(game: PreferenceGame, *, selection: str = "center", method: str = "auto") -> Solution:
    """The symmetric Nash equilibrium of every game.

    With ``beta = 0`` the *von Neumann winner*, also called the maximal lottery: no response
    beats it more often than not. With ``beta > 0`` the only fixed point of
    ``policy ~ ref * exp(prefs @ policy / beta)``; its logarithms are in
    `equilign.games.regularised_log_policy`.

    Args:
        game: one game or a batch.
        selection: the canonical choice where a game has several equilibria: ``center``, the
            analytic centre of their set (largest support, the same probability for clones), or
            ``vertex``, one of its corners (a small support; which corner is not specified).
        method: what is tried first, ``simplex``, ``interior-point``, or ``auto`` for the faster
            one. It changes the time, not the answer.

    Returns:
        Value 1/2, the duality gap of the policy as measured, and whether the equilibrium is the
        only one: the policy leaves no response with neither probability nor a strict loss, and
        the margins within its support have rank one less than their number. Probabilities and
        losses below 1e-13 of the largest margin count as zero here.

    Raises:
        ConfigError: no such selection or method.

    References:
        Fishburn 1984, "Probabilistic social choice based on simple voting comparisons"; Dudik
        et al. 2015 (arXiv:1502.06362), von Neumann winner; Goldman and Tucker 1956, strict
        complementarity; Munos et al. 2024 (arXiv:2312.00886) for ``beta > 0``.
    """
    if selection not in SELECTIONS:
        raise ConfigError(f"selection = {selection!r}; there are: {', '.join(SELECTIONS)}")
    if method not in METHODS:
        raise ConfigError(f"method = {method!r}; there are: {', '.join(METHODS)}")
    if game.beta > 0.0:
        log_policies, gains = regularised_equilibria(game)
        policies, unique = np.exp(log_policies), np.ones(len(gains), dtype=bool)
    else:
        policies, gains, unique = equilibria(game, selection, method)
    return _solution(game, policies, 2.0 * gains, unique, selection)


def equilibria(game: PreferenceGame, selection: str = "center", method: str = "auto") -> Equilibria:
    """Policies, exploitabilities and uniqueness of every game with ``beta = 0``; see `nash`."""
    pivoting = method == "simplex" or (method == "auto" and game.size <= LARGEST_PIVOTED)
    return _pivot_first(game, selection) if pivoting else _centre_first(game, selection)


def _pivot_first(game: PreferenceGame, selection: str) -> Equilibria:
    from equilign.games.simplex import FAILED, UNIQUE

    policies, gains, verdicts = _vertices(game, np.arange(len(game)))
    unique = verdicts == UNIQUE
    again = np.flatnonzero(verdicts == FAILED if selection == "vertex" else ~unique)
    if again.size:
        centres, bounds, alone = _centres(game, again)
        taken = (bounds <= np.maximum(gains[again], 1e-12)) | np.isnan(gains[again])
        policies[again[taken]], gains[again[taken]] = centres[taken], bounds[taken]
        unique[again] = alone & (verdicts[again] == FAILED)
    return policies, gains, unique


def _centre_first(game: PreferenceGame, selection: str) -> Equilibria:
    policies, gains, unique = _centres(game, np.arange(len(game)))
    several = np.flatnonzero(~unique)
    if selection == "vertex" and several.size:
        corners, bounds, _ = _vertices(game, several)
        taken = bounds <= np.maximum(gains[several], 1e-12)
        policies[several[taken]], gains[several[taken]] = corners[taken], bounds[taken]
    return policies, gains, unique


def _arrays(game: PreferenceGame) -> tuple[np.ndarray, np.ndarray]:
    prefs = game.prefs if game.is_batch else game.prefs[None]
    return prefs, np.empty((0, game.size), dtype=bool) if game.mask is None else game.mask


def _vertices(game: PreferenceGame, games: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    from equilign.games.simplex import vertices

    return vertices(*_arrays(game), games)


def _centres(game: PreferenceGame, games: np.ndarray) -> Equilibria:
    from equilign.games.centre import settle_games

    prefs, exist = _arrays(game)
    if game.size <= LARGEST_COMPILED:
        from equilign.games.interior_point import run

        policies, gains = run(prefs, exist, 0.0, np.zeros((1, game.size)), games)
        return policies, gains, settle_games(prefs, exist, games, policies, gains)
    policies, gains = np.zeros((len(games), game.size)), np.empty(len(games))
    unique = np.empty(len(games), dtype=bool)
    for k, x in enumerate(games.tolist()):
        keep = np.ones(game.size, dtype=bool) if game.mask is None else game.mask[x]
        policies[k, keep], gains[k], unique[k] = _large_centre(compact_margin(game, x, keep))
    return policies, gains, unique


def _large_centre(margin: Float[np.ndarray, "n n"]) -> tuple[Float[np.ndarray, " n"], float, bool]:
    """Where the equilibrium is the only one, one LU decides that and refines it; else an SVD."""
    from equilign.games.centre import settle
    from equilign.games.large import centre

    policy, gain = centre(margin)
    scale = float(np.abs(margin).max()) or 1.0
    played = policy * scale > -(margin @ policy)
    exact = _support_solution(margin[np.ix_(played, played)] / scale)
    settled, unique = policy.copy(), False
    if exact is not None and exact.min() > _TIE:
        settled[:] = 0.0
        settled[played] = exact
        payoff = margin @ settled
        unique = bool((payoff[~played] < -_TIE * scale).all() and payoff.max() <= _TIE * scale)
    if not unique:
        settled = policy.copy()
        unique = bool(settle(margin, settled))
    better = max(float((margin @ settled).max()), 0.0)
    return (settled, better, unique) if better <= max(gain, 1e-14) else (policy, gain, unique)


def _support_solution(block: Float[np.ndarray, "k k"]) -> Float[np.ndarray, " k"] | None:
    """The only x with ``block @ x = 0`` and ``sum(x) = 1``; None if there are more or none."""
    from scipy.linalg import lapack  # not at start-up: scipy takes a third of a second

    size = len(block)
    if size % 2 == 0:  # a skew matrix of even order has an even number of such directions
        return None
    bordered = np.zeros((size + 1, size + 1), order="F")
    bordered[:size, :size] = block
    bordered[:size, size], bordered[size, :size] = 1.0, 1.0
    factors, swaps, info = lapack.dgetrf(bordered)
    reciprocal = lapack.dgecon(factors, np.abs(bordered).sum(axis=0).max())[0]
    if info != 0 or not reciprocal > 1e-14:
        return None
    side = np.zeros(size + 1)
    side[size] = 1.0
    x = lapack.dgetrs(factors, swaps, side)[0][:size]
    for _ in range(2):
        side[:size], side[size] = -(block @ x), 1.0 - x.sum()
        x = x + lapack.dgetrs(factors, swaps, side)[0][:size]
    return x / x.sum()


def _solution(
    game: PreferenceGame,
    policies: Float[np.ndarray, "x n"],
    gaps: Float[np.ndarray, " x"],
    unique: Bool[np.ndarray, " x"],
    selection: str,
) -> Solution:
    several, inaccurate = int((~unique).sum()), int((~(gaps <= ACCURATE)).sum())
    status = "inaccurate" if inaccurate else "not unique" if several else "optimal"
    return Solution(
        concept="nash",
        policy=policies if game.is_batch else policies[0],
        value=np.full(len(gaps), 0.5) if game.is_batch else 0.5,
        gap=gaps if game.is_batch else float(gaps[0]),
        unique=unique if game.is_batch else bool(unique[0]),
        status=status,
        labels=game.names,
        notes=_notes(len(gaps), several, inaccurate, selection),
    )


def _notes(games: int, several: int, inaccurate: int, selection: str) -> tuple[str, ...]:
    notes = []
    choice = {
        "center": "the analytic centre of the set of equilibria: the largest support, and the "
        "same probability for responses that are clones of each other",
        "vertex": "one corner of the set of equilibria",
    }[selection]
    if several and games == 1:
        notes.append(f"The game has several equilibria; the policy is {choice}.")
    elif several:
        notes.append(
            f"{several} of {games} games have several equilibria; their policies are {choice}."
        )
    if inaccurate:
        which = "The policy" if games == 1 else f"{inaccurate} of {games} policies"
        notes.append(f"{which} could not be found to a duality gap of {ACCURATE:g}; see gap.")
    return tuple(notes)
