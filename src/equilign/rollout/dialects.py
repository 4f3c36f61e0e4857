"""What servers understand beyond the fields that they share.

A server fills in whatever a request leaves open: from its model's ``generation_config``, or with a
default of its own. Each dialect says those things outright, so that the policy that is sampled is
the policy that is scored.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from transformers import PreTrainedTokenizerBase

from equilign.rollout.encoding import encode_prompt, pad_token
from equilign.rollout.types import Prompt


@dataclass(frozen=True)
class Asked:
    """What a request is about.

    Attributes:
        prompt: chat messages or plain text.
        temperature: of the softmax.
        ends: tokens that end an answer.
        pad: a token to pad with.
    """

    prompt: Prompt
    temperature: float
    ends: frozenset[int]
    pad: int


@dataclass(frozen=True)
class Dialect:
    """One kind of server.

    Attributes:
        extra: fields beyond OpenAI's.
        takes_ids: prompts may be token ids.
        doubles_begin: text prompts get the tokenizer's special tokens, even where a chat
            template has written them already.
        counts_prompt: its ``usage.prompt_tokens`` is the length of the prompt that it read.
    """

    extra: Callable[[Asked], Mapping[str, Any]]
    takes_ids: bool
    doubles_begin: bool
    counts_prompt: bool


def _nothing(asked: Asked) -> Mapping[str, Any]:
    return {}


def _vllm(asked: Asked) -> Mapping[str, Any]:
    return {
        "return_token_ids": True,
        "return_tokens_as_token_ids": True,
        "top_k": -1,
        "min_p": 0.0,
        "repetition_penalty": 1.0,
        "stop_token_ids": sorted(asked.ends),
        "add_special_tokens": isinstance(asked.prompt, str),
    }


def _transformers(asked: Asked) -> Mapping[str, Any]:
    # Without do_sample every temperature decodes greedily; without top_k only 50 tokens are drawn.
    config = {
        "do_sample": asked.temperature > 0.0,
        "top_k": 0,
        "repetition_penalty": 1.0,
        "eos_token_id": sorted(asked.ends),
        "pad_token_id": asked.pad,
    }
    return {"generation_config": json.dumps(config)}


DIALECTS: dict[str, Dialect] = {
    "vllm": Dialect(_vllm, takes_ids=True, doubles_begin=False, counts_prompt=False),
    "openai": Dialect(_nothing, takes_ids=True, doubles_begin=True, counts_prompt=False),
    "transformers": Dialect(_transformers, takes_ids=False, doubles_begin=True, counts_prompt=True),
}


def asked_of(
    tokenizer: PreTrainedTokenizerBase, prompt: Prompt, temperature: float, ends: frozenset[int]
) -> Asked:
    """What a request is about; the padding token is the tokenizer's."""
    return Asked(prompt, temperature, ends, pad_token(tokenizer))


def prompt_as_text(tokenizer: PreTrainedTokenizerBase, prompt: Prompt, dialect: Dialect) -> str:
    """A prompt as a server must get it to read the tokens of `encode_prompt`.

    A chat template writes the begin token, and some tokenizers add it to every text: a server
    that lets them would read it twice. The template's own is then left out.
    """
    if isinstance(prompt, str):
        return prompt
    text = str(tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True))
    begin = tokenizer.bos_token
    if dialect.doubles_begin and isinstance(begin, str) and text.startswith(begin):
        shorter = text.removeprefix(begin)
        if tuple(tokenizer(shorter)["input_ids"]) == encode_prompt(tokenizer, prompt):
            return shorter
    return text
