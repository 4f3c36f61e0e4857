"""What a Follower is shown."""

import pytest

from equilign.errors import ConfigError, ModelError
from equilign.rollout.follower import FILE_NAME, INSTRUCTION, FollowerPrompt, replies
from equilign.rollout.types import Completion, Group


def test_chat_prompt_goes_on_with_the_answer_and_the_request():
    prompt = [{"role": "system", "content": "s"}, {"role": "user", "content": "q"}]
    shown = FollowerPrompt().of(prompt, "a")
    assert shown == [
        *prompt,
        {"role": "assistant", "content": "a"},
        {"role": "user", "content": INSTRUCTION},
    ]
    assert len(prompt) == 2, "the prompt itself is left as it was"


def test_plain_prompt_is_filled_in_once():
    form = FollowerPrompt("Better:", "{prompt}|{answer}|{instruction}")
    assert form.of("q {answer}", "{prompt} {x}") == "q {answer}|{prompt} {x}|Better:"


@pytest.mark.parametrize("plain", ["{prompt}", "{answer} {other}", "{answer", "{}{answer}"])
def test_bad_templates_are_refused(plain):
    with pytest.raises(ConfigError, match="follower template"):
        FollowerPrompt(plain=plain)


class Echo:
    def sample(self, prompts, num_samples, seed):
        return [
            Group(p, (1,), tuple(Completion((2,), f"{p}#{i}", True) for i in range(num_samples)))
            for p in prompts
        ]


def test_every_answer_gets_its_own_improvements_in_order():
    form = FollowerPrompt("!", "{prompt}{answer}{instruction}")
    led = Echo().sample(["x", "y"], 2, 0)
    found = replies(Echo(), form, led, 3, 0)
    assert [[g.prompt for g in row] for row in found] == [
        ["xx#0!", "xx#1!"],
        ["yy#0!", "yy#1!"],
    ]
    assert [c.text for c in found[1][0].completions] == ["yy#0!#0", "yy#0!#1", "yy#0!#2"]


def test_the_form_is_kept_beside_the_weights(tmp_path):
    assert FollowerPrompt.load(tmp_path) is None
    form = FollowerPrompt("Bitte besser, größer.", "{answer}{instruction}")
    form.save(tmp_path)
    assert FollowerPrompt.load(tmp_path) == form
    for bad in ("{", '{"instruction": "x", "what": 1}'):
        (tmp_path / FILE_NAME).write_text(bad)
        with pytest.raises(ModelError, match=FILE_NAME):
            FollowerPrompt.load(tmp_path)
