"""How far a policy is from equilibrium, and how cyclic a game is."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float

from equilign.errors import PolicyError
from equilign.games.preference_game import PreferenceGame

Measure = Any
"""A float for one game, an array with one entry per game for a batch."""


def exploitability(
    game: PreferenceGame,
    policy: Float[np.ndarray, "*batch n"] | None = None,
    *,
    log_policy: Float[np.ndarray, "*batch n"] | None = None,
) -> Measure:
    r"""Value a best response gains against ``policy`` beyond the tie value 1/2.

    With ``beta > 0`` both players pay ``beta * KL(. || ref)`` and the best response is the Gibbs
    policy ``ref * exp(prefs @ policy / beta)``. The gain is then ``beta * KL(policy || best
    response)``, summed as ``policy * (exp(-d) - 1 + d)`` with ``d`` the log-ratio, which loses
    nothing to cancellation near the equilibrium.

    Args:
        game: one game or a batch.
        policy: a point on the simplex for every game, shape ``(n,)`` or ``(X, n)``; zeros
            allowed.
        log_policy: its logarithms instead, for probabilities that underflow; ``-inf`` allowed.

    Returns:
        Win probability in ``[0, inf]``; 0 iff ``policy`` is an equilibrium. A float, or an array
        with one entry per game of a batch. A few games are looked at at a time, so that a large
        batch is never held twice.

    Raises:
        PolicyError: not exactly one of the two is given, or it is not on the simplex.

    References:
        Munos et al. 2024 (arXiv:2312.00886), regularised preference.
    """
    if (policy is None) == (log_policy is None):
        raise PolicyError("give either policy or log_policy")
    if policy is None:
        assert log_policy is not None  # noqa: S101 - just checked; tells the type checker
        logs = np.asarray(log_policy, dtype=np.float64)
        if not (logs <= 1e-6).all():  # nan fails the comparison
            raise PolicyError("log_policy must hold logarithms of probabilities, none above 0")
        policy = np.exp(logs)
    else:
        logs = None
    game.check_policy(policy)
    if not game.is_batch:
        margin = (game.prefs - game.prefs.T) / 2.0
        many = None if logs is None else logs[None]
        return float(_gains(margin[None], policy[None], many, game.reference[None], game.beta)[0])
    gains = np.empty(len(game))
    for rows, margins in game.margins():
        ref = game.reference[rows] if game.reference.ndim == 2 else game.reference[None]
        part = None if logs is None else logs[rows]
        gains[rows] = _gains(margins, policy[rows], part, ref, game.beta)
    return gains


def _gains(
    margins: Float[np.ndarray, "b n n"],
    policies: Float[np.ndarray, "b n"],
    logs: Float[np.ndarray, "b n"] | None,
    refs: Float[np.ndarray, "_ n"],
    beta: float,
) -> Float[np.ndarray, " b"]:
    payoffs = np.matmul(margins, policies[:, :, None])[:, :, 0]
    if beta == 0.0:
        # Where a mask leaves a response out its payoff reads 0, which is no gain either.
        return np.maximum(payoffs.max(axis=1), 0.0)
    with np.errstate(divide="ignore"):
        logits = np.log(refs) + payoffs / beta
        logs = np.log(policies) if logs is None else logs
    logits -= logits.max(axis=1, keepdims=True)
    log_best = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    best = np.exp(log_best)
    used, possible = logs > -np.inf, log_best > -np.inf
    d = np.subtract(logs, log_best, out=np.zeros_like(logs), where=used & possible)
    # Far below the best response exp(-d) overflows; there policy * exp(-d) is the best response.
    terms = np.where(
        d > -1.0,
        policies * (np.expm1(-np.maximum(d, -1.0)) + d),
        best - policies + policies * d,
    )
    terms = np.where(used, terms, best)  # never played: the best response contributes itself
    terms[used & ~possible] = np.inf  # played against a reference that never does
    return np.asarray(beta * np.maximum(terms.sum(axis=1), 0.0))


def duality_gap(
    game: PreferenceGame,
    policy: Float[np.ndarray, "*batch n"] | None = None,
    *,
    log_policy: Float[np.ndarray, "*batch n"] | None = None,
) -> Measure:
    """Gains of both players' best responses against the pair ``(policy, policy)``.

    Equal to twice `exploitability`, since the game is symmetric; NashConv in OpenSpiel's terms.
    Arguments, result and errors are those of `exploitability`.
    """
    return 2.0 * exploitability(game, policy, log_policy=log_policy)


@dataclass(frozen=True)
class CycleReport:
    """How cyclic a set of small games is.

    Attributes:
        prompts: number of games.
        with_cycle: games with at least one strict cycle a > b > c > a.
        with_condorcet_winner: games in which one response beats every other one.
        triples: number of triples of responses, over all games.
        cyclic_triples: how many of them are strict cycles.
    """

    prompts: int
    with_cycle: int
    with_condorcet_winner: int
    triples: int
    cyclic_triples: int


def cyclic_triples(prefs: Float[np.ndarray, "n n"]) -> int:
    """Number of triples with a > b > c > a by majority (each Pr > 1/2).

    In a tournament a cycle of any length contains one of length three, so 0 means that the
    strict majority relation of a game without ties is transitive.
    """
    beats = (prefs > 0.5).astype(np.int64)
    return int(np.trace(beats @ beats @ beats)) // 3


def has_cycle(prefs: Float[np.ndarray, "n n"]) -> bool:
    """Whether the strict majority relation contains a cycle of any length."""
    beats = prefs > 0.5
    alive = np.ones(len(beats), dtype=bool)
    while alive.any():
        # A response that beats no one still alive lies on no cycle; peel such ones off.
        sinks = alive & ~(beats & alive[None, :]).any(axis=1)
        if not sinks.any():
            return True
        alive &= ~sinks
    return False


def condorcet_winner(prefs: Float[np.ndarray, "n n"]) -> int | None:
    """Index of the response that beats every other one with Pr > 1/2, or None."""
    beats = prefs > 0.5
    np.fill_diagonal(beats, True)
    winners = np.flatnonzero(beats.all(axis=1))
    return int(winners[0]) if winners.size else None


def cycle_report(games: list[Float[np.ndarray, "_ _"]]) -> CycleReport:
    """Summarise `cyclic_triples`, `has_cycle` and `condorcet_winner` over many games."""
    return CycleReport(
        prompts=len(games),
        with_cycle=sum(has_cycle(g) for g in games),
        with_condorcet_winner=sum(condorcet_winner(g) is not None for g in games),
        triples=sum(len(g) * (len(g) - 1) * (len(g) - 2) // 6 for g in games),
        cyclic_triples=sum(cyclic_triples(g) for g in games),
    )
