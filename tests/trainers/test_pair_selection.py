"""Which pairs are trained on, by hand and by counting."""

from collections import Counter

import numpy as np
import pytest

from equilign.trainers.pair_selection import PairChoice

NAN = np.nan
# c beats a and b most often; b is worst, although it beats c half of the time.
GAME = np.array(
    [
        [0.5, 0.7, 0.2, 0.6],
        [0.3, 0.5, 0.5, 0.4],
        [0.8, 0.5, 0.5, 0.9],
        [0.4, 0.6, 0.1, 0.5],
    ]
)
TEXTS = ("a", "b", "c", "d")


def choose(selection, labels="soft", game=GAME, texts=TEXTS, law=(), count=1, seed=0):
    generator = np.random.default_rng(seed)
    return PairChoice(selection, labels, count).of(game, texts, law, generator)


def test_best_and_worst_have_the_extreme_mean_win_rates():
    assert GAME.mean(axis=1).tolist() == pytest.approx([0.5, 0.425, 0.675, 0.4])
    found = choose("best_worst")
    assert (found.pairs, found.win_probs, found.pair_weights) == ([[2, 3]], [0.9], [1.0])
    assert choose("best_worst", "hard").win_probs == [1.0]


def test_the_best_of_a_cyclic_game_may_lose_to_the_worst():
    """A soft label goes by the verdict on the two, a hard one by the ranking."""
    game = np.array([[0.5, 1.0, 0.4], [0.0, 0.5, 1.0], [0.6, 0.0, 0.5]])
    texts = ("a", "b", "c")
    assert game.mean(axis=1).argmax() == 0
    assert game.mean(axis=1).argmin() == 2
    soft = choose("best_worst", "soft", game, texts)
    assert (soft.pairs, soft.win_probs) == ([[2, 0]], [0.6])
    hard = choose("best_worst", "hard", game, texts)
    assert (hard.pairs, hard.win_probs) == ([[0, 2]], [1.0])


def test_all_pairs_are_oriented_and_share_the_weight():
    found = choose("all")
    assert found.pairs == [[0, 1], [2, 0], [0, 3], [1, 2], [3, 1], [2, 3]]
    assert found.win_probs == pytest.approx([0.7, 0.8, 0.6, 0.5, 0.6, 0.9])
    assert found.pair_weights == pytest.approx([1 / 6] * 6)
    assert choose("all", "hard").win_probs == [1.0, 1.0, 1.0, 0.5, 1.0, 1.0]


def test_listed_answers_weigh_what_two_draws_give_them():
    law = (0.4, 0.3, 0.2, 0.1)
    found = choose("all", law=law)
    wanted = {frozenset((i, j)): 2 * law[i] * law[j] for i in range(4) for j in range(i)}
    pairs = map(frozenset, found.pairs)
    assert dict(zip(pairs, found.pair_weights, strict=True)) == pytest.approx(wanted)


def test_equal_texts_are_no_pair_but_keep_their_share():
    found = choose("all", texts=("a", "b", "a", "d"))
    assert found.tied == 1
    assert len(found.pairs) == 5
    assert found.pair_weights == pytest.approx([1 / 6] * 5)


def test_a_tie_of_all_is_no_pair():
    found = choose("best_worst", "hard", np.full((4, 4), 0.5))
    assert (found.pairs, found.tied, found.no_verdict) == ([], 1, 0)


def test_no_verdict_is_no_pair():
    game = GAME.copy()
    game[2, 3] = game[3, 2] = NAN
    found = choose("all", game=game)
    assert found.no_verdict == 1
    assert [2, 3] not in found.pairs
    # Without its clear win c's mean falls to .6; d, which lost that one, is no longer the worst.
    ranked = choose("best_worst", game=game)
    assert (ranked.pairs, ranked.no_verdict) == ([[2, 1]], 0)
    game[2] = game[:, 2] = NAN
    game[2, 2] = 0.5
    assert 2 not in choose("best_worst", game=game).pairs[0]
    nothing = np.where(np.eye(4) > 0, 0.5, NAN)
    assert choose("best_worst", game=nothing).pairs == []
    assert choose("all", game=nothing).no_verdict == 6


def test_random_pairs_are_different_and_even():
    seen = Counter()
    for seed in range(600):
        found = choose("random", count=2, seed=seed)
        pairs = [tuple(sorted(p)) for p in found.pairs]
        assert len(set(pairs)) == 2
        assert found.pair_weights == [0.5, 0.5]
        seen.update(pairs)
    assert len(seen) == 6
    assert all(140 < n < 260 for n in seen.values())
    assert len(choose("random", count=50).pairs) == 6


def test_random_pairs_of_listed_answers_follow_their_law():
    law = (0.7, 0.25, 0.05 - 1e-9, 1e-9)
    seen = Counter(tuple(sorted(choose("random", law=law, seed=s).pairs[0])) for s in range(300))
    assert seen[0, 1] > 210
    assert (2, 3) not in seen


def test_sampled_labels_are_fair_draws():
    won = [choose("best_worst", "sampled", seed=s).pairs == [[2, 3]] for s in range(1000)]
    assert 0.87 < np.mean(won) < 0.93
    found = choose("all", "sampled", seed=3)
    assert set(found.win_probs) == {1.0}
