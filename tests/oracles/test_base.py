"""Whatever the judge answers, the games it makes are games; what it must not answer is named."""

import re
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equilign.errors import OracleError
from equilign.games import check_prefs
from equilign.oracles import (
    CallableOracle,
    Oracle,
    checked_compare,
    compare_symmetric,
    score_groups,
)

SEEDED = settings(derandomize=True, deadline=None)

TEXT = st.text(alphabet="abc", max_size=3)


def biased(prompt, a, b):
    """Longer is better, and whatever comes first is better still."""
    return min(1.0, max(0.0, 0.6 + 0.1 * (len(a) - len(b))))


class Recording:
    """Answers like ``biased`` and notes every call."""

    def __init__(self):
        self.calls = []

    def compare(self, prompts, a, b):
        self.calls.append(list(zip(prompts, a, b, strict=True)))
        return np.array([biased(*row) for row in self.calls[-1]])

    @property
    def asked(self):
        return [row for call in self.calls for row in call]


class Fixed:
    """Always the same answer."""

    def __init__(self, answer):
        self.answer = answer

    def compare(self, prompts, a, b):
        return self.answer


def test_a_function_is_an_oracle():
    oracle = CallableOracle(lambda prompt, a, b: len(prompt + a) / 10 + 0.01 * len(b))
    assert isinstance(oracle, Oracle)
    got = oracle.compare(["p", "pp"], ["a", ""], ["", "bbb"])
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, [0.2, 0.23])
    with pytest.raises(ValueError, match="zip"):
        oracle.compare(["p"], ["a", "b"], ["c"])


def test_both_orders_are_averaged():
    got = compare_symmetric(Recording(), ["p", "p", "p"], ["aaa", "a", "a"], ["a", "aaa", "b"])
    np.testing.assert_allclose(got, [0.7, 0.3, 0.5], atol=1e-15)


@SEEDED
@given(rows=st.lists(st.tuples(TEXT, TEXT, TEXT), max_size=8))
def test_an_order_biased_judge_becomes_antisymmetric(rows):
    prompts, a, b = ([r[k] for r in rows] for k in range(3))
    oracle = CallableOracle(biased)
    forward = compare_symmetric(oracle, prompts, a, b)
    backward = compare_symmetric(oracle, prompts, b, a)
    np.testing.assert_allclose(forward + backward, 1.0, atol=1e-15)
    for i in range(len(rows)):
        expected = (biased(prompts[i], a[i], b[i]) + 1 - biased(prompts[i], b[i], a[i])) / 2
        assert forward[i] == pytest.approx(expected if a[i] != b[i] else 0.5, abs=1e-15)


def test_equal_answers_tie_and_are_not_asked():
    oracle = Recording()
    got = compare_symmetric(oracle, ["p", "q", "r"], ["x", "yy", "z"], ["x", "y", "z"])
    np.testing.assert_allclose(got, [0.5, 0.6, 0.5])
    assert oracle.calls == [[("q", "yy", "y")], [("q", "y", "yy")]]
    oracle.calls.clear()
    np.testing.assert_array_equal(compare_symmetric(oracle, ["p"], ["x"], ["x"]), [0.5])
    assert oracle.calls == []


# -- groups -------------------------------------------------------------------------------


@SEEDED
@given(groups=st.lists(st.lists(TEXT, min_size=1, max_size=5), max_size=4))
def test_games_by_definition(groups):
    prompts = [f"prompt {i % 2}" for i in range(len(groups))]
    games = score_groups(CallableOracle(biased), prompts, groups)
    assert len(games) == len(groups)
    for prompt, answers, game in zip(prompts, groups, games, strict=True):
        assert game.shape == (len(answers), len(answers))
        for i, a in enumerate(answers):
            for j, b in enumerate(answers):
                both = (biased(prompt, a, b) + 1.0 - biased(prompt, b, a)) / 2
                assert game[i, j] == pytest.approx(0.5 if a == b else both, abs=1e-15)


@SEEDED
@given(
    groups=st.lists(st.lists(TEXT, min_size=1, max_size=5), max_size=3),
    noise=st.integers(0, 1000),
)
def test_games_of_a_moody_judge_are_exactly_antisymmetric(groups, noise):
    rng = np.random.default_rng(noise)
    oracle = CallableOracle(lambda prompt, a, b: rng.uniform())
    for game in score_groups(oracle, ["p"] * len(groups), groups):
        check_prefs(game)
        assert (game + game.T == 1.0).all()
        assert (np.diag(game) == 0.5).all()


def test_every_pair_is_asked_once_per_order_in_one_call_each():
    groups = [["a", "bb", "a", "ccc"], ["bb"], ["dddd", "a"], ["x", "x"], ["", "bb"]]
    prompts = ["p", "q", "r", "s", "p"]
    oracle = Recording()
    score_groups(oracle, prompts, groups)
    expected = Counter(
        (prompt, *pair)
        for prompt, answers in zip(prompts, groups, strict=True)
        for one, two in combinations(sorted(set(answers)), 2)
        for pair in ((one, two), (two, one))
    )
    assert Counter(oracle.asked) == expected
    assert len(oracle.calls) == 2


def test_the_same_pair_under_two_prompts_is_two_questions():
    oracle = CallableOracle(lambda prompt, a, b: float((a < b) == (prompt == "up")))
    up, down = score_groups(oracle, ["up", "down"], [["a", "b"], ["a", "b"]])
    np.testing.assert_array_equal(up, [[0.5, 1.0], [0.0, 0.5]])
    np.testing.assert_array_equal(down, up.T)


def test_nothing_in_nothing_out():
    oracle = Recording()
    assert score_groups(oracle, [], []) == []
    assert compare_symmetric(oracle, [], [], []).shape == (0,)
    assert checked_compare(oracle, [], [], []).shape == (0,)
    (alone,) = score_groups(oracle, ["p"], [["only"]])
    np.testing.assert_array_equal(alone, [[0.5]])
    assert oracle.calls == []


# -- verdicts that are none ---------------------------------------------------------------


@pytest.mark.parametrize("value", [np.nan, np.inf, -0.01, 1.01])
def test_a_verdict_that_is_no_probability_is_named(value):
    message = (
        f"Fixed.compare returned {value} for pair 1 (prompt 'second', a 'c', b 'd'); "
        "a verdict must be Pr(a beats b) in [0, 1]. Turn scores into probabilities first, "
        "for instance 1 / (1 + exp(score_b - score_a))."
    )
    with pytest.raises(OracleError, match=f"^{re.escape(message)}$"):
        checked_compare(Fixed([1.0, value]), ["first", "second"], ["a", "c"], ["b", "d"])


def test_long_texts_are_cut_in_the_message():
    with pytest.raises(OracleError) as caught:
        checked_compare(Fixed([2.0]), ["p" * 1000], ["a" * 1000], ["b" * 1000])
    assert len(str(caught.value)) < 400


@pytest.mark.parametrize(
    ("answer", "shape"),
    [([0.5], "(1,)"), ([0.5] * 3, "(3,)"), ([[0.5], [0.5]], "(2, 1)"), (0.5, "()")],
)
def test_a_wrong_number_of_verdicts_is_named(answer, shape):
    message = (
        f"Fixed.compare returned shape {shape} for 2 pairs; it must return one probability per pair"
    )
    with pytest.raises(OracleError, match=f"^{re.escape(message)}$"):
        checked_compare(Fixed(answer), ["p", "q"], ["a", "b"], ["c", "d"])


@pytest.mark.parametrize("answer", [[np.nan], [1.5], [0.5, 0.5]])
def test_every_way_to_ask_checks_the_answer(answer):
    with pytest.raises(OracleError, match=r"Fixed\.compare returned"):
        compare_symmetric(Fixed(answer), ["p"], ["a"], ["b"])
    with pytest.raises(OracleError, match=r"Fixed\.compare returned"):
        score_groups(Fixed(answer), ["p"], [["a", "b"]])


@pytest.mark.parametrize(("first", "second"), [("a", "b"), ("b", "a")])
def test_a_bad_verdict_in_either_order_is_found(first, second):
    """(0.9 + 1 - 1.4) / 2 would look like a probability."""
    oracle = CallableOracle(lambda prompt, a, b: 1.4 if a == first else 0.9)
    with pytest.raises(OracleError, match=rf"returned 1\.4 .*a '{first}', b '{second}'"):
        compare_symmetric(oracle, ["p"], ["a"], ["b"])


def test_zero_one_and_lists_are_accepted():
    got = checked_compare(Fixed([0, 1]), ["p", "q"], ["a", "b"], ["c", "d"])
    assert got.dtype == np.float64
    np.testing.assert_array_equal(got, [0.0, 1.0])


def test_answers_and_prompts_must_pair_up():
    with pytest.raises(OracleError, match="1 prompts, 2 and 1 answers"):
        compare_symmetric(CallableOracle(lambda x, a, b: 0.5), ["x"], ["a", "b"], ["c"])


class Abstaining:
    """No verdict on pairs that hold a "?"; on one order only of pairs that hold a "!"."""

    abstains = True

    def compare(self, prompts, a, b):
        silent = [("?" in x + y) or x.startswith("!") for x, y in zip(a, b, strict=True)]
        return np.where(silent, np.nan, 0.8)


def test_no_verdict_is_let_through_only_from_those_that_may_abstain():
    got = compare_symmetric(Abstaining(), ["p"] * 4, ["a", "?", "!", "?"], ["b", "b", "b", "?"])
    np.testing.assert_array_equal(got, [0.5, np.nan, np.nan, 0.5])
    with pytest.raises(OracleError, match=r"Fixed.compare returned nan for pair 0"):
        checked_compare(Fixed([np.nan]), ["p"], ["a"], ["b"])


def test_a_masked_pair_is_masked_on_both_sides_of_its_game():
    game = score_groups(Abstaining(), ["p"], [["a", "?", "b", "a"]])[0]
    nan = np.nan
    expected = [[0.5, nan, 0.5, 0.5], [nan, 0.5, nan, nan], [0.5, nan, 0.5, 0.5]]
    np.testing.assert_array_equal(game[:3], expected)
    np.testing.assert_array_equal(np.isnan(game), np.isnan(game).T)


class Together:
    """Judges whole groups; never pairs."""

    def __init__(self, game):
        self.game = game

    def compare(self, prompts, a, b):
        raise AssertionError("pairs were asked")

    def compare_groups(self, prompts, groups):
        self.asked = groups
        return [np.array(self.game)] * len(groups)


def test_a_judge_of_groups_sees_each_text_once():
    oracle = Together([[0.5, 0.9], [0.1, 0.5]])
    game = score_groups(oracle, ["p"], [["b", "a", "b"]])[0]
    assert oracle.asked == [["a", "b"]]
    np.testing.assert_allclose(game, [[0.5, 0.1, 0.5], [0.9, 0.5, 0.9], [0.5, 0.1, 0.5]])


@pytest.mark.parametrize(
    ("game", "message"),
    [
        ([[0.5]], r"returned shape \(1, 1\) for 2 answers"),
        ([[0.5, 1.2], [-0.2, 0.5]], r"outside \[0, 1\]"),
        ([[0.5, 0.9], [0.2, 0.5]], r"P \+ P.T = 1"),
        ([[0.5, np.nan], [np.nan, 0.5]], r"outside \[0, 1\]"),
    ],
)
def test_a_judge_of_groups_is_checked(game, message):
    with pytest.raises(OracleError, match=message):
        score_groups(Together(game), ["p"], [["a", "b"]])
