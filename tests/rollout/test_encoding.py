"""Answers as token ids: what a model would have had to sample, with exactly one end token."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from equilign.errors import ModelError
from equilign.models import load_tokenizer
from equilign.rollout.encoding import cut_at_end, encode_completion, encode_prompt
from tests.enumerable import A, B, tiny_tokenizer

CORPUS = [
    "user assistant system hello there, good day to you\n\n",
    "what is the best of all?\n",
] * 9
CHAT = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "What is best?\n"}]
ANSWERS = ["Hello there.", "", " good\n\nday ", "\nwhat", "Zwölf ☃ \t"]

QWEN_LIKE = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n"
    "{% endfor %}{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
LLAMA_LIKE = (
    "{{ bos_token }}{% for m in messages %}<|start|>{{ m['role'] }}<|stop|>\n\n"
    "{{ m['content'] | trim }}<|eot|>{% endfor %}"
    "{% if add_generation_prompt %}<|start|>assistant<|stop|>\n\n{% endif %}"
)
MISTRAL_LIKE = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'assistant' %} {{ m['content'] }}"
    "{{ eos_token }}{% else %}[INST] {{ m['content'] }} [/INST]{% endif %}{% endfor %}"
)
ENDLESS = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
ENDLESS += "{% if add_generation_prompt %}assistant: {% endif %}"
THINKING = QWEN_LIKE.replace("assistant\n{% endif", "assistant\n<think>{% endif")


def bpe(template: str, eos: str, specials: tuple[str, ...]) -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.BPE())
    raw.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    raw.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=330,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        special_tokens=list(specials),
        show_progress=False,
    )
    raw.train_from_iterator(CORPUS, trainer)
    made = PreTrainedTokenizerFast(tokenizer_object=raw, eos_token=eos, bos_token=specials[0])
    made.chat_template = template
    return made


def qwen(template: str = QWEN_LIKE) -> PreTrainedTokenizerFast:
    return bpe(template, "<|im_end|>", ("<|endoftext|>", "<|im_start|>", "<|im_end|>"))


def llama() -> PreTrainedTokenizerFast:
    names = ("<|begin|>", "<|end_of_text|>", "<|start|>", "<|stop|>", "<|eot|>")
    return bpe(LLAMA_LIKE, "<|end_of_text|>", names)


def mistral() -> PreTrainedTokenizerFast:
    return bpe(MISTRAL_LIKE, "</s>", ("<s>", "</s>"))


def ids_of(tokenizer, *tokens):
    return frozenset(tokenizer.convert_tokens_to_ids(list(tokens)))


CASES = {
    "shipped": (lambda: load_tokenizer("shipped"), ("<|end|>",), "{}<|end|>"),
    "qwen": (qwen, ("<|im_end|>", "<|endoftext|>"), "{}<|im_end|>"),
    "llama": (llama, ("<|eot|>", "<|end_of_text|>"), "{}<|eot|>"),
    "mistral": (mistral, ("</s>",), " {}</s>"),
    "endless": (lambda: qwen(ENDLESS), ("<|im_end|>", "<|endoftext|>"), "{}\n<|im_end|>"),
}


@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("answer", ANSWERS)
def test_prompt_and_answer_are_the_tokenised_conversation(name, answer):
    """Up to the end of the answer: what a template writes after it is no token of the answer."""
    make, end_names, shape = CASES[name]
    tokenizer = make()
    ends = ids_of(tokenizer, *end_names)
    prompt = encode_prompt(tokenizer, CHAT)
    found = encode_completion(tokenizer, CHAT, answer, ends)
    assert [t in ends for t in found] == [False] * (len(found) - 1) + [True]
    # The trimming templates change the answer; what they render is what counts.
    kept = answer.strip() if name == "llama" else answer
    assert tokenizer.decode(found) == shape.format(kept)
    whole = tokenizer.apply_chat_template(
        [*CHAT, {"role": "assistant", "content": answer}], tokenize=False
    )
    ids = tokenizer(whole, add_special_tokens=False)["input_ids"]
    rest, ended = cut_at_end(ids[len(prompt) :], ends)
    assert ended == (name != "endless")
    if tuple(ids[: len(prompt)]) == prompt:
        assert found == (rest if ended else (*rest, tokenizer.eos_token_id))


def test_letters_that_would_merge_with_the_prompt_are_the_answers_own():
    r"""The prompt ends in "\n", the answer is one more, and "\n\n" is a token of its own."""
    tokenizer = qwen()
    ends = ids_of(tokenizer, "<|im_end|>")
    prompt = encode_prompt(tokenizer, CHAT)
    found = encode_completion(tokenizer, CHAT, "\n", ends)
    whole = tokenizer.apply_chat_template(
        [*CHAT, {"role": "assistant", "content": "\n"}], tokenize=False
    )
    merged = tokenizer(whole, add_special_tokens=False)["input_ids"]
    assert tuple(merged[: len(prompt)]) != prompt, "the case would not occur"
    assert found == (*tokenizer("\n", add_special_tokens=False)["input_ids"], *ends)
    assert tokenizer.decode([*prompt, *found]) + "\n" == whole


def test_an_answer_that_brings_its_end_gets_no_second_one():
    for make, names, _ in CASES.values():
        tokenizer = make()
        ends = ids_of(tokenizer, *names)
        end = min(ends)
        written = "Hello" + tokenizer.decode([end]) + " more"
        for prompt in (CHAT, "What is"):
            found = encode_completion(tokenizer, prompt, written, ends)
            assert found[-1] == end
            assert sum(t in ends for t in found) == 1


@pytest.mark.parametrize("make", [qwen, llama, lambda: load_tokenizer("shipped")])
@given(prompt=st.text(min_size=1, max_size=20), answer=st.text(max_size=20))
def test_plain_text_goes_on_where_the_prompt_stopped(make, prompt, answer):
    tokenizer = make()
    ends = frozenset({tokenizer.eos_token_id})
    first = encode_prompt(tokenizer, prompt)
    found = encode_completion(tokenizer, prompt, answer, ends)
    assert found[-1] in ends
    assert not ends & set(found[:-1])
    whole = tokenizer(prompt + answer)["input_ids"]
    assert tokenizer.decode([*first, *found[:-1]]) == tokenizer.decode(whole)
    if tuple(whole[: len(first)]) == first:
        assert list(found[:-1]) == whole[len(first) :]


def test_plain_text_by_hand():
    tokenizer = tiny_tokenizer()
    assert encode_completion(tokenizer, "a b", " b a", frozenset({0})) == (B, A, 0)
    assert encode_completion(tokenizer, "a b", "", frozenset({0})) == (0,)
    tokenizer.eos_token = None
    assert encode_completion(tokenizer, "a b", " b", frozenset({0, 1})) == (B, 0)


def test_a_template_that_changes_the_prompt_is_an_error():
    tokenizer = qwen(THINKING)
    ends = ids_of(tokenizer, "<|im_end|>")
    with pytest.raises(ModelError, match=r"prompt goes on with '<think>', the conversation .*Hell"):
        encode_completion(tokenizer, CHAT, "Hello", ends)


def test_a_tokenizer_that_cannot_continue_is_an_error():
    """Words are normalised in sight of their neighbours: the parts are not the whole."""
    tokenizer = mistral()
    raw = tokenizer.backend_tokenizer
    raw.normalizer = normalizers.Replace("t x", "yz")
    with pytest.raises(ModelError, match=r"cannot continue a text.*' x'.*chat messages"):
        encode_completion(tokenizer, "hat", " x", frozenset({1}))


def test_messages_need_a_template():
    with pytest.raises(ModelError, match="no chat template"):
        encode_completion(tiny_tokenizer(), CHAT, "a", frozenset({0}))
