"""A reply plays the very answer that it was shown."""

import numpy as np
import pytest

from equilign.evaluation.corrections import correction, correction_matrix, reply
from equilign.evaluation.refine import Refiner
from equilign.oracles import CallableOracle
from equilign.rollout import Completion, Group
from equilign.rollout.follower import FollowerPrompt

LONGER = CallableOracle(lambda prompt, a, b: float(len(a) > len(b)))


def group(prompt, *texts):
    return Group(prompt, (1, 2), tuple(Completion((1,), t, True) for t in texts))


class Echo:
    """Says what it was shown, and a little more."""

    def __init__(self, extra):
        self.extra, self.seen = extra, []

    def sample(self, prompts, num_samples, seed):
        self.seen += prompts
        return [group(p, p.split("|")[1] + self.extra) for p in prompts]


def test_replies_are_to_each_answer_and_play_it():
    sampler = Echo("!")
    refiner = Refiner(sampler, FollowerPrompt("better?", "{prompt}|{answer}|{instruction}"))
    led = [group("p", "a", "bbb"), group("q", "cc", "d")]
    found = reply(refiner, led, 0)
    assert [[c.text for c in g.completions] for g in found] == [["a!", "bbb!"], ["cc!", "d!"]]
    assert [(g.prompt, g.prompt_ids) for g in found] == [("p", (1, 2)), ("q", (1, 2))]
    assert sampler.seen[1] == "p|bbb|better?"
    np.testing.assert_array_equal(correction(LONGER, found, led), [1.0, 1.0])
    # "a!" against "bbb" loses, and "d!" is as long as "cc": only its own answer counts.
    crossed = [Group(g.prompt, g.prompt_ids, g.completions[::-1]) for g in found]
    np.testing.assert_array_equal(correction(LONGER, crossed, led), [0.5, 0.75])


def test_equal_texts_tie_and_both_orders_are_asked():
    led = [group("p", "a", "bb")]
    np.testing.assert_array_equal(correction(LONGER, led, led), [0.5])
    first = CallableOracle(lambda prompt, a, b: 1.0)
    np.testing.assert_array_equal(correction(first, [group("p", "x", "y")], led), [0.5])


class Silent:
    abstains = True

    def compare(self, prompts, a, b):
        return np.array(
            [np.nan if "?" in (x, y) else 1.0 * (x > y) for x, y in zip(a, b, strict=True)]
        )


def test_no_verdict_counts_nowhere():
    led = [group("p", "?", "a"), group("q", "?", "?")]
    mine = [group("p", "b", "b"), group("q", "b", "b")]
    found = correction(Silent(), mine, led)
    assert found[0] == 1.0
    assert np.isnan(found[1])


def test_the_matrix_has_every_follower_and_leader():
    led = {"x": [group("p", "aa")], "y": [group("p", "aaaa")]}
    replies = {"f": {"x": [group("p", "aaa")], "y": [group("p", "aaa")]}}
    found = correction_matrix(LONGER, replies, led)
    assert {k: v.tolist() for k, v in found["f"].items()} == {"x": [1.0], "y": [0.0]}
    with pytest.raises(ValueError, match="zip"):
        correction(LONGER, replies["f"]["x"], [])
