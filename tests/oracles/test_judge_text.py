import logging

import pytest

from equilign.errors import ModelError
from equilign.oracles.judge_models import RewardModel
from equilign.oracles.judge_text import JudgeConfig, JudgeText, default_format
from tests.oracles.tiny_judges import decoder, tokenizer

CHAT = [
    {"role": "user", "content": "a b"},
    {"role": "assistant", "content": "c"},
    {"role": "user", "content": "d"},
]


def text(kind="reward", tok="chat", max_length=60, **options):
    return JudgeText(tokenizer(tok), JudgeConfig(kind, **options), max_length)


def words(reader, prompt, *answers):
    ids = reader.encode([prompt], [answers])[0]["input_ids"]
    return " ".join(reader.tokenizer.convert_ids_to_tokens(ids))


class TestFormats:
    def test_chosen_by_the_tokenizer(self):
        assert [default_format(tokenizer(k)) for k in ("chat", "pair", "plain")] == [
            "chat",
            "pair",
            "plain",
        ]

    def test_chat_is_the_tokenizers_own_template_and_nothing_twice(self):
        """No second start token, the default system prompt once, one end per turn."""
        assert words(text(), "a b", "good") == (
            "<|im_start|> system be kind <|im_end|> <|im_start|> user a b <|im_end|> "
            "<|im_start|> assistant good <|im_end|>"
        )

    def test_messages_keep_their_roles(self):
        assert words(text(), CHAT, "good") == (
            "<|im_start|> system be kind <|im_end|> <|im_start|> user a b <|im_end|> "
            "<|im_start|> assistant c <|im_end|> <|im_start|> user d <|im_end|> "
            "<|im_start|> assistant good <|im_end|>"
        )

    def test_plain_ends_with_exactly_one_end_token(self):
        assert words(text(tok="plain"), "a b", "good") == "a b good <|im_end|>"
        assert words(text(tok="plain"), "a b", "good <|im_end|>") == "a b good <|im_end|>"

    def test_pair_is_the_tokenizers_two_sequences(self):
        reader = text(tok="pair")
        assert words(reader, "a b", "good") == "[CLS] a b [SEP] good [SEP]"
        types = reader.encode(["a b"], [("good",)])[0]["token_type_ids"]
        assert types == [0, 0, 0, 0, 1, 1]

    def test_token_types_tell_two_answers_apart(self):
        types = text("pairwise", "pair").encode(["a b"], [("good", "bad")])[0]["token_type_ids"]
        assert types == [0, 0, 0, 0, 0, 0, 1, 1]  # [CLS] a b [SEP] good [SEP], bad [SEP]

    def test_two_answers(self):
        assert words(text("pairwise", "pair"), "a", "good", "bad") == (
            "[CLS] a [SEP] good [SEP] bad [SEP]"
        )
        assert words(text("pairwise", "plain"), "a", "good", "bad") == (
            "a Answer hello good Answer hello bad <|im_end|>"  # "1:" is no word of this tokenizer
        )
        assert words(text("pairwise", "chat"), "a", "good", "bad").endswith(
            "user a Answer hello good Answer hello bad <|im_end|> <|im_start|> assistant"
        )

    def test_own_template(self):
        reader = text(tok="plain", template="{answer} kind {prompt}")
        assert words(reader, "a {answer} b", "good") == "good kind a hello b <|im_end|>"

    @pytest.mark.parametrize(
        ("options", "message"),
        [
            ({"template": "{prompt}"}, r"lacks the fields \['answer'\]"),
            ({"template": "{prompt} {answer} {else}"}, "cannot be filled in"),
            ({"prompt_format": "poem"}, "chat, pair, plain; got 'poem'"),
            ({"max_length": 0}, "at least 1 token"),
            ({"scale": float("nan")}, "finite and positive"),
        ],
    )
    def test_bad_options(self, options, message):
        with pytest.raises(ModelError, match=message):
            JudgeConfig("reward", **options)

    def test_unknown_kind(self):
        with pytest.raises(ModelError, match=r"'rewards'.*reward, pairwise, general"):
            JudgeConfig("rewards")

    def test_chat_without_a_template(self):
        with pytest.raises(ModelError, match=r"none; use prompt_format: plain"):
            text(tok="plain", prompt_format="chat")

    def test_scores_differ_by_template(self):
        """The template reaches the model: the same text in another format is another input."""
        own = RewardModel(decoder(), tokenizer("chat")).score(["a"], ["good"])
        plain = RewardModel(
            decoder(), tokenizer("chat"), JudgeConfig("reward", prompt_format="plain")
        ).score(["a"], ["good"])
        assert abs(own - plain) > 1e-3


class TestTruncation:
    def test_the_prompt_loses_its_beginning(self, caplog):
        reader = text(max_length=20)
        prompt = "a " * 30 + "b c"
        with caplog.at_level(logging.WARNING, logger="equilign"):
            got = words(reader, prompt, "good bad")
            words(reader, prompt, "good bad")
        assert len(got.split()) <= 20
        assert got.startswith("<|im_start|> system be kind <|im_end|> <|im_start|> user a")
        assert got.endswith("a b c <|im_end|> <|im_start|> assistant good bad <|im_end|>")
        assert (reader.cut_prompts, reader.cut_answers) == (2, 0)
        assert len(caplog.records) == 1
        assert "20 tokens" in caplog.text

    def test_most_of_the_room_is_used(self):
        for length in range(15, 30):
            got = words(text(max_length=length), "a " * 100, "good")
            assert length - 2 <= len(got.split()) <= length

    def test_old_turns_go_first(self):
        reader = text(max_length=24)
        chat = [{**CHAT[0], "content": "a " * 40}, *CHAT[1:]]
        got = words(reader, chat, "good")
        assert "assistant c <|im_end|> <|im_start|> user d <|im_end|>" in got

    def test_a_long_answer_keeps_its_beginning_and_is_counted(self, caplog):
        reader = text(max_length=20)
        with caplog.at_level(logging.WARNING, logger="equilign"):
            got = words(reader, "a b", "good " + "bad " * 50)
        assert got.endswith("<|im_end|>")
        assert "user <|im_end|> <|im_start|> assistant good bad bad" in got
        assert (reader.cut_prompts, reader.cut_answers) == (1, 1)
        assert "its end is cut off" in caplog.text

    def test_of_two_answers_the_longer_one_is_cut(self):
        got = words(text("pairwise", "pair", max_length=12), "a", "good", "bad " * 40)
        assert got.startswith("[CLS] [SEP] good [SEP] bad bad")

    @pytest.mark.parametrize("tok", ["chat", "pair", "plain"])
    def test_different_answers_stay_different(self, tok):
        """Left truncation of tokens would keep the prompt and lose the answer, or the reverse."""
        reader = text(tok=tok, max_length=18)
        assert words(reader, "a " * 200, "good") != words(reader, "a " * 200, "bad")

    def test_no_room_at_all(self):
        with pytest.raises(ModelError, match=r"max_length = 5 .* no room even for empty texts"):
            words(text(max_length=5), "a", "good")
