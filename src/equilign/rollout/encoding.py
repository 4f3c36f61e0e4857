"""Prompts and answers as token ids."""

from collections.abc import Sequence

from transformers import PreTrainedModel, PreTrainedTokenizerBase

from equilign.errors import ModelError
from equilign.rollout.types import Message, Prompt


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> tuple[int, ...]:
    """Token ids of a prompt: chat messages through the template, plain text as it is.

    Raises:
        ModelError: chat messages, but the tokenizer has no chat template.
    """
    if isinstance(prompt, str):
        return tuple(tokenizer(prompt)["input_ids"])
    return _ids(tokenizer, _rendered(tokenizer, prompt, generation_prompt=True))


def encode_completion(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, text: str, ends: frozenset[int]
) -> tuple[int, ...]:
    """Token ids of an answer to ``prompt``, as the model would have had to sample them.

    ``encode_prompt(prompt) + encode_completion(prompt, text)`` is the tokenised conversation up to
    and including the end of the answer. Where a tokenizer would merge the last letters of the
    prompt with the first ones of the answer, the answer is tokenised by itself: the prompt's
    tokens are given when a model answers.

    Args:
        tokenizer: of the model.
        prompt: plain text, or chat messages (the answer then is the assistant's next message).
        text: the answer, without special tokens; an end token in it ends it.
        ends: tokens that end an answer, as of `end_tokens`.

    Returns:
        At least one id; exactly one of them is in ``ends``, the last one.

    Raises:
        ModelError: the chat template renders the conversation in such a way that it does not
            begin with the prompt, or the tokenizer cannot continue a text.
    """
    first = encode_prompt(tokenizer, prompt)
    if isinstance(prompt, str):
        whole, rest = tuple(tokenizer(prompt + text)["input_ids"]), text
    else:
        start = _rendered(tokenizer, prompt, generation_prompt=True)
        answer: Message = {"role": "assistant", "content": text}
        conversation = _rendered(tokenizer, [*prompt, answer], generation_prompt=False)
        if not conversation.startswith(start):
            raise ModelError(_not_a_prefix(start, conversation))
        whole, rest = _ids(tokenizer, conversation), conversation[len(start) :]
    if whole[: len(first)] == first:
        ids = whole[len(first) :]
    else:
        ids = _ids(tokenizer, rest)
        if tokenizer.decode([*first, *ids]) != tokenizer.decode(list(whole)):
            raise ModelError(
                f"the tokenizer cannot continue a text: the prompt followed by {rest[:40]!r} "
                "decodes to something else; begin the answer with a space or a line break, "
                "or use chat messages"
            )
    kept, finished = cut_at_end(ids, ends)
    return kept if finished else (*kept, _preferred_end(tokenizer, ends))


def end_tokens(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Every token that ends a response.

    Raises:
        ModelError: neither the model nor the tokenizer names one.
    """
    config = model.generation_config
    eos = config.eos_token_id if config is not None else None
    ids = {eos} if isinstance(eos, int) else set(eos or ())
    if tokenizer.eos_token_id is not None:
        ids.add(tokenizer.eos_token_id)
    if not ids:
        raise ModelError("the model has no end-of-sequence token; set tokenizer.eos_token")
    return frozenset(ids)


def pad_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """A token to pad with; always masked, so any will do where the tokenizer names none."""
    pad = tokenizer.pad_token_id
    return 0 if pad is None else int(pad)


def cut_at_end(ids: Sequence[int], ends: frozenset[int]) -> tuple[tuple[int, ...], bool]:
    """The response up to and including its first end token, and whether there was one.

    By position, not by equality with the padding token: the two are often the same token.
    """
    for position, token in enumerate(ids):
        if token in ends:
            return tuple(ids[: position + 1]), True
    return tuple(ids), False


def _rendered(
    tokenizer: PreTrainedTokenizerBase, messages: list[Message], *, generation_prompt: bool
) -> str:
    if not tokenizer.chat_template:
        raise ModelError(
            "the prompts are chat messages but the tokenizer has no chat template; "
            "use plain-text prompts, or a chat model"
        )
    return str(
        tokenizer.apply_chat_template(
            messages, tokenize=False, add_generation_prompt=generation_prompt
        )
    )


def _ids(tokenizer: PreTrainedTokenizerBase, text: str) -> tuple[int, ...]:
    # The template writes its own special tokens: adding them again would double the BOS.
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


def _preferred_end(tokenizer: PreTrainedTokenizerBase, ends: frozenset[int]) -> int:
    eos = tokenizer.eos_token_id
    return int(eos) if eos in ends else min(ends)


def _not_a_prefix(start: str, conversation: str) -> str:
    pairs = enumerate(zip(start, conversation, strict=False))
    where = next((i for i, (a, b) in pairs if a != b), min(len(start), len(conversation)))
    return (
        "the chat template does not render a conversation as its prompt followed by the answer: "
        f"after {start[max(0, where - 20) : where]!r} the prompt goes on with "
        f"{start[where : where + 20]!r}, the conversation with "
        f"{conversation[where : where + 20]!r}. Use a template in which earlier messages do not "
        "change when an answer is added"
    )
