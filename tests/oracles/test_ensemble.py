import numpy as np
import pytest

from equilign.errors import ConfigError, OracleError
from equilign.games import PreferenceGame
from equilign.oracles.base import (
    CallableOracle,
    Oracle,
    ScoredOracle,
    checked_compare,
    score_groups,
)
from equilign.oracles.ensemble import Ensemble
from equilign.oracles.tabular import ScoreOracle, TabularOracle


class Silent:
    """No verdict about answers with an x."""

    abstains = True

    def __init__(self, value):
        self.value = value

    def compare(self, prompts, a, b):
        return np.array(
            [
                np.nan if "x" in left + right else self.value
                for left, right in zip(a, b, strict=True)
            ]
        )


def constant(value):
    return CallableOracle(lambda prompt, a, b: value)


def length(prompts, answers):
    return np.array([float(len(a)) for a in answers])


class TestEnsemble:
    def test_weighted_mean(self):
        both = Ensemble({"one": constant(0.9), "two": constant(0.2)}, {"one": 3.0, "two": 1.0})
        assert both.compare(["p"], ["a"], ["b"])[0] == pytest.approx((3 * 0.9 + 0.2) / 4)
        equal = Ensemble({"one": constant(0.9), "two": constant(0.2)})
        assert equal.compare(["p"], ["a"], ["b"])[0] == pytest.approx(0.55)
        np.testing.assert_allclose(both.votes(["p"], ["a"], ["b"]), [[0.9], [0.2]])

    def test_a_member_without_weight_has_no_say(self):
        some = Ensemble({"one": constant(0.9), "two": constant(0.2)}, {"two": 1.0})
        assert some.compare(["p"], ["a"], ["b"])[0] == pytest.approx(0.2)

    def test_who_abstains_is_left_out(self):
        some = Ensemble({"one": Silent(0.8), "two": constant(0.4)}, {"one": 1.0, "two": 3.0})
        assert some.abstains
        got = some.compare(["p", "p"], ["a", "x"], ["b", "b"])
        np.testing.assert_allclose(got, [(0.8 + 3 * 0.4) / 4, 0.4])

    def test_all_abstain(self):
        some = Ensemble({"one": Silent(0.8), "two": Silent(0.4)})
        got = checked_compare(some, ["p", "p"], ["x", "a"], ["b", "b"])
        assert np.isnan(got[0])
        assert got[1] == pytest.approx(0.6)
        game = score_groups(some, ["p"], [["a", "b", "x"]])[0]
        assert np.isnan(game[0, 2])
        assert game[0, 1] + game[1, 0] == 1.0

    def test_an_abstaining_member_without_weight_does_not_count_as_a_verdict(self):
        some = Ensemble({"one": Silent(0.8), "two": constant(0.4)}, {"one": 1.0})
        assert np.isnan(some.compare(["p"], ["x"], ["b"])[0])

    def test_unanimous_votes_stay_probabilities(self):
        sure = Ensemble(
            {str(i): constant(1.0) for i in range(10)}, {str(i): 0.1 for i in range(10)}
        )
        assert checked_compare(sure, ["p"], ["a"], ["b"])[0] == 1.0

    def test_groups_agree_with_pairs(self):
        both = Ensemble(
            {"one": ScoreOracle(length, 0.3), "two": constant(0.7)}, {"one": 2, "two": 1}
        )
        game = score_groups(both, ["p"], [["a", "bbb", "a", "cc"]])[0]
        expected = 1 / (1 + np.exp(0.3 * 2))
        assert game[0, 1] == pytest.approx((2 * expected + 0.5) / 3)  # the bias of "two" cancels
        assert game[0, 2] == 0.5
        assert (game + game.T == 1.0).all()

    def test_score_is_the_weighted_mean(self):
        both = Ensemble(
            {"one": ScoreOracle(length), "two": ScoreOracle(lambda p, a: np.ones(len(a)))},
            {"one": 1.0, "two": 3.0},
        )
        np.testing.assert_allclose(both.score(["p", "p"], ["a", "bbbbb"]), [1.0, 2.0])
        assert isinstance(both, ScoredOracle)

    def test_score_without_scores(self):
        some = Ensemble({"one": ScoreOracle(length), "judge": constant(0.5)})
        with pytest.raises(OracleError, match=r"\['judge'\].*only compare"):
            some.score(["p"], ["a"])

    @pytest.mark.parametrize("weights", [{"one": -1.0}, {"one": 0.0}, {"one": np.nan}, {"1": 1.0}])
    def test_bad_weights(self, weights):
        with pytest.raises(ConfigError, match="weights"):
            Ensemble({"one": constant(0.5)}, weights)

    def test_nobody(self):
        with pytest.raises(ConfigError, match="at least one"):
            Ensemble({})

    def test_a_bad_verdict_names_the_member(self):
        with pytest.raises(OracleError, match=r"CallableOracle.*1\.5"):
            Ensemble({"one": constant(1.5)}).compare(["p"], ["a"], ["b"])


class TestTabular:
    prefs = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.6], [0.8, 0.4, 0.5]])

    def test_looks_up(self):
        table = TabularOracle(["r", "p", "s"], PreferenceGame(self.prefs))
        assert isinstance(table, Oracle)
        np.testing.assert_allclose(table.compare(["q", "q"], ["r", "s"], ["p", "p"]), [0.9, 0.4])
        np.testing.assert_allclose(
            score_groups(table, ["q"], [["s", "r", "s"]])[0],
            [[0.5, 0.8, 0.5], [0.2, 0.5, 0.2], [0.5, 0.8, 0.5]],
        )

    def test_one_game_per_prompt(self):
        table = TabularOracle(["r", "p", "s"], {"up": self.prefs, "down": self.prefs.T})
        np.testing.assert_allclose(
            table.compare(["up", "down"], ["r", "r"], ["p", "p"]), [0.9, 0.1]
        )
        with pytest.raises(OracleError, match="no game for the prompt 'left'"):
            table.compare(["left"], ["r"], ["p"])

    def test_errors(self):
        with pytest.raises(ConfigError, match="different"):
            TabularOracle(["r", "r", "s"], self.prefs)
        with pytest.raises(ConfigError, match=r"shape \(3, 3\).*2 texts"):
            TabularOracle(["r", "s"], self.prefs)
        with pytest.raises(OracleError, match=r"no answer 'lizard'.*\['r', 'p', 's'\]"):
            TabularOracle(["r", "p", "s"], self.prefs).compare(["q"], ["lizard"], ["r"])


class TestScoreOracle:
    def test_bradley_terry(self):
        oracle = ScoreOracle(length, scale=0.5)
        assert oracle.compare(["p"], ["aaa"], ["b"])[0] == pytest.approx(1 / (1 + np.exp(-1.0)))
        assert isinstance(oracle, ScoredOracle)
        assert oracle.compare([], [], []).shape == (0,)

    def test_each_answer_is_scored_once(self):
        asked = []

        def score(prompts, answers):
            asked.extend(zip(prompts, answers, strict=True))
            return length(prompts, answers)

        ScoreOracle(score).compare(["p", "p", "q"], ["a", "b", "a"], ["b", "a", "b"])
        assert sorted(asked) == [("p", "a"), ("p", "b"), ("q", "a"), ("q", "b")]

    @pytest.mark.parametrize(
        ("function", "message"),
        [
            (lambda p, a: [1.0], r"shape \(1,\) for 2 answers"),
            (lambda p, a: [1.0, float("nan")], "nan for the answer"),
        ],
    )
    def test_bad_scores(self, function, message):
        with pytest.raises(OracleError, match=message):
            ScoreOracle(function).compare(["p"], ["a"], ["b"])

    def test_bad_scale(self):
        with pytest.raises(ConfigError, match="positive"):
            ScoreOracle(length, scale=0.0)
