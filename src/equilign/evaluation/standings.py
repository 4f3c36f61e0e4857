"""Where everybody stands after everybody has played everybody on the same prompts.

The unit is the prompt: whatever is said of one prompt is one number per pair of players, and
intervals, resamples and tests are over prompts.
"""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from equilign.diagnosis.significance import CycleTest, find_cycles
from equilign.errors import OracleError
from equilign.evaluation.intervals import Estimate, clustered_mean
from equilign.games import PreferenceGame, condorcet_winner
from equilign.games.bradley_terry import BradleyTerry, fit_bradley_terry
from equilign.games.nash import nash
from equilign.games.voting import smith_set

RESAMPLES = 400
"""Sets of prompts drawn with replacement, for the rankings."""

TIE = 1e-9
"""A win probability this near to 1/2 is a tie: votes of weighted attributes round."""

_PLAYED = 1e-6
_CELLS = 4_000_000


@dataclass(frozen=True, eq=False)
class Standings:
    """A round robin in numbers; n players, matrices ``(n, n)`` with the row against the column.

    Attributes:
        win_rate: mean over prompts, ties one half, 1/2 on the diagonal; nan where no prompt of
            the pair has a verdict.
        low: lower end of the 95 % interval, clustered by prompt.
        high: upper end.
        prompts: prompts with a verdict.
        against_all: mean over a prompt's opponents; one estimate per player, None without any.
        lottery: maximal lottery of the win rates, a pair without verdicts as a tie.
        lottery_unique: whether it is the only one.
        lottery_support: share of the resamples in which a maximal lottery plays the player.
        bradley_terry: fitted to the win rates, weighted by prompts.
        scores_low: lower end of each score's 95 % bootstrap interval, nats, shape ``(n,)``.
        scores_high: upper end.
        condorcet_winner: who beats everybody, or None.
        smith: the smallest set whose members beat everybody outside.
        cycles: majority cycles, with majorities of prompts tested by the sign test.
        resamples: bootstrap samples drawn.
    """

    win_rate: np.ndarray
    low: np.ndarray
    high: np.ndarray
    prompts: np.ndarray
    against_all: tuple[Estimate | None, ...]
    lottery: np.ndarray
    lottery_unique: bool
    lottery_support: np.ndarray
    bradley_terry: BradleyTerry
    scores_low: np.ndarray
    scores_high: np.ndarray
    condorcet_winner: int | None
    smith: tuple[int, ...]
    cycles: CycleTest
    resamples: int


def standings(wins: np.ndarray, *, seed: int = 0, resamples: int = RESAMPLES) -> Standings:
    """Everything about a round robin that is a number per player or per pair.

    Args:
        wins: ``wins[p, i, j]`` is Pr(i beats j) on prompt p, ``(prompts, n, n)``; nan where there
            is no verdict.
        seed: of the resampling of prompts.
        resamples: how often prompts are drawn anew.

    Raises:
        OracleError: there is no verdict at all.
        ValueError: another shape, or fewer than two players.
    """
    wins = np.asarray(wins, dtype=np.float64)
    if wins.ndim != 3 or wins.shape[1] != wins.shape[2] or wins.shape[1] < 2:
        raise ValueError(f"wins has shape {wins.shape}; it must be (prompts, n, n) with n >= 2")
    size = wins.shape[1]
    seen = ~np.isnan(wins)
    if not seen[:, ~np.eye(size, dtype=bool)].any():
        raise OracleError("no pair of answers got a verdict, so there are no win rates")
    rate, low, high, count = _rates(wins, seen)
    sums = np.where(seen, wins, 0.0)
    game = PreferenceGame(np.where(np.isnan(rate), 0.5, rate))
    lottery = nash(game)
    fit = fit_bradley_terry(_without_diagonal(sums.sum(axis=0)))
    scores, support = _resampled(sums, seen, np.random.default_rng(seed), resamples)
    return Standings(
        win_rate=rate,
        low=low,
        high=high,
        prompts=count,
        against_all=tuple(_against_all(wins[:, i], seen[:, i], i) for i in range(size)),
        lottery=np.asarray(lottery.policy),
        lottery_unique=bool(lottery.unique),
        lottery_support=support,
        bradley_terry=fit,
        scores_low=np.quantile(scores, 0.025, axis=0),
        scores_high=np.quantile(scores, 0.975, axis=0),
        condorcet_winner=condorcet_winner(game.prefs),
        smith=smith_set(game.prefs),
        cycles=majority_cycles(wins),
        resamples=resamples,
    )


def _rates(wins: np.ndarray, seen: np.ndarray) -> tuple[np.ndarray, ...]:
    size = wins.shape[1]
    rate, low, high = (np.full((size, size), np.nan) for _ in range(3))
    np.fill_diagonal(rate, 0.5)
    np.fill_diagonal(low, 0.5)
    np.fill_diagonal(high, 0.5)
    for i in range(size):
        for j in range(i + 1, size):
            values = wins[seen[:, i, j], i, j]
            if values.size:
                found = clustered_mean(values)
                rate[i, j], low[i, j], high[i, j] = found.value, found.low, found.high
                rate[j, i], low[j, i], high[j, i] = 1 - found.value, 1 - found.high, 1 - found.low
    return rate, low, high, seen.sum(axis=0)


def _against_all(row: np.ndarray, seen: np.ndarray, player: int) -> Estimate | None:
    """Mean over the opponents that there is a verdict against, prompt by prompt."""
    others = seen.copy()
    others[:, player] = False
    number = others.sum(axis=1)
    some = number > 0
    if not some.any():
        return None
    return clustered_mean(np.where(others, row, 0.0).sum(axis=1)[some] / number[some])


def _without_diagonal(table: np.ndarray) -> np.ndarray:
    return np.asarray(table * (1.0 - np.eye(table.shape[-1])))


def _resampled(
    sums: np.ndarray, seen: np.ndarray, rng: np.random.Generator, resamples: int
) -> tuple[np.ndarray, np.ndarray]:
    """Bradley-Terry scores of each resample ``(resamples, n)``, and how often each is played."""
    prompts, size = len(sums), sums.shape[1]
    totals, counts = (np.empty((resamples, size * size)) for _ in range(2))
    flat, there = sums.reshape(prompts, -1), seen.reshape(prompts, -1).astype(np.float64)
    step = max(1, _CELLS // prompts)
    for start in range(0, resamples, step):
        part = slice(start, min(start + step, resamples))
        weights = rng.multinomial(prompts, np.full(prompts, 1.0 / prompts), part.stop - start)
        totals[part], counts[part] = weights @ flat, weights @ there
    wins = totals.reshape(-1, size, size)
    rates = np.where(counts > 0.0, totals / np.maximum(counts, 1.0), 0.5).reshape(-1, size, size)
    rates = (rates + 1.0 - rates.swapaxes(1, 2)) / 2.0
    rates[:, range(size), range(size)] = 0.5
    played = np.asarray(nash(PreferenceGame(rates)).policy) > _PLAYED
    scores = np.asarray(fit_bradley_terry(_without_diagonal(wins)).scores)
    return scores, played.mean(axis=0)


def majority_cycles(wins: np.ndarray) -> CycleTest:
    """Cycles of "is preferred on more prompts", tested with prompts as the units.

    On each prompt a pair is won, lost or tied, so that the sign test over prompts is exact
    whatever the judge's probabilities look like; see `equilign.diagnosis.significance`.

    Args:
        wins: see `standings`.
    """
    with np.errstate(invalid="ignore"):
        won = (wins > 0.5 + TIE).sum(axis=0).astype(np.float64)
        ties = (np.abs(wins - 0.5) <= TIE).sum(axis=0).astype(np.float64)
    ties = _without_diagonal(ties)
    return find_cycles(_without_diagonal(won) + ties / 2.0, ties)


# -- length and order ----------------------------------------------------------------------


def at_equal_length(wins: np.ndarray, extra: np.ndarray) -> Estimate | None:
    """Win rate with the part that goes with length taken out.

    A line in ``tanh(extra / sd(extra))`` is fitted to the prompts' win rates by least squares; its
    height at equal length is the win rate. The form is that of length-controlled AlpacaEval
    (Dubois et al. 2024, arXiv:2404.04475) with a line in place of a logistic curve. The interval
    includes what is not known of the slope (robust to unequal variances), so it is wide where one
    player is nearly always longer.

    Args:
        wins: one win rate per prompt, ``(prompts,)``; nan for no verdict.
        extra: how much longer the first player's answer is, in any unit.

    Returns:
        The estimate, cut to [0, 1]; None without a verdict.
    """
    seen = ~np.isnan(wins)
    values, longer = wins[seen], np.asarray(extra, dtype=np.float64)[seen]
    if not values.size:
        return None
    spread = float(longer.std())
    if spread == 0.0:
        # Always equally long: nothing to take out. Always longer by the same: nothing to learn.
        return clustered_mean(values) if longer[0] == 0.0 else None
    x = np.tanh(longer / spread)
    centred = x - x.mean()
    variance = float((centred**2).mean())
    slope = float((centred * values).mean()) / variance
    height = float(values.mean()) - slope * float(x.mean())
    rest = values - height - slope * x
    # What each prompt contributes to the height: its own residual, and its pull on the slope.
    parts = rest * (1.0 - x.mean() * centred / variance)
    number = values.size
    if number < 3:
        return Estimate(float(np.clip(height, 0.0, 1.0)), 0.0, 1.0, number)
    error = (float((parts**2).sum()) / (number * (number - 2))) ** 0.5
    half = float(stats.t.ppf(0.975, number - 2)) * error
    low, value, high = np.clip([height - half, height, height + half], 0.0, 1.0).tolist()
    return Estimate(value, low, high, number)


@dataclass(frozen=True)
class OrderEffect:
    """What the order in which two answers are shown does to a judge.

    Attributes:
        pairs: pairs of answers with a verdict in both orders.
        first_wins: Pr(the answer shown first wins), with its interval clustered by prompt; 1/2
            without a bias. None without a pair.
        decided: pairs that are no tie in either order.
        swapped: those of them in which the winner changes with the order.
        share: mean over prompts of the share of decided pairs that swap; None without one.
    """

    pairs: int
    first_wins: Estimate | None
    decided: int
    swapped: int
    share: Estimate | None


def order_effect(prompt: np.ndarray, forward: np.ndarray, backward: np.ndarray) -> OrderEffect:
    """Compare the verdicts of both orders.

    Args:
        prompt: number of each pair's prompt, shape ``(pairs,)``.
        forward: Pr(first shown wins) with a shown first; nan for no verdict.
        backward: the same with b shown first.
    """
    both = ~(np.isnan(forward) | np.isnan(backward))
    where, ahead, behind = prompt[both], forward[both], backward[both]
    decided = (np.abs(ahead - 0.5) > TIE) & (np.abs(behind - 0.5) > TIE)
    swapped = decided & ((ahead > 0.5) == (behind > 0.5))
    first = _by_prompt(where, (ahead + behind) / 2.0)
    share = _by_prompt(where[decided], swapped[decided].astype(np.float64))
    return OrderEffect(int(both.sum()), first, int(decided.sum()), int(swapped.sum()), share)


def _by_prompt(where: np.ndarray, values: np.ndarray) -> Estimate | None:
    if not values.size:
        return None
    _, place = np.unique(where, return_inverse=True)
    return clustered_mean(np.bincount(place, values) / np.bincount(place))
