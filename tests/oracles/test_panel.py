"""A panel's verdict is the weighted share of attributes that score an answer higher."""

import re

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from equilign.errors import ConfigError, OracleError
from equilign.games import condorcet_winner, cyclic_triples
from equilign.oracles import Attribute, Oracle, Panel, checked_compare, score_groups

SEEDED = settings(derandomize=True, deadline=None)


def table(name, **scores):
    """An attribute that looks its scores up."""
    return Attribute(name, lambda prompts, answers: np.array([scores[a] for a in answers]))


LENGTH = Attribute("length", lambda prompts, answers: np.array([len(a) for a in answers]))
VOWELS = Attribute(
    "vowels", lambda prompts, answers: [sum(c in "aeiou" for c in a) for a in answers]
)
ECHO = Attribute("echo", lambda p, answers: [a.count(x) for x, a in zip(p, answers, strict=True)])


def test_votes_by_hand():
    """Columns: longer; shorter; as long, with a vowel more."""
    panel = Panel([LENGTH, VOWELS, ECHO])
    votes = panel.votes(["x", "x", "y"], ["xxx", "b", "aye"], ["e", "xx", "xyz"])
    np.testing.assert_array_equal(votes, [[1.0, 0.0, 0.5], [0.0, 0.5, 1.0], [1.0, 0.0, 0.5]])


def test_the_verdict_is_the_mean_vote():
    panel = Panel([LENGTH, VOWELS, ECHO])
    assert isinstance(panel, Oracle)
    got = panel.compare(["x", "x", "y"], ["xxx", "b", "aye"], ["e", "xx", "xyz"])
    np.testing.assert_allclose(got, [2 / 3, 1 / 6, 2 / 3], atol=1e-15)


def test_weights_count_by_name_and_need_not_sum_to_one():
    weights = {"echo": 5.0, "length": 2.0}  # not in the order of the attributes; no vowels
    panel = Panel([LENGTH, VOWELS, ECHO], weights)
    got = panel.compare(["x", "x", "y"], ["xxx", "b", "aye"], ["e", "xx", "xyz"])
    np.testing.assert_allclose(got, [1.0, 0.0, 0.5], atol=1e-15)
    panel = Panel([LENGTH, VOWELS, ECHO], {"length": 1.0, "vowels": 3.0, "echo": 0.0})
    got = panel.compare(["x", "x", "y"], ["xxx", "b", "aye"], ["e", "xx", "xyz"])
    np.testing.assert_allclose(got, [0.25, 0.375, 0.875], atol=1e-15)


@SEEDED
@given(
    rows=st.lists(st.tuples(*[st.text(alphabet="aexy", max_size=3)] * 3), max_size=6),
    weights=st.tuples(*[st.floats(0.0, 10.0)] * 3).filter(lambda w: sum(w) > 1e-3),
)
def test_swapping_the_answers_swaps_the_verdict(rows, weights):
    panel = Panel(
        [LENGTH, VOWELS, ECHO], dict(zip(("length", "vowels", "echo"), weights, strict=True))
    )
    prompts, a, b = ([r[k] for r in rows] for k in range(3))
    there, back = panel.compare(prompts, a, b), panel.compare(prompts, b, a)
    np.testing.assert_allclose(there + back, 1.0, atol=1e-12)
    np.testing.assert_allclose(panel.compare(prompts, a, a), 0.5, atol=1e-12)
    assert there.shape == (len(rows),)


@SEEDED
@given(
    weights=st.lists(st.floats(0.01, 1.0), min_size=1, max_size=40),
    level=st.sampled_from([0.0, 1.0]),
)
def test_a_unanimous_vote_is_a_probability(weights, level):
    """Weights that are divided by their sum add up to a little more than 1 now and then."""
    attributes = [table(f"a{i}", up=level, down=1.0 - level) for i in range(len(weights))]
    panel = Panel(attributes, {f"a{i}": w for i, w in enumerate(weights)})
    got = checked_compare(panel, ["p"], ["up"], ["down"])
    assert got[0] == pytest.approx(level, abs=1e-12)


@pytest.mark.parametrize("count", [18, 22, 29])
def test_a_unanimous_vote_of_equals_is_a_probability(count):
    """1 / 18, eighteen times, is 1.0000000000000002."""
    panel = Panel([table(f"a{i}", up=1, down=0) for i in range(count)])
    assert checked_compare(panel, ["p"] * 3, ["up"] * 3, ["down"] * 3).tolist() == [1.0] * 3


def test_only_the_order_of_scores_matters():
    panel = Panel([table("tiny", a=1e-300, b=0.0, c=-1e300)])
    np.testing.assert_array_equal(panel.compare(["p"] * 2, ["a", "b"], ["b", "c"]), [1.0, 1.0])


def test_transitive_attributes_can_make_a_cycle():
    """Condorcet: each voter ranks, the majority runs in a circle."""
    panel = Panel(
        [
            table("one", a=3, b=2, c=1),
            table("two", a=1, b=3, c=2),
            table("three", a=2, b=1, c=3),
        ]
    )
    (game,) = score_groups(panel, ["p"], [["a", "b", "c"]])
    third = 1 / 3
    expected = [[0.5, 2 * third, third], [third, 0.5, 2 * third], [2 * third, third, 0.5]]
    np.testing.assert_allclose(game, expected, atol=1e-15)
    assert cyclic_triples(game) == 1
    assert condorcet_winner(game) is None
    (ruled,) = score_groups(Panel(panel.attributes, {"one": 3, "two": 1}), ["p"], [["a", "b", "c"]])
    assert condorcet_winner(ruled) == 0


def test_each_different_answer_is_scored_once():
    seen = []

    def score(prompts, answers):
        seen.extend(zip(prompts, answers, strict=True))
        return np.arange(len(answers), dtype=float)

    Panel([Attribute("count", score)]).compare(["p", "p", "q"], ["a", "b", "a"], ["b", "a", "b"])
    assert sorted(seen) == [("p", "a"), ("p", "b"), ("q", "a"), ("q", "b")]


def test_scores_by_attribute():
    got = Panel([LENGTH, ECHO]).scores(["a", "b"], ["aa", "abb"])
    np.testing.assert_array_equal(got, [[2.0, 3.0], [2.0, 2.0]])


def test_nothing_in_nothing_out():
    assert Panel([LENGTH]).compare([], [], []).shape == (0,)


# -- what is refused ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ([], "a panel needs attributes with different names; got []"),
        ([LENGTH, ECHO, LENGTH], "got ['length', 'echo', 'length']"),
    ],
)
def test_attributes_need_different_names(attributes, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        Panel(attributes)


def test_weights_of_no_attribute_are_named():
    message = "weights name no attribute: ['brevity']; there are ['length', 'echo']"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        Panel([LENGTH, ECHO], {"length": 1.0, "brevity": 1.0})


@pytest.mark.parametrize(
    "weights",
    [
        {"length": -1.0, "echo": 3.0},
        {"length": 0.0},
        {"length": np.nan},
        {"length": np.inf, "echo": 1.0},
    ],
)
def test_weights_must_be_shares(weights):
    message = f"weights must be >= 0 with a positive sum; got {weights}"
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}$"):
        Panel([LENGTH, ECHO], weights)


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ([1.0], "attribute 'odd' must return one score per answer, shape (2,); got shape (1,)"),
        (
            [[1.0, 2.0]],
            "attribute 'odd' must return one score per answer, shape (2,); got shape (1, 2)",
        ),
        (
            [1.0, np.nan],
            "attribute 'odd' scored nan for answer 'worse'; every score must be finite",
        ),
        (
            [-np.inf, 0.0],
            "attribute 'odd' scored -inf for answer 'better'; every score must be finite",
        ),
    ],
)
def test_scores_that_are_none_are_named(scores, message):
    panel = Panel([LENGTH, Attribute("odd", lambda prompts, answers: scores)])
    with pytest.raises(OracleError, match=f"^{re.escape(message)}$"):
        panel.compare(["p"], ["better"], ["worse"])


def test_a_persons_weights_are_theirs_alone():
    panel = Panel([LENGTH, VOWELS, ECHO], {"vowels": 3.0, "echo": 1.0})
    mine = panel.weighted({"length": 2.0})
    question = (["p"], ["aaaa"], ["bbbbb"])
    assert panel.compare(*question) == pytest.approx(0.875)
    assert mine.compare(*question) == 0.0
    mixed = panel.weighted({"length": 1.0, "vowels": 3.0})
    assert mixed.compare(*question) == pytest.approx(0.75)
    assert panel.weights == {"vowels": 3.0, "echo": 1.0}, "the panel stays as it is"
    with pytest.raises(ConfigError, match="at least one attribute"):
        panel.weighted({})
    with pytest.raises(ConfigError, match="weights name no attribute: \\['odd'\\]"):
        panel.weighted({"odd": 1.0})
