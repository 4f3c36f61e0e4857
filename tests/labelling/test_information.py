"""What a vote is expected to tell, against enumeration of scores and votes."""

from itertools import combinations, product

import numpy as np
import pytest
from scipy.special import expit

from equilign.labelling.information import Votes, most_informative, posterior, vote_information


def grid(size, points=33, width=5.0):
    """All scores of ``size`` answers on a grid, and their prior weights."""
    line = np.linspace(-width, width, points)
    scores = np.array(list(product(line, repeat=size)))
    weights = np.exp(-0.5 * (scores**2).sum(axis=1))
    return scores, weights / weights.sum()


def likelihood(scores, votes):
    p = expit(scores[:, votes.first] - scores[:, votes.second])
    return np.prod(p**votes.wins * (1.0 - p) ** (votes.votes - votes.wins), axis=1)


def told_by(scores, weights, pairs):
    """Mutual information of the votes on ``pairs`` with the scores: every outcome enumerated."""
    p = np.stack([expit(scores[:, i] - scores[:, j]) for i, j in pairs], axis=1)
    marginal, conditional = 0.0, np.zeros(len(scores))
    for outcome in product([0, 1], repeat=len(pairs)):
        chance = np.prod(np.where(outcome, p, 1.0 - p), axis=1)
        total = weights @ chance
        marginal -= total * np.log(total)
        conditional -= chance * np.log(chance)
    return marginal - weights @ conditional


def make(size, record):
    pairs = list(combinations(range(size), 2))
    wins, total = np.zeros(len(pairs)), np.zeros(len(pairs))
    for winner, loser in record:
        k = pairs.index((min(winner, loser), max(winner, loser)))
        wins[k] += winner < loser
        total[k] += 1.0
    first, second = np.array(pairs).T
    return Votes(size, first, second, wins, total), pairs


RECORDS = {
    "nothing known": [],
    "one vote": [(0, 1)],
    "one sure, one open": [(0, 1)] * 6 + [(1, 2)],
    "cyclic": [(0, 1), (1, 2), (2, 0)],
    "divided": [(0, 1), (1, 0)] * 4,
}


@pytest.mark.parametrize("name", RECORDS)
def test_information_of_one_vote_is_the_enumerated_one(name):
    votes, pairs = make(3, RECORDS[name])
    scores, weights = grid(3)
    weights = weights * likelihood(scores, votes)
    weights /= weights.sum()
    exact = [told_by(scores, weights, [pair]) for pair in pairs]
    mode, covariance = posterior(votes)
    i, j = votes.first, votes.second
    variance = covariance[i, i] + covariance[j, j] - 2.0 * covariance[i, j]
    told, fisher = vote_information(mode[i] - mode[j], variance)
    # Without votes the posterior is normal and the two are equal; else Laplace is a bit off.
    np.testing.assert_allclose(told, exact, rtol=1e-5 if not RECORDS[name] else 0.12)
    p = expit(scores[:, i] - scores[:, j])
    np.testing.assert_allclose(fisher, weights @ (p * (1 - p)), rtol=0.1)
    for k in range(3):
        assert most_informative([votes], [[k]], 1)[0][1:] == (k, pytest.approx(told[k]))
    chosen = most_informative([votes], [range(3)], budget=1)
    assert exact[chosen[0][1]] == pytest.approx(max(exact), rel=0.02)


def test_mode_is_where_the_gradient_vanishes():
    votes, _ = make(4, [(0, 1)] * 5 + [(1, 2)] * 3 + [(3, 0)])
    mode, covariance = posterior(votes, sd=2.0)
    p = expit(mode[votes.first] - mode[votes.second])
    residual = votes.wins - votes.votes * p
    gradient = -mode / 4.0
    np.add.at(gradient, votes.first, residual)
    np.add.at(gradient, votes.second, -residual)
    np.testing.assert_allclose(gradient, 0.0, atol=1e-9)
    assert np.linalg.eigvalsh(covariance).min() > 0.0


@pytest.mark.parametrize("budget", [1, 2, 3])
def test_greedy_choice_against_all_sets_of_pairs(budget):
    votes, pairs = make(4, [(0, 1), (0, 1)])
    scores, weights = grid(4, points=15, width=4.0)
    weights = weights * likelihood(scores, votes)
    weights /= weights.sum()
    every = {s: told_by(scores, weights, s) for s in combinations(pairs, budget)}
    chosen = most_informative([votes], [range(len(pairs))], budget)
    mine = every[tuple(sorted(pairs[k] for _, k, _ in chosen))]
    assert mine >= 0.97 * max(every.values())
    assert mine > np.mean(list(every.values()))


def test_questions_spread_over_answers_and_prompts():
    fresh, pairs = make(4, [])
    (first, a, _), (second, b, _) = most_informative([fresh], [range(6)], 2)
    assert first == second == 0
    assert not set(pairs[a]) & set(pairs[b]), "two pairs of four fresh answers share none"
    three, _ = make(3, [])
    chosen = most_informative([three] * 3, [range(3)] * 3, 3)
    assert [game for game, _, _ in chosen] == [0, 1, 2], "any two pairs of three answers share one"
    told = [nats for _, _, nats in most_informative([fresh] * 2, [range(6)] * 2, 12)]
    assert told == sorted(told, reverse=True)
    assert len(told) == 12


def test_only_candidates_and_no_more_than_there_are():
    fresh, _ = make(3, [])
    chosen = most_informative([fresh, fresh], [[2], []], 10)
    assert [(g, k) for g, k, _ in chosen] == [(0, 2)]
    assert most_informative([], [], 3) == []
    assert most_informative([fresh], [range(3)], 0) == []


def test_certain_pairs_tell_little_and_nothing_is_negative():
    told, _ = vote_information(np.array([0.0, 3.0, 30.0, 0.0]), np.array([2.0, 2.0, 2.0, 0.0]))
    assert told[0] > told[1] > told[2] >= 0.0
    assert told[3] == pytest.approx(0.0, abs=1e-12)
