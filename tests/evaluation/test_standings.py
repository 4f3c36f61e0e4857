"""Standings: independent arithmetic, closed forms, coverage by simulation, degenerate cases."""

import numpy as np
import pytest
from scipy import stats

from equilign.errors import OracleError
from equilign.evaluation.intervals import clustered_mean
from equilign.evaluation.standings import (
    at_equal_length,
    majority_cycles,
    order_effect,
    standings,
)
from equilign.games.bradley_terry import fit_bradley_terry


def played(rates, prompts, seed=0, missing=0.0):
    """Verdicts drawn from a matrix of win rates, ``(prompts, n, n)``."""
    rng = np.random.default_rng(seed)
    size = len(rates)
    wins = np.full((prompts, size, size), 0.5)
    for i in range(size):
        for j in range(i + 1, size):
            drawn = (rng.random(prompts) < rates[i][j]).astype(float)
            drawn[rng.random(prompts) < missing] = np.nan
            wins[:, i, j], wins[:, j, i] = drawn, 1.0 - drawn
    return wins


CIRCLE = [[0.5, 0.8, 0.2], [0.2, 0.5, 0.8], [0.8, 0.2, 0.5]]
LADDER = [[0.5, 0.7, 0.9], [0.3, 0.5, 0.7], [0.1, 0.3, 0.5]]


def test_win_rates_are_clustered_means_of_what_was_judged():
    wins = played(LADDER, 40, missing=0.2)
    found = standings(wins, resamples=20)
    for i in range(3):
        for j in range(3):
            if i == j:
                assert found.win_rate[i, j] == found.low[i, j] == found.high[i, j] == 0.5
                continue
            column = wins[:, i, j]
            seen = column[~np.isnan(column)]
            e = clustered_mean(seen)
            got = (found.win_rate[i, j], found.low[i, j], found.high[i, j])
            assert got == pytest.approx((e.value, e.low, e.high), abs=1e-12)
            assert found.prompts[i, j] == seen.size < 40


def test_against_all_is_the_mean_over_each_prompts_opponents():
    wins = played(LADDER, 30, missing=0.5)
    found = standings(wins, resamples=20)
    for i in range(3):
        rates = []
        for game in wins:
            row = [game[i, j] for j in range(3) if j != i and not np.isnan(game[i, j])]
            if row:
                rates.append(sum(row) / len(row))
        assert found.against_all[i].value == pytest.approx(np.mean(rates))
        assert found.against_all[i].count == len(rates)


def test_a_ladder_has_a_winner_in_both_rankings():
    found = standings(played(LADDER, 400))
    assert found.condorcet_winner == 0
    assert found.smith == (0,)
    np.testing.assert_allclose(found.lottery, [1.0, 0.0, 0.0], atol=1e-9)
    np.testing.assert_allclose(found.lottery_support, [1.0, 0.0, 0.0], atol=0.01)
    scores = found.bradley_terry.scores
    assert scores[0] > scores[1] > scores[2]
    assert found.cycles.count == 0


def test_a_circle_has_none_and_the_cycle_is_significant():
    found = standings(played(CIRCLE, 400))
    assert found.condorcet_winner is None
    assert found.smith == (0, 1, 2)
    np.testing.assert_allclose(found.lottery, 1 / 3, atol=0.1)
    assert (found.lottery_support > 0.95).all()
    assert found.cycles.significant == found.cycles.count == 1
    assert found.cycles.best[0].players == (0, 1, 2)


def test_scores_and_their_intervals_as_in_a_plain_loop():
    wins = played(LADDER, 25, seed=3, missing=0.1)
    found = standings(wins, seed=7, resamples=30)
    table = np.nansum(wins, axis=0) * (1 - np.eye(3))
    np.testing.assert_allclose(
        found.bradley_terry.scores, fit_bradley_terry(table).scores, atol=1e-9
    )
    rng, drawn = np.random.default_rng(7), []
    for weights in rng.multinomial(25, np.full(25, 1 / 25), 30):
        again = sum(w * np.nan_to_num(game) for w, game in zip(weights, wins, strict=True))
        drawn.append(fit_bradley_terry(again * (1 - np.eye(3))).scores)
    np.testing.assert_allclose(found.scores_low, np.quantile(drawn, 0.025, axis=0), atol=1e-7)
    np.testing.assert_allclose(found.scores_high, np.quantile(drawn, 0.975, axis=0), atol=1e-7)


def test_majorities_are_sign_tests_over_prompts():
    wins = played([[0.5, 0.65], [0.35, 0.5]], 60)
    wins[:7, 0, 1] = wins[:7, 1, 0] = 0.5
    won, lost = int((wins[:, 0, 1] > 0.5).sum()), int((wins[:, 0, 1] < 0.5).sum())
    assert won + lost == 53
    p = stats.binomtest(won, won + lost, alternative="greater").pvalue
    # Two ordered pairs were looked at.
    assert majority_cycles(wins).majorities[0, 1] == pytest.approx(min(2 * p, 1.0))


def test_how_clear_a_verdict_is_counts_nothing_in_the_sign_test():
    hard = played(CIRCLE, 80)
    soft = np.where(hard > 0.5, 0.6, np.where(hard < 0.5, 0.4, 0.5))
    np.testing.assert_array_equal(
        majority_cycles(hard).majorities, majority_cycles(soft).majorities
    )


def test_a_pair_without_verdicts_is_no_number():
    wins = played(LADDER, 20)
    wins[:, 0, 2] = wins[:, 2, 0] = np.nan
    found = standings(wins, resamples=20)
    assert np.isnan(found.win_rate[0, 2])
    assert np.isnan(found.low[2, 0])
    assert found.prompts[0, 2] == 0
    assert found.lottery.sum() == pytest.approx(1.0)


def test_without_any_verdict_there_is_nothing_to_say():
    wins = np.full((5, 2, 2), np.nan)
    wins[:, [0, 1], [0, 1]] = 0.5
    with pytest.raises(OracleError, match="no pair of answers got a verdict"):
        standings(wins)


@pytest.mark.parametrize("shape", [(4, 3, 2), (4, 1, 1), (3, 3)])
def test_another_shape(shape):
    with pytest.raises(ValueError, match="n >= 2"):
        standings(np.full(shape, 0.5))


def test_one_prompt_proves_nothing():
    found = standings(played(LADDER, 1), resamples=20)
    assert (found.low[0, 1], found.high[0, 1]) == (0.0, 1.0)


# -- length --------------------------------------------------------------------------------


def test_equal_length_is_a_robust_regression():
    rng = np.random.default_rng(1)
    extra = rng.normal(4.0, 10.0, 50)
    wins = np.clip(0.5 + 0.2 * np.tanh(extra / 10.0) + rng.normal(0, 0.1, 50), 0, 1)
    found = at_equal_length(wins, extra)
    x = np.stack([np.ones(50), np.tanh(extra / extra.std())], axis=1)
    beta, *_ = np.linalg.lstsq(x, wins, rcond=None)
    bread = np.linalg.inv(x.T @ x)
    rest = wins - x @ beta
    sandwich = bread @ (x.T * rest**2) @ x @ bread * 50 / 48
    half = stats.t.ppf(0.975, 48) * sandwich[0, 0] ** 0.5
    assert found.value == pytest.approx(beta[0])
    assert (found.low, found.high) == pytest.approx((beta[0] - half, beta[0] + half))


def test_a_judge_that_only_counts_characters_has_nothing_left():
    extra = np.random.default_rng(0).normal(20.0, 15.0, 400)
    wins = (extra > 0).astype(float)
    assert wins.mean() > 0.85
    found = at_equal_length(wins, extra)
    assert found.low < 0.55 < 0.87 < wins.mean()


def test_no_verdict_counts_nothing():
    rng = np.random.default_rng(2)
    wins, extra = rng.random(30), rng.normal(size=30)
    more = at_equal_length(np.append(wins, np.nan), np.append(extra, 99.0))
    assert more == at_equal_length(wins, extra)
    assert at_equal_length(np.array([np.nan]), np.array([1.0])) is None


def test_equal_lengths_leave_the_mean_and_a_constant_difference_leaves_nothing():
    wins = np.array([0.2, 0.9, 0.7])
    assert at_equal_length(wins, np.zeros(3)) == clustered_mean(wins)
    assert at_equal_length(wins, np.full(3, 5.0)) is None


@pytest.mark.parametrize("shift", [0.0, 5.0])
def test_intervals_cover(shift):
    """Of 1,000 intervals at 95 %, between 93 % and 97 % hold the truth."""
    rng = np.random.default_rng(5)
    inside = 0
    for _ in range(1000):
        extra = rng.normal(shift, 10.0, 80)
        x = np.tanh(extra / extra.std())
        noise = rng.normal(0.0, 0.05, 80) * (1.0 + np.abs(x))
        found = at_equal_length(0.55 + 0.1 * x + noise, extra)
        inside += found.low <= 0.55 <= found.high
    assert 930 <= inside <= 970


# -- order ---------------------------------------------------------------------------------


def test_order_effect_by_hand():
    prompt = np.array([0, 0, 1, 1, 2])
    forward = np.array([1.0, 1.0, 0.0, 0.5, np.nan])
    backward = np.array([1.0, 0.0, 0.0, 0.0, 1.0])
    found = order_effect(prompt, forward, backward)
    assert (found.pairs, found.decided, found.swapped) == (4, 3, 2)
    # Prompt 0: means 1 and 1/2; prompt 1: 0 and 1/4.
    assert found.first_wins.value == pytest.approx((0.75 + 0.125) / 2)
    # Prompt 0: one of two swaps; prompt 1: its one decided pair does.
    assert found.share.value == pytest.approx((0.5 + 1.0) / 2)


def test_a_fair_judge_swaps_nothing():
    forward = np.array([0.9, 0.2, 0.5])
    found = order_effect(np.arange(3), forward, 1.0 - forward)
    assert found.swapped == 0
    assert found.first_wins.value == 0.5


def test_nothing_in_both_orders():
    found = order_effect(np.array([0]), np.array([np.nan]), np.array([0.3]))
    assert (found.pairs, found.first_wins, found.share) == (0, None, None)
