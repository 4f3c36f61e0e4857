"""Where other methods end: closed forms of best response, RLHF / DPO and offline IPO."""

from dataclasses import replace

import numpy as np
from jaxtyping import Float

from equilign.errors import ConfigError, PolicyError
from equilign.games.bradley_terry import fit_bradley_terry
from equilign.games.certify import (
    answer,
    broadcast_policy,
    check_beta,
    exist,
    gibbs,
    margin_slices,
    split_evenly,
    tie_note,
    tie_tolerance,
)
from equilign.games.preference_game import PreferenceGame
from equilign.games.solution import Solution

_SCORE_TIE = 1e-7  # nats


def best_response(
    game: PreferenceGame,
    *,
    opponent: Float[np.ndarray, "*some n"] | None = None,
    beta: float | None = None,
) -> Solution:
    """The best policy against a fixed opponent.

    With ``beta > 0`` the Gibbs policy ``ref * exp(win rate / beta)``; without, the response with
    the highest win rate, ties played equally often.

    Args:
        game: one game or a batch.
        opponent: its policy, shape ``(n,)`` or ``(X, n)``; the game's reference if not given.
        beta: KL weight of the responding player; the game's if not given.

    Raises:
        PolicyError: ``opponent`` is no policy of the game.
        ConfigError: ``beta`` is negative or not finite.
    """
    weight = check_beta(beta, game)
    rates = game.win_rates(broadcast_policy(game, opponent))
    return _maximise("best-response", game, rates, weight, tie_tolerance(game), "best win rate")


def ipo(
    game: PreferenceGame,
    *,
    tau: float | None = None,
    opponent: Float[np.ndarray, "*some n"] | None = None,
) -> Solution:
    """What offline IPO converges to: ``ref * exp(win rate against opponent / tau)``.

    The answer depends on who drew the data that it is compared with. Online IPO has no fixed
    opponent; its limit is the equilibrium of the game with ``beta = tau``.

    Args:
        game: one game or a batch.
        tau: KL weight, win probability per nat, ``> 0``; the game's ``beta`` if not given.
        opponent: the policy that drew the data; the game's reference if not given.

    Raises:
        PolicyError: ``opponent`` is no policy of the game.
        ConfigError: ``tau`` is not positive.

    References:
        Azar et al. 2023 (arXiv:2310.12036), the solution of the offline objective.
    """
    weight = check_beta(tau, game, "tau")
    if weight == 0.0:
        raise ConfigError(
            "ipo needs tau > 0 (or a game with beta > 0); its limit for tau -> 0 is best-response"
        )
    rates = game.win_rates(broadcast_policy(game, opponent))
    return _maximise("ipo", game, rates, weight, 0.0, "")


def bradley_terry(
    game: PreferenceGame,
    *,
    sampler: Float[np.ndarray, "*some n"] | None = None,
    beta: float | None = None,
) -> Solution:
    """What RLHF on a Bradley-Terry reward model does, fitted to this game's comparisons.

    The model is fitted by maximum likelihood to pairs that ``sampler`` draws. Without a KL
    weight the policy is the response with the highest score (ties equally often), with one it
    is ``ref * exp(score / beta)``: scores in nats, so this ``beta`` is on another scale than the
    game's.

    Args:
        game: one game or a batch.
        sampler: policy that both responses of a pair are drawn from, positive everywhere;
            uniform if not given.
        beta: KL weight, reward nats per nat; the game's ``beta`` if not given.

    Raises:
        PolicyError: ``sampler`` is no policy of the game, or never draws some response.
        ConfigError: ``beta`` is negative or not finite.
    """
    return _reward_model("bradley-terry", game, sampler, check_beta(beta, game))


def dpo(
    game: PreferenceGame,
    *,
    beta: float | None = None,
    sampler: Float[np.ndarray, "*some n"] | None = None,
) -> Solution:
    """What DPO converges to: ``ref * exp(score / beta)`` with Bradley-Terry scores.

    The same policy as `bradley_terry`: DPO fits the reward and the policy in one step.

    Args:
        game: one game or a batch.
        beta: DPO's KL weight, reward nats per nat, ``> 0``; the game's ``beta`` if not given.
        sampler: policy that both responses of a pair are drawn from; uniform if not given.

    Raises:
        PolicyError: ``sampler`` is no policy of the game, or never draws some response.
        ConfigError: ``beta`` is not positive.

    References:
        Rafailov et al. 2023 (arXiv:2305.18290), Eq. 4 and section 4.
    """
    weight = check_beta(beta, game)
    if weight == 0.0:
        raise ConfigError(
            "dpo needs beta > 0 (or a game with beta > 0); its limit for beta -> 0 is bradley-terry"
        )
    return _reward_model("dpo", game, sampler, weight)


def _reward_model(
    concept: str, game: PreferenceGame, sampler: np.ndarray | None, beta: float
) -> Solution:
    drawn = game.uniform() if sampler is None else broadcast_policy(game, sampler)
    missing = (drawn == 0.0) & exist(game)
    if missing.any():
        where = tuple(int(k) for k in np.argwhere(missing)[0])
        raise PolicyError(
            f"sampler[{', '.join(map(str, where))}] = 0; a response that is never drawn has no "
            "score. Give every response some probability, or leave it out of the game"
        )
    scores, separated = np.empty(game.shape), np.empty(game.shape[:-1], dtype=bool)
    for rows, margin in margin_slices(game):
        pairs = drawn[rows][..., :, None] * drawn[rows][..., None, :]
        fit = fit_bradley_terry((0.5 + margin) * pairs)
        scores[rows], separated[rows] = fit.scores, fit.separated
    solution = _maximise(concept, game, scores, beta, _SCORE_TIE, "highest score")
    if not separated.any():
        return solution
    which = f"In {int(separated.sum())} of {len(game)} games some" if game.is_batch else "Some"
    note = (
        f"{which} group of responses never loses to the rest, so the likelihood has no finite "
        "maximum: scores are those of a vanishing ridge, large ones standing for infinite ones."
    )
    return replace(solution, notes=(*solution.notes, note))


def _maximise(
    concept: str,
    game: PreferenceGame,
    payoff: np.ndarray,
    beta: float,
    tolerance: float,
    what: str,
) -> Solution:
    if beta > 0.0:
        policy, unique = gibbs(game, payoff, beta), np.ones(game.shape[:-1], dtype=bool)
        return answer(concept, game, policy, unique)
    policy, unique = split_evenly(payoff, exist(game), tolerance)
    return answer(concept, game, policy, unique, tie_note(unique, what))
