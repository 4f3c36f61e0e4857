"""Prompt files: what is read, what is refused and with which words, and the packaged prompts."""

import json
import re

import pytest

from equilign.errors import ConfigError, DataError
from equilign.rollout import prompt_text
from equilign.tasks.prompts import (
    as_chat,
    check_attribute_list,
    load_prompts,
    restaurant_prompts,
)
from equilign.tasks.restaurants import SLOTS, coverage, parse_attributes

CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "Hello"}]


@pytest.fixture
def write(tmp_path):
    def write(*lines):
        path = tmp_path / "prompts.jsonl"
        path.write_text("\n".join(lines), encoding="utf-8")
        return path

    return write


def test_text_and_chat_prompts_are_read_in_order(write):
    rows = [{"prompt": "first é", "id": 3}, {"prompt": CHAT}, {"prompt": " spaces stay "}]
    path = write(*map(json.dumps, rows), "", "  ")
    assert load_prompts(path) == ["first é", CHAT, " spaces stay "]


@pytest.mark.parametrize("separator", ["\u2028", "\u2029", "\x85", "\x0c"])
def test_unicode_line_separators_do_not_end_a_line(tmp_path, separator):
    """JSON allows all but the last of them unescaped; Python's splitlines would cut there."""
    path = tmp_path / "prompts.jsonl"
    prompt = f"one{separator}line"
    shown = json.dumps({"prompt": prompt}, ensure_ascii=False)
    path.write_bytes(f"{shown}\r\n{shown}\n".encode())
    assert load_prompts(path) == [prompt, prompt]


@pytest.mark.parametrize(
    ("line", "what"),
    [
        (
            "Describe a pub.",
            "not JSON (Expecting value: line 1 column 1 (char 0)); write one JSON "
            'object per line, such as {"prompt": "..."}',
        ),
        ('"Describe a pub."', 'each line must be a JSON object with a "prompt"'),
        ('{"text": "Describe a pub."}', 'each line must be a JSON object with a "prompt"'),
        ('["prompt"]', 'each line must be a JSON object with a "prompt"'),
        ('{"prompt": "  "}', '"prompt" is empty'),
        ('{"prompt": 3}', '"prompt" must be text or a list of chat messages'),
        ('{"prompt": null}', '"prompt" must be text or a list of chat messages'),
        ('{"prompt": []}', '"prompt" must be text or a list of chat messages'),
        ('{"prompt": {"role": "user"}}', '"prompt" must be text or a list of chat messages'),
        ('{"prompt": ["Hello"]}', 'every chat message needs "role" and "content"'),
        ('{"prompt": [{"role": "user"}]}', 'every chat message needs "role" and "content"'),
        (
            '{"prompt": [{"role": "user", "content": null}]}',
            '"role" and "content" of a chat message must be text',
        ),
        (
            '{"prompt": [{"role": 1, "content": "Hello"}]}',
            '"role" and "content" of a chat message must be text',
        ),
    ],
)
def test_a_bad_line_is_named_with_its_file_and_the_cure(write, line, what):
    path = write('{"prompt": "good"}', "", line, '{"prompt": "good"}')
    with pytest.raises(DataError, match=f"^{re.escape(f'{path}, line 3: {what}')}$"):
        load_prompts(path)


def test_the_second_message_is_checked_too(write):
    path = write(json.dumps({"prompt": [CHAT[0], {"role": "user"}]}))
    with pytest.raises(DataError, match="every chat message"):
        load_prompts(path)


def test_an_empty_file_is_refused_with_an_example(write):
    path = write("", " ")
    message = f'{path} has no prompts; write one JSON object per line, such as {{"prompt": "..."}}'
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        load_prompts(path)


@pytest.mark.parametrize("kind", ["missing", "folder", "not text"])
def test_a_file_that_cannot_be_read_is_named(tmp_path, kind):
    path = tmp_path / "prompts.jsonl"
    if kind == "folder":
        path.mkdir()
    elif kind == "not text":
        path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(DataError, match=f"^cannot read the prompts file {re.escape(str(path))}: "):
        load_prompts(path)


def test_a_task_may_refuse_a_prompt(write):
    good, bad = '{"prompt": "name[The Mill], area[riverside]"}', '{"prompt": "Describe a pub."}'
    assert load_prompts(write(good), check_attribute_list) == ["name[The Mill], area[riverside]"]
    chat = json.dumps({"prompt": [{"role": "user", "content": "name[The Mill]"}]})
    assert load_prompts(write(chat), check_attribute_list)
    path = write(good, bad)
    message = f"{path}, line 2: not an attribute list at 'Describe a pub.'"
    with pytest.raises(DataError, match=f"^{re.escape(message)}$"):
        load_prompts(path, check_attribute_list)


def test_as_chat():
    assert as_chat("Hello") == [{"role": "user", "content": "Hello"}]
    assert as_chat(CHAT) is CHAT


def test_packaged_prompts():
    align, evaluate = restaurant_prompts("align"), restaurant_prompts("evaluate")
    assert (len(align), len(evaluate)) == (272, 128)
    texts = [prompt_text(p) for p in align + evaluate]
    assert len(set(texts)) == 400, "what is trained on is not evaluated on, nor anything twice"
    meanings = {frozenset(parse_attributes(t).items()) for t in texts}
    assert len(meanings) == 400, "nor the same list in another order"
    for prompt in align + evaluate:
        assert [m["role"] for m in prompt] == ["user"]
        slots = parse_attributes(prompt_text(prompt))
        assert slots.keys() <= set(SLOTS)
        assert "name" in slots
        assert len(slots) >= 3
        check_attribute_list(prompt)
        # Nothing said, nothing realised: no value of these prompts matches an empty sentence.
        assert set(coverage(slots, "").missing) == set(slots)


def test_unknown_split():
    with pytest.raises(ConfigError, match="no split 'train'; there are 'align' and 'evaluate'"):
        restaurant_prompts("train")
