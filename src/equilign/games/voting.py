"""Solution concepts of voting: who wins when every comparison is a vote."""

import numpy as np
from jaxtyping import Float

from equilign.games.certify import (
    answer,
    broadcast_policy,
    exist,
    margin_slices,
    split_evenly,
    tie_note,
    tie_tolerance,
)
from equilign.games.checks import check_prefs
from equilign.games.preference_game import PreferenceGame
from equilign.games.solution import Solution


def condorcet(game: PreferenceGame) -> Solution:
    """The response that beats every other one with probability above 1/2.

    There is at most one. Where there is none the policy is all zeros, value and gap are nan and
    the status is ``none``.

    Args:
        game: one game or a batch.
    """
    there = exist(game)
    policy = np.zeros(game.shape)
    for rows, margin in margin_slices(game):
        beaten = (margin > 0.0) | ~there[rows][..., None, :]
        diagonal = np.arange(game.size)
        beaten[..., diagonal, diagonal] = True
        policy[rows] = beaten.all(axis=-1) & there[rows]
    without = int((policy.sum(axis=-1) == 0.0).sum())
    notes: tuple[str, ...] = ()
    if without and game.is_batch:
        notes = (f"{without} of {len(game)} games have no Condorcet winner.",)
    elif without:
        notes = ("No response beats every other one with probability above 1/2.",)
    return answer("condorcet", game, policy, np.ones(game.shape[:-1], dtype=bool), notes)


def borda(game: PreferenceGame, *, against: Float[np.ndarray, "*some n"] | None = None) -> Solution:
    """The response with the highest mean win rate.

    With votes and a uniform opponent this is the Borda count. It is also what a reward model
    that is asked for the win rate against ``against`` would maximise. Ties are played equally
    often.

    Args:
        game: one game or a batch.
        against: policy of the opponent, shape ``(n,)`` or ``(X, n)``; uniform if not given.

    Raises:
        PolicyError: ``against`` is no policy of the game.
    """
    opponent = game.uniform() if against is None else broadcast_policy(game, against)
    rates = game.win_rates(opponent)
    policy, unique = split_evenly(rates, exist(game), tie_tolerance(game))
    return answer("borda", game, policy, unique, tie_note(unique, "highest mean win rate"))


def copeland(game: PreferenceGame) -> Solution:
    """The response that beats most others by majority; a tie of two counts one half.

    Responses with equally many are played equally often. All of them are in the Smith set.

    Args:
        game: one game or a batch.
    """
    wins = np.zeros(game.shape)
    there = exist(game)
    for rows, margin in margin_slices(game):
        pair = there[rows][..., None, :] & there[rows][..., :, None]
        wins[rows] = (np.where(pair, np.sign(margin), 0.0) / 2.0).sum(axis=-1)
    policy, unique = split_evenly(wins, there, 0.25)
    return answer("copeland", game, policy, unique, tie_note(unique, "most majority wins"))


def smith_set(prefs: Float[np.ndarray, "n n"]) -> tuple[int, ...]:
    """The smallest set whose members all beat everyone outside it, with Pr > 1/2.

    A tie does not beat, so whoever ties with a member is a member. One member: the Condorcet
    winner. Nash equilibria play inside this set.

    Raises:
        PreferenceMatrixError: ``prefs`` is no matrix of win probabilities.
    """
    check_prefs(prefs)
    unbeaten = prefs >= 0.5
    inside = np.zeros(len(prefs), dtype=bool)
    # Members are unbeaten by all outside them, so the response unbeaten most often is a member.
    inside[unbeaten.sum(axis=1).argmax()] = True
    while True:
        more = inside | unbeaten[:, inside].any(axis=1)
        if (more == inside).all():
            return tuple(int(i) for i in np.flatnonzero(inside))
        inside = more


def weak_condorcet_winners(prefs: Float[np.ndarray, "n n"]) -> tuple[int, ...]:
    """The responses that lose to no one: Pr >= 1/2 against each. Pure Nash equilibria.

    Raises:
        PreferenceMatrixError: ``prefs`` is no matrix of win probabilities.
    """
    check_prefs(prefs)
    unbeaten = prefs >= 0.5
    np.fill_diagonal(unbeaten, True)
    return tuple(int(i) for i in np.flatnonzero(unbeaten.all(axis=1)))
