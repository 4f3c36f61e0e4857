r"""Stackelberg equilibria: a leader commits to a response, a follower sees it and answers.

    max_pi min_omega  E_{y ~ pi} [ E_{z ~ omega(.|y)} P(y > z) + beta_F KL(omega(.|y) || omega_ref)
                                   ] - beta_L KL(pi || ref)

(SLHF, arXiv:2512.16626). Solved in closed form: for each leader action the follower's answer is
``omega_ref * exp(-P(y, .) / beta_F)`` and leaves the leader ``V(y) = -beta_F log sum_z omega_ref(z)
exp(-P(y, z) / beta_F)``; the leader plays ``ref * exp(V / beta_L)``.
"""

from types import EllipsisType

import numpy as np
from jaxtyping import Float

from equilign.errors import ConfigError, PolicyError
from equilign.games.certify import (
    check_beta,
    exist,
    gibbs,
    kl,
    log_sum_exp,
    margin_slices,
    split_evenly,
    tie_note,
    tie_tolerance,
)
from equilign.games.checks import TOLERANCE
from equilign.games.preference_game import PreferenceGame
from equilign.games.solution import Solution

_COMPILED_FROM = 2**17
"""Entries of ``prefs`` from which loading the compiler pays."""

_Rows = slice | EllipsisType


def stackelberg(
    game: PreferenceGame,
    *,
    beta_follower: float | None = None,
    ref_follower: Float[np.ndarray, "*some n"] | None = None,
    follower: bool = True,
) -> Solution:
    """The equilibrium of the sequential game; the leader's KL weight is ``game.beta``.

    Without a KL weight a player picks the best response outright (the limit for a weight that
    goes to zero with a uniform reference): the follower ``min_z P(y, z)``, the leader the
    response whose worst case is best. Ties are played equally often and reported.

    Args:
        game: one game or a batch; its ``ref`` is the leader's.
        beta_follower: the follower's KL weight, win probability per nat; ``game.beta`` if not
            given.
        ref_follower: what the follower would answer on its own: ``(n,)``, one row per leader
            action ``(n, n)``, or ``(X, n, n)``; also ``(X, 1, n)``. The game's ``ref`` if not
            given.
        follower: whether to return the follower's table, which is as large as the game. Without
            it a batch needs a few vectors of the size of a policy, and ``gap`` is the leader's.

    Raises:
        ConfigError: a KL weight is negative or not finite.
        PolicyError: ``ref_follower`` has another shape or a row that is no distribution.

    References:
        Pasztor et al. 2025 (arXiv:2512.16626), the unique equilibrium for positive weights.
    """
    weight = check_beta(beta_follower, game, "beta_follower")
    log_ref = _log_ref_follower(game, ref_follower, weight)
    values = _leader_values(game, log_ref, weight)
    policy, value, gap, unique = _lead(game, values)
    notes = tie_note(unique, "best worst case")
    if weight == 0.0:
        answers = _one_answer(game, policy)
        unique, notes = unique & answers, notes + _answer_note(answers)
    table = None
    if follower:
        table = follower_policy(game, beta_follower=weight, ref_follower=ref_follower)
        gap = gap + _follower_gap(game, policy, table, log_ref, weight)
    inaccurate = bool((gap > 1e-9).any())
    status = "inaccurate" if inaccurate else "optimal" if unique.all() else "not unique"
    if game.is_batch:
        return Solution("stackelberg", policy, value, gap, unique, status, game.names, table, notes)
    return Solution(
        "stackelberg",
        policy,
        float(value),
        float(gap),
        bool(unique),
        status,
        game.names,
        table,
        notes,
    )


def leader_values(
    game: PreferenceGame,
    *,
    beta_follower: float | None = None,
    ref_follower: Float[np.ndarray, "*some n"] | None = None,
) -> Float[np.ndarray, "*batch n"]:
    """``V(y)``: what each leader action is worth when the follower answers it optimally.

    Args and errors as of `stackelberg`. Responses that do not exist read 1/2.
    """
    weight = check_beta(beta_follower, game, "beta_follower")
    return _leader_values(game, _log_ref_follower(game, ref_follower, weight), weight)


def follower_policy(
    game: PreferenceGame,
    *,
    beta_follower: float | None = None,
    ref_follower: Float[np.ndarray, "*some n"] | None = None,
) -> Float[np.ndarray, "*batch n n"]:
    """The optimal answer to each leader action: row y is ``omega_ref * exp(-P(y, .) / beta_F)``.

    Args and errors as of `stackelberg`.
    """
    weight = check_beta(beta_follower, game, "beta_follower")
    log_ref = _log_ref_follower(game, ref_follower, weight)
    table = np.empty((*game.shape, game.size))
    for rows, margin in margin_slices(game):
        refs = _rows_of(log_ref, rows, game)
        if weight == 0.0:
            table[rows] = split_evenly(-margin, np.isfinite(refs), tie_tolerance(game))[0]
        else:
            logits = _logits(margin, refs, weight)
            table[rows] = np.exp(logits - log_sum_exp(logits)[..., None])
            table[rows] /= table[rows].sum(axis=-1, keepdims=True)
    return table


def stackelberg_gap(
    game: PreferenceGame,
    leader: Float[np.ndarray, "*batch n"],
    follower: Float[np.ndarray, "*batch n n"] | None = None,
    *,
    beta_follower: float | None = None,
    ref_follower: Float[np.ndarray, "*some n"] | None = None,
) -> float | Float[np.ndarray, " x"]:
    """What the two players lack to the equilibrium of the sequential game.

    The leader's loss against a follower that answers optimally, ``beta_L KL(leader || leader*)``,
    plus the follower's loss on the leader's actions, ``E beta_F KL(follower || follower*)``. Both
    are exact, not bounds; without a KL weight they are differences of win rates.

    Args:
        game: one game or a batch.
        leader: policy, shape ``(n,)`` or ``(X, n)``.
        follower: answers, rows on the simplex; optimal ones if not given.
        beta_follower: as in `stackelberg`.
        ref_follower: as in `stackelberg`.

    Raises:
        PolicyError: a policy is not on the simplex.
        ConfigError: a KL weight is negative or not finite.
    """
    game.check_policy(leader)
    weight = check_beta(beta_follower, game, "beta_follower")
    log_ref = _log_ref_follower(game, ref_follower, weight)
    gap = _leader_gap(game, leader, _leader_values(game, log_ref, weight))
    if follower is not None:
        if follower.shape != (*game.shape, game.size):
            raise PolicyError(
                f"follower has shape {follower.shape}; needed: {(*game.shape, game.size)}, "
                "one row of answers per leader action"
            )
        _check_rows(game, follower if game.is_batch else follower[None], "follower")
        gap = gap + _follower_gap(game, leader, follower, log_ref, weight)
    return gap if game.is_batch else float(gap)


def refine(
    leader: Float[np.ndarray, "*batch n"],
    follower: Float[np.ndarray, "*batch n n"],
    *,
    rounds: int,
) -> Float[np.ndarray, "rounds *batch n"]:
    """How often each response stands after each round of refinement.

    The first response is the leader's; every later one is the follower's answer to the one
    before: ``leader, leader @ follower, leader @ follower @ follower, ...``.

    Args:
        leader: policy of the first response.
        follower: answers, rows on the simplex.
        rounds: how many distributions to return, the leader's included.

    Raises:
        ConfigError: fewer than one round.
    """
    if rounds < 1:
        raise ConfigError(f"rounds = {rounds}; at least the leader's own is needed")
    states = [leader]
    for _ in range(rounds - 1):
        states.append(np.matmul(states[-1][..., None, :], follower)[..., 0, :])
    return np.stack(states)


# -- pieces -------------------------------------------------------------------------------


def _log_ref_follower(game: PreferenceGame, ref: np.ndarray | None, beta: float) -> np.ndarray:
    """Logarithms of shape ``(1 or X, 1 or n, n)``; only which replies exist without a weight."""
    if ref is None:
        own = game.reference
        given = own[:, None, :] if own.ndim == 2 else own[None, None, :]
    else:
        given = np.asarray(ref, dtype=np.float64)
        given = given.reshape((1,) * (3 - given.ndim) + given.shape)
        wanted = (len(game), game.size, game.size)
        fits = [a in (1, b) for a, b in zip(given.shape, wanted, strict=False)]
        if given.ndim != 3 or not all(fits) or given.shape[2] != game.size:
            raise PolicyError(
                f"ref_follower has shape {np.shape(ref)}; needed: ({game.size},), "
                f"({game.size}, {game.size}) with a row per leader action"
                + (f", or {wanted}" if game.is_batch else "")
            )
        _check_rows(game, given, "ref_follower")
    if beta == 0.0:
        return np.where(exist(game).reshape(-1, 1, game.size), 0.0, -np.inf)
    with np.errstate(divide="ignore"):
        return np.ascontiguousarray(np.log(given))


def _check_rows(game: PreferenceGame, table: np.ndarray, name: str) -> None:
    """Raise unless every row of ``(1 or X, 1 or n, n)`` is a distribution over what exists."""
    bad = ~(np.isfinite(table) & (table >= 0.0)).all(axis=-1)
    bad |= ~(np.abs(table.sum(axis=-1) - 1.0) <= TOLERANCE)
    if game.mask is not None:
        bad = bad | ((table > 0.0) & ~game.mask[:, None, :]).any(axis=-1)
        if table.shape[1] > 1:
            bad &= game.mask  # answers to leader actions that do not exist are not looked at
    if bad.any():
        x, y = (int(k) for k in np.argwhere(bad)[0])
        where = f"[{x}, {y}]" if game.is_batch else f"[{y}]"
        raise PolicyError(
            f"row {where} of {name} is no distribution over the responses of its game: it sums "
            f"to {table[x if len(table) > 1 else 0, y].sum():.8g}; entries must be >= 0, their "
            "sum 1, and 0 where there is no response"
        )


def _rows_of(log_ref: np.ndarray, rows: _Rows, game: PreferenceGame) -> np.ndarray:
    """The references that belong to a slice of the games."""
    if not game.is_batch:
        return log_ref[0]
    return log_ref[rows] if len(log_ref) > 1 else log_ref


def _logits(margin: np.ndarray, log_ref: np.ndarray, beta: float) -> np.ndarray:
    return log_ref - margin / beta


def _leader_values(game: PreferenceGame, log_ref: np.ndarray, beta: float) -> np.ndarray:
    values = np.empty(game.shape)
    if beta > 0.0 and game.is_batch and game.prefs.size >= _COMPILED_FROM:
        from equilign.compiled import over_games
        from equilign.games.stackelberg_kernel import soft_minima

        prefs = np.ascontiguousarray(game.prefs)
        over_games(
            lambda start, stop: soft_minima(prefs, log_ref, beta, values, start, stop),
            len(game),
            least=max(1, _COMPILED_FROM // game.size**2),
        )
    else:
        for rows, margin in margin_slices(game):
            refs = _rows_of(log_ref, rows, game)
            if beta == 0.0:
                values[rows] = 0.5 + np.where(np.isfinite(refs), margin, np.inf).min(axis=-1)
            else:
                values[rows] = 0.5 - beta * log_sum_exp(_logits(margin, refs, beta))
    if game.mask is not None:
        values[~game.mask] = 0.5
    return values


def _lead(
    game: PreferenceGame, values: np.ndarray
) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The leader's policy, its value and gap, and whether it is the only optimal one."""
    if game.beta == 0.0:
        policy, unique = split_evenly(values, exist(game), tie_tolerance(game))
        return policy, _value(game, values), _leader_gap(game, policy, values), unique
    unique = np.ones(game.shape[:-1], dtype=bool)
    if not (game.is_batch and game.prefs.size >= _COMPILED_FROM):
        policy = gibbs(game, values, game.beta)
        return policy, _value(game, values), _leader_gap(game, policy, values), unique
    from equilign.compiled import over_games
    from equilign.games.stackelberg_kernel import leaders

    with np.errstate(divide="ignore"):
        log_ref = np.log(np.atleast_2d(game.reference))
    policy, value, gap = np.empty(game.shape), np.empty(len(game)), np.empty(len(game))
    over_games(
        lambda start, stop: leaders(values, log_ref, game.beta, policy, value, gap, start, stop),
        len(game),
        least=max(1, _COMPILED_FROM // game.size**2),
    )
    return policy, value, gap, unique


def _one_answer(game: PreferenceGame, policy: np.ndarray) -> np.ndarray:
    """Whether every response that the leader plays has a single best answer."""
    single = np.empty(game.shape[:-1], dtype=bool)
    there = exist(game)
    for rows, margin in margin_slices(game):
        exists = there[rows][..., None, :]
        one = split_evenly(-margin, exists, tie_tolerance(game))[1]
        single[rows] = (one | (policy[rows] == 0.0)).all(axis=-1)
    return single


def _answer_note(single: np.ndarray) -> tuple[str, ...]:
    if single.all():
        return ()
    where = f"In {int((~single).sum())} of {single.size} games the" if single.ndim else "The"
    return (f"{where} follower has several best answers; they are played equally often.",)


def _value(game: PreferenceGame, values: np.ndarray) -> np.ndarray:
    seen = np.where(exist(game), values, -np.inf)
    if game.beta == 0.0:
        return np.asarray(seen.max(axis=-1))
    with np.errstate(divide="ignore"):
        logits = np.log(game.reference) + values / game.beta
    return np.asarray(game.beta * log_sum_exp(logits))


def _leader_gap(game: PreferenceGame, leader: np.ndarray, values: np.ndarray) -> np.ndarray:
    """``beta KL(leader || optimal leader)``, or what its worst case lacks to the best one."""
    if game.beta == 0.0:
        best = _value(game, values)
        lacking = np.where(leader > 0.0, leader * (best[..., None] - values), 0.0)
        return np.asarray(np.maximum(lacking.sum(axis=-1), 0.0))
    with np.errstate(divide="ignore"):
        logits = np.log(game.reference) + values / game.beta
    return np.asarray(game.beta * kl(leader, logits - log_sum_exp(logits)[..., None]))


def _follower_gap(
    game: PreferenceGame,
    leader: np.ndarray,
    follower: np.ndarray,
    log_ref: np.ndarray,
    beta: float,
) -> np.ndarray:
    """What the follower could gain by its best answers, on average over the leader's actions."""
    gap = np.empty(game.shape[:-1])
    for rows, margin in margin_slices(game):
        refs = _rows_of(log_ref, rows, game)
        if beta == 0.0:
            best = np.where(np.isfinite(refs), margin, np.inf).min(axis=-1)
            lost = (follower[rows] * margin).sum(axis=-1) - best
        else:
            logits = _logits(margin, refs, beta)
            lost = beta * kl(follower[rows], logits - log_sum_exp(logits)[..., None])
        gap[rows] = np.where(leader[rows] > 0.0, leader[rows] * lost, 0.0).sum(axis=-1)
    return np.asarray(np.maximum(gap, 0.0))
