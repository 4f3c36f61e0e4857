"""Best of n and what budgets are worth, against plain loops."""

import numpy as np
import pytest

from equilign.evaluation.best_of_n import DUELS, PLAYERS, best_answer, spend_budgets
from tests.enumerable import random_prefs


def test_the_best_wins_most_on_average_and_need_not_be_the_condorcet_winner():
    game = np.array([[0.5, 0.51, 0.51], [0.49, 0.5, 1.0], [0.49, 0.0, 0.5]])
    assert (game[0, 1:] > 0.5).all(), "the first beats every other"
    assert best_answer(game, "abc") == 1


def test_the_first_of_equals_is_taken():
    cycle = np.array([[0.5, 0.9, 0.1], [0.1, 0.5, 0.9], [0.9, 0.1, 0.5]])
    for order in ([0, 1, 2], [2, 0, 1], [1, 2, 0], [0, 2, 1]):
        assert best_answer(cycle[np.ix_(order, order)], "abc") == 0
    assert best_answer(np.full((1, 1), 0.5), ["a"]) == 0
    assert best_answer(np.full((3, 3), 0.5), ["a", "a", "a"]) == 0


def test_a_text_counts_once():
    # b beats c by far, a beats both by little. With c three times b would lead if copies counted.
    small = np.array([[0.5, 0.7, 0.6], [0.3, 0.5, 0.95], [0.4, 0.05, 0.5]])
    assert best_answer(small, "abc") == 0
    place = [0, 1, 2, 2, 2]
    big = small[np.ix_(place, place)]
    assert big[1].mean() > big[0].mean(), "or the copies would not matter"
    assert best_answer(big, "abccc") == 0
    assert best_answer(big[::-1, ::-1], "cccba") == 4


def test_pairs_without_a_verdict_do_not_count():
    nan = np.nan
    game = np.array([[0.5, nan, 0.6], [nan, 0.5, 0.7], [0.4, 0.3, 0.5]])
    assert best_answer(game, "abc") == 1
    alone = np.array([[0.5, nan, nan], [nan, 0.5, 0.4], [nan, 0.6, 0.5]])
    assert best_answer(alone, "abc") == 2, "no verdict is no win"
    assert best_answer(np.full((2, 2), nan), "ab") is None


def test_budgets_against_a_plain_loop():
    """Three rounds, two opponents: texts 0-3 the chain, 0 4 5 6 independent, 7 8 opponents."""
    game, texts = random_prefs(1, 9), "abcdefghi"
    found = spend_budgets(game, texts, 3, 2)

    def best(places):
        return max(places, key=lambda i: sum(game[i, j] for j in places if j != i))

    def worth(i):
        return (game[i, 7] + game[i, 8]) / 2

    for n in range(1, 5):
        chain, alone = [0, 1, 2, 3][:n], [0, 4, 5, 6][:n]
        wanted = {
            "last": worth(chain[-1]),
            "pick": worth(best(chain)),
            "best_of_n": worth(best(alone)),
            "mean": sum(map(worth, alone)) / n,
            "last_vs_best_of_n": game[chain[-1], best(alone)],
            "pick_vs_best_of_n": game[best(chain), best(alone)],
        }
        assert {k: v[n - 1] for k, v in found.items()} == pytest.approx(wanted)
    assert set(found) == {*PLAYERS, *DUELS}


def test_at_one_answer_all_are_the_same():
    found = spend_budgets(random_prefs(2, 7), "abcdefg", 2, 2)
    assert len({found[name][0] for name in PLAYERS}) == 1
    assert [found[name][0] for name in DUELS] == [0.5, 0.5]


def test_the_pick_does_not_look_at_the_opponents():
    game = random_prefs(3, 7)
    turned = game.copy()
    turned[:, 5:], turned[5:, :] = game[:, :4:-1], game[:4:-1, :]
    turned[5:, 5:] = 0.5
    a, b = spend_budgets(game, "abcdefg", 2, 2), spend_budgets(turned, "abcdefg", 2, 2)
    for name in (*PLAYERS, *DUELS):
        assert a[name] == pytest.approx(b[name]), name


def test_missing_verdicts_stay_missing():
    game = random_prefs(4, 4)
    game[0, 3] = game[3, 0] = np.nan  # the first answer against the only opponent
    game[0, 1] = game[1, 0] = np.nan  # and against the second of its chain
    found = spend_budgets(game, "abcd", 1, 1)
    assert np.isnan([found[name][0] for name in PLAYERS]).all()
    assert np.isnan(found["pick"][1])
    assert found["last"][1] == game[1, 3]
    assert found["mean"][1] == game[2, 3], "the mean of what is known"
    assert game[2, 0] != game[0, 2]
    wanted = game[2, 3] if game[2, 0] > game[0, 2] else np.nan
    assert found["best_of_n"][1] == pytest.approx(wanted, nan_ok=True)


def test_a_wrong_number_of_texts_is_refused():
    with pytest.raises(ValueError, match="6 texts for 2 rounds"):
        spend_budgets(random_prefs(0, 6), "abcdef", 2, 2)
