"""Head to head by hand: two prompts, two answers on each side."""

import numpy as np
import pytest

from equilign.evaluation import clustered_mean
from equilign.evaluation.win_rate import by_attribute, head_to_head
from equilign.oracles import Attribute, CallableOracle, Panel
from equilign.rollout import Completion, Group


def group(prompt, *texts):
    return Group(prompt, (), tuple(Completion((), text, True) for text in texts))


LENGTH = Attribute("length", lambda prompts, answers: [len(a) for a in answers])
ECHO = Attribute("echo", lambda p, answers: [a.count(x) for x, a in zip(p, answers, strict=True)])
LONGER = CallableOracle(lambda prompt, a, b: 0.5 + 0.5 * np.sign(len(a) - len(b)))

MINE = [group("x", "xxxx", "aa"), group("y", "b", "yyy")]
THEIRS = [group("x", "aa", "aaa"), group("y", "yyy", "b")]


def test_every_answer_meets_every_answer():
    """Prompt x: 4 letters beat 2 and 3; 2 tie with the same text and lose to 3. Prompt y: 1 loses
    to 3 and ties, 3 ties and wins."""
    estimate, matrix = head_to_head(LONGER, MINE, THEIRS)
    np.testing.assert_array_equal(matrix, [[[1.0, 1.0], [0.5, 0.0]], [[0.0, 0.5], [0.5, 1.0]]])
    assert estimate.value == pytest.approx((0.625 + 0.5) / 2)
    assert estimate == clustered_mean(np.array([0.625, 0.5]))
    assert estimate.count == 2, "prompts are the units, not the eight comparisons"


def test_ties_of_different_texts_count_one_half():
    estimate, matrix = head_to_head(LONGER, [group("x", "ab")], [group("x", "cd")])
    assert matrix.tolist() == [[[0.5]]]
    assert estimate.value == 0.5


def test_the_other_side_wins_the_rest():
    there, matrix = head_to_head(LONGER, MINE, THEIRS)
    back, transposed = head_to_head(LONGER, THEIRS, MINE)
    np.testing.assert_array_equal(transposed, 1.0 - matrix.transpose(0, 2, 1))
    assert back.value == pytest.approx(1.0 - there.value)
    assert (back.low, back.high) == pytest.approx((1.0 - there.high, 1.0 - there.low))


def test_the_judge_is_asked_in_both_orders():
    first = CallableOracle(lambda prompt, a, b: 1.0)  # whoever comes first wins
    estimate, matrix = head_to_head(first, MINE, THEIRS)
    assert (matrix == 0.5).all()
    assert estimate.value == 0.5


def test_the_two_sides_may_have_different_numbers_of_answers():
    """And the interval is the one over prompts, wide but inside (0, 1)."""
    a = [
        group("x", "1", "333", "55555"),
        group("y", "1", "1", "55555"),
        group("z", "1", "3", "666666"),
    ]
    b = [group(prompt, "22", "4444") for prompt in "xyz"]
    estimate, matrix = head_to_head(LONGER, a, b)
    np.testing.assert_array_equal(matrix[0], [[0.0, 0.0], [1.0, 0.0], [1.0, 1.0]])
    np.testing.assert_array_equal(matrix[1], [[0.0, 0.0], [0.0, 0.0], [1.0, 1.0]])
    assert estimate == clustered_mean(np.array([1 / 2, 1 / 3, 1 / 3]))
    assert 0.0 < estimate.low < estimate.value < estimate.high < 1.0


def test_each_attribute_alone():
    panel = Panel([LENGTH, ECHO], {"length": 1.0})  # a weight of zero does not hide an attribute
    got = by_attribute(panel, MINE, THEIRS)
    assert list(got) == ["length", "echo"]
    assert got["length"] == clustered_mean(np.array([0.625, 0.5]))
    # Prompt x: 4 echoes beat none, twice; then two ties. Prompt y: loss, tie; tie, win.
    assert got["echo"] == clustered_mean(np.array([0.75, 0.5]))
    assert got["length"].value == head_to_head(panel, MINE, THEIRS)[0].value


def test_chat_prompts_reach_the_judge_as_text():
    seen = set()

    def note(prompt, a, b):
        seen.add(prompt)
        return 0.5

    chat = [{"role": "user", "content": "hello"}]
    head_to_head(CallableOracle(note), [group(chat, "a")], [group("hello", "b")])
    assert seen == {"hello"}


@pytest.mark.parametrize("other", [[THEIRS[1], THEIRS[0]], [THEIRS[0], group("z", "a", "b")]])
def test_different_prompts_are_refused(other):
    for compare in (head_to_head, by_attribute):
        with pytest.raises(ValueError, match="same prompts in the same order"):
            compare(Panel([LENGTH]), MINE, other)


def test_a_missing_prompt_is_refused():
    with pytest.raises(ValueError, match="zip"):
        head_to_head(LONGER, MINE, THEIRS[:1])
