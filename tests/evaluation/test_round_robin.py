"""Everyone against everyone, length control and picking, against independent arithmetic."""

from itertools import product

import numpy as np
import pytest

from equilign.errors import ConfigError
from equilign.evaluation.round_robin import best_of, first, length_controlled, round_robin
from equilign.evaluation.win_rate import head_to_head
from equilign.oracles import CallableOracle
from equilign.rollout import Completion, Group

START = "start"


def group(prompt, *texts):
    return Group(prompt, (1,), tuple(Completion(tuple(range(len(t))), t, True) for t in texts))


LONGER = CallableOracle(lambda prompt, a, b: 1.0 / (1.0 + np.exp(len(b) - len(a))))


def test_best_of_takes_the_best_and_the_first_of_equals():
    groups = [group("p", "aa", "bbbb", "cc"), group("q", "aa", "bb")]
    kept = best_of(LONGER, groups)
    assert [[c.text for c in g.completions] for g in kept] == [["bbbb"], ["aa"]]
    assert [g.prompt for g in kept] == ["p", "q"]


def test_round_robin_equals_head_to_head_of_each_pair():
    rng = np.random.default_rng(3)
    table = rng.random(64)
    oracle = CallableOracle(lambda p, a, b: float(table[(7 * len(a) + 13 * len(b)) % 64]))
    names = [START, "x", "y"]
    answers = {
        name: [group(p, *("a" * int(k) for k in rng.integers(1, 9, 3 - i))) for p in "pqrs"]
        for i, name in enumerate(names)
    }
    wins, controlled = round_robin(oracle, answers, START)
    assert wins.shape == (4, 3, 3)
    for (i, a), (j, b) in product(enumerate(names), repeat=2):
        _, matrix = head_to_head(oracle, answers[a], answers[b])
        np.testing.assert_allclose(wins[:, i, j], matrix.mean(axis=(1, 2)), atol=1e-12)
    assert set(controlled) == {"x", "y"}
    _, matrix = head_to_head(oracle, answers["y"], answers[START])
    lengths = [
        np.array([[len(c.ids) for c in g.completions] for g in answers[n]]) for n in ("y", START)
    ]
    extra = lengths[0][:, :, None] - lengths[1][:, None, :]
    np.testing.assert_allclose(controlled["y"], length_controlled(matrix, extra))


def test_length_control_takes_out_what_goes_with_length():
    rng = np.random.default_rng(4)
    extra = rng.normal(3.0, 5.0, (50, 2, 4))
    own = rng.normal(0.6, 0.1, (50, 1, 1))
    verdicts = own + 0.3 * np.tanh(extra / extra.std())
    found = length_controlled(verdicts, extra)
    assert found.shape == (50,)
    assert found.mean() == pytest.approx(0.6, abs=0.03)
    assert verdicts.mean() > 0.67
    # Least squares: the mean is the line's height at equal length.
    x = np.tanh(extra / extra.std()).ravel()
    _, height = np.polyfit(x, verdicts.ravel(), 1)
    assert found.mean() == pytest.approx(height)
    same = length_controlled(verdicts, np.zeros_like(extra))
    np.testing.assert_allclose(same, verdicts.mean(axis=(1, 2)))
    constant = length_controlled(verdicts, np.full_like(extra, 2.0))
    np.testing.assert_allclose(constant, verdicts.mean(axis=(1, 2)))


def test_who_cannot_be_compared():
    answers = {"x": [group("p", "a")], "y": [group("q", "a")]}
    with pytest.raises(ConfigError, match="no player 'z' to compare with; there are: x, y"):
        round_robin(LONGER, answers, "z")
    with pytest.raises(ConfigError, match="y and x must answer the same prompts"):
        round_robin(LONGER, answers, "x")


class Silent:
    """No verdict where an answer is "?"."""

    abstains = True

    def compare(self, prompts, a, b):
        pairs = zip(a, b, strict=True)
        return np.array([np.nan if "?" in (x, y) else float(len(x) > len(y)) for x, y in pairs])


def test_pairs_without_a_verdict_count_nowhere():
    answers = {"x": [group("p", "aaa", "?")], "y": [group("p", "aa", "b")]}
    wins, _ = round_robin(Silent(), answers, "y")
    np.testing.assert_allclose(wins[0], [[0.5, 1.0], [0.0, 0.5]])
    (kept,) = best_of(Silent(), [group("p", "a", "?", "bbb")])
    assert kept.completions[0].text == "bbb"
    alone = {"x": [group("p", "?")], "y": [group("p", "a")]}
    assert np.isnan(round_robin(Silent(), alone, "y")[0][0, 0, 1])


def test_first_answers():
    assert [c.text for c in first(group("p", "a", "bb", "ccc"), 2).completions] == ["a", "bb"]
