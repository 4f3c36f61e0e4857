"""How far a policy is from equilibrium, and how cyclic a game is."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from equilign.games.checks import check_policy
from equilign.games.preference_game import PreferenceGame


def exploitability(game: PreferenceGame, policy: Float[np.ndarray, " n"]) -> float:
    r"""Value a best response gains against ``policy`` beyond the tie value 1/2.

    With ``beta > 0`` both players pay ``beta * KL(. || ref)`` and the best response is the Gibbs
    policy ``ref * exp(prefs @ policy / beta)``. The gain is then ``beta * KL(policy || best
    response)``, summed as ``policy * (exp(-d) - 1 + d)`` with ``d`` the log-ratio, which loses
    nothing to cancellation near the equilibrium.

    Args:
        game: ``n`` responses.
        policy: point on the simplex, shape ``(n,)``; zeros allowed.

    Returns:
        Win probability in ``[0, inf)``; 0 iff ``policy`` is an equilibrium.

    Raises:
        PolicyError: ``policy`` is not on the simplex.

    References:
        Munos et al. 2024 (arXiv:2312.00886), regularised preference.
    """
    check_policy(policy, game.size)
    rates = game.win_rates(policy)
    if game.beta == 0.0:
        return float(max(rates.max() - 0.5, 0.0))
    assert game.ref is not None  # noqa: S101 - set in __post_init__; tells the type checker
    with np.errstate(divide="ignore"):
        logits = np.log(game.ref) + rates / game.beta
        log_policy = np.log(policy)
    top = logits.max()
    log_best = logits - top - np.log(np.exp(logits - top).sum())
    used = policy > 0.0
    gap = log_policy[used] - log_best[used]
    lost = float(np.exp(log_best[~used]).sum())  # policy 0, best response not: contributes itself
    used_policy, used_best = policy[used], np.exp(log_best[used])
    # Far below the best response exp(-d) overflows; there policy * exp(-d) is the best response.
    gains = np.where(
        gap > -1.0,
        used_policy * (np.expm1(-np.maximum(gap, -1.0)) + gap),
        used_best - used_policy + used_policy * gap,
    )
    return float(game.beta * (gains.sum() + lost))


def duality_gap(game: PreferenceGame, policy: Float[np.ndarray, " n"]) -> float:
    """Gains of both players' best responses against the pair ``(policy, policy)``.

    Equal to twice `exploitability`, since the game is symmetric; NashConv in OpenSpiel's terms.
    """
    return 2.0 * exploitability(game, policy)


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
