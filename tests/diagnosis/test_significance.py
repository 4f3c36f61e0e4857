"""Which cycles are more than noise: by hand, by simulation of nothing and of something."""

import numpy as np
import pytest
from scipy import stats

from equilign.diagnosis.significance import (
    find_cycles,
    holm,
    majority_p_values,
    win_rate_bounds,
)
from equilign.games.bradley_terry import simulate_wins
from equilign.games.measures import cyclic_triples

LEVEL = 0.05


def circle(size, win):
    """Each player beats the next half of an odd circle with probability ``win``."""
    step = (np.arange(size)[None, :] - np.arange(size)[:, None]) % size
    prefs = np.where(step == 0, 0.5, np.where(step <= size // 2, win, 1 - win))
    return prefs


def even_counts(size, number):
    return np.full((size, size), float(number)) - number * np.eye(size)


def test_p_values_are_those_of_the_binomial_test():
    wins = np.array([[0.0, 14.0, 3.0], [6.0, 0.0, 0.0], [3.0, 0.0, 0.0]])
    p = majority_p_values(wins)
    for i, j, won, number in ((0, 1, 14, 20), (1, 0, 6, 20), (0, 2, 3, 6)):
        assert p[i, j] == pytest.approx(
            stats.binomtest(won, number, alternative="greater").pvalue, rel=1e-12
        )
    assert p[1, 2] == p[2, 1] == 1.0  # never compared
    assert (p.diagonal() == 1.0).all()


def test_known_ties_are_left_out_and_unknown_ones_count_against_the_claim():
    wins = np.array([[0.0, 9.5], [2.5, 0.0]])  # 8 wins, 1 loss, 3 ties
    ties = np.array([[0.0, 3.0], [3.0, 0.0]])
    assert majority_p_values(wins, ties)[0, 1] == pytest.approx(
        stats.binomtest(8, 9, alternative="greater").pvalue
    )
    assert majority_p_values(wins)[0, 1] == pytest.approx(
        stats.binomtest(9, 12, alternative="greater").pvalue
    )


def test_holm_by_hand():
    p = np.array([0.01, 0.04, 0.03])
    np.testing.assert_allclose(holm(p, 3), [0.03, 0.06, 0.06])
    np.testing.assert_allclose(holm(p, 10), [0.1, 0.32, 0.27])
    np.testing.assert_allclose(holm(np.array([0.9, 0.5]), 4), [1.0, 1.0])


def test_three_players_by_hand():
    """16 of 20 each way round: two cycles are possible, so the p-value doubles."""
    wins = np.array([[0.0, 16.0, 5.0], [4.0, 0.0, 17.0], [15.0, 3.0, 0.0]])
    found = find_cycles(wins)
    assert (found.count, found.strict) == (1, 1)
    (cycle,) = found.best
    assert cycle.players == (0, 1, 2)
    assert cycle.p_value == pytest.approx(stats.binom.sf(14, 20, 0.5))  # 15 of 20 is the weakest
    assert cycle.adjusted_p == pytest.approx(2 * cycle.p_value)
    assert found.significant == 1
    assert found.method == "Holm over 2 cycles"


def test_many_players_are_adjusted_over_majorities():
    wins = simulate_wins(circle(7, 0.8), even_counts(7, 100), np.random.default_rng(0))
    found = find_cycles(wins, keep=1000)
    assert found.method == "Holm over 42 majorities"
    assert found.count == cyclic_triples(wins / (wins + wins.T + np.eye(7)) + np.eye(7) / 2) == 14
    adjusted = holm(np.where(np.eye(7), 1.0, majority_p_values(wins)), 42)
    for cycle in found.best:
        i, j, k = cycle.players
        assert wins[i, j] > wins[j, i]
        assert wins[j, k] > wins[k, j]
        assert wins[k, i] > wins[i, k]
        edges = (adjusted[i, j], adjusted[j, k], adjusted[k, i])
        assert cycle.adjusted_p == pytest.approx(max(edges))
    assert found.significant == 14
    assert [c.adjusted_p for c in found.best] == sorted(c.adjusted_p for c in found.best)


def test_numbers_of_players_do_not_matter_and_keep_only_shortens_the_list():
    rng = np.random.default_rng(1)
    wins = simulate_wins(np.full((9, 9), 0.5), even_counts(9, 11), rng)
    order = rng.permutation(9)
    first, second = find_cycles(wins), find_cycles(wins[np.ix_(order, order)], keep=3)
    assert (first.count, first.strict, first.significant) == (
        second.count,
        second.strict,
        second.significant,
    )
    assert second.best[0].adjusted_p == first.best[0].adjusted_p
    assert len(second.best) == 3


def false_alarms(truth, number, runs, seed):
    """Data sets with a significant cycle, of any length."""
    rng = np.random.default_rng(seed)
    size = len(truth)
    wins = simulate_wins(truth, even_counts(size, number), rng, samples=runs)
    found = [find_cycles(w) for w in wins]
    assert any(f.count for f in found)  # cycles of noise there are
    return sum(f.significant > 0 or f.longer for f in found)


def most_alarms(runs):
    """What a rate of five percent exceeds once in a thousand times."""
    return int(stats.binom.ppf(0.999, runs, LEVEL))


@pytest.mark.parametrize(("size", "number"), [(3, 9), (4, 40), (8, 25)])
def test_fair_coins_are_not_called_cycles(size, number):
    assert false_alarms(np.full((size, size), 0.5), number, 400, 0) <= most_alarms(400)


@pytest.mark.parametrize(("size", "spread"), [(3, 0.1), (6, 0.3), (12, 1.0)])
def test_random_ratings_are_not_called_cycles(size, spread):
    rng = np.random.default_rng(size)
    alarms = 0
    for run in range(40):
        scores = rng.normal(size=size) * spread
        truth = 1.0 / (1.0 + np.exp(scores[None, :] - scores[:, None]))
        alarms += false_alarms_or_none(truth, 30, 10, run)
    assert alarms <= most_alarms(400)


def false_alarms_or_none(truth, number, runs, seed):
    wins = simulate_wins(
        truth, even_counts(len(truth), number), np.random.default_rng(seed), samples=runs
    )
    return sum(find_cycles(w).significant > 0 or find_cycles(w).longer for w in wins)


@pytest.mark.parametrize("size", [3, 5, 6])
def test_the_worst_case_keeps_the_level(size):
    """All but one majority sure, the last one a coin that would close cycles."""
    rank = np.arange(size)
    truth = np.where(rank[:, None] == rank[None, :], 0.5, rank[:, None] < rank[None, :])
    truth = truth.astype(float)
    truth[0, -1] = truth[-1, 0] = 0.5
    assert false_alarms(truth, 60, 1000, 3) <= most_alarms(1000)


def test_true_cycles_are_found():
    for size, win, number in ((3, 0.75, 100), (5, 0.7, 150), (7, 0.75, 150)):
        rng = np.random.default_rng(7)
        wins = simulate_wins(circle(size, win), even_counts(size, number), rng, samples=100)
        assert sum(find_cycles(w).significant > 0 for w in wins) >= 95


def test_bounds_are_clopper_and_pearsons():
    wins = np.array([[0.0, 7.0, 0.0], [3.0, 0.0, 4.5], [5.0, 1.5, 0.0]])
    low, high = win_rate_bounds(wins, wins + wins.T, 0.05)
    exact = stats.binomtest(7, 10).proportion_ci(0.95, "exact")
    assert (low[0, 1], high[0, 1]) == pytest.approx((exact.low, exact.high))
    assert (low[0, 2], high[2, 0]) == (0.0, 1.0)
    np.testing.assert_allclose(low + high.T, 1.0)  # halves go outwards on both sides
    wider = stats.binomtest(4, 6).proportion_ci(0.95, "exact").low
    assert low[1, 2] == pytest.approx(wider)
