"""Every answer that a model with few tokens can give, with its probability."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from equilign.errors import ModelError
from equilign.rollout.draws import nucleus
from equilign.rollout.encoding import encode_prompt, end_tokens
from equilign.rollout.generate import SamplingConfig, eval_mode
from equilign.rollout.models import base_model
from equilign.rollout.types import Prompt


@dataclass(frozen=True)
class AnswerLaw:
    """A model's distribution over answers to one prompt.

    Attributes:
        texts: different answers as text; token sequences that read the same are one.
        probabilities: theirs, summing to 1; 0 for what cannot be sampled but can be written.
    """

    texts: tuple[str, ...]
    probabilities: tuple[float, ...]


def count_answers(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, length: int) -> int:
    """How many token sequences of at most ``length`` tokens there are, ended or cut.

    Args:
        model: its vocabulary is that of its output layer.
        tokenizer: names end tokens, too.
        length: limit, end token included.
    """
    ends = len(end_tokens(model, tokenizer))
    inner = _vocabulary(model) - ends
    ended = sum(inner**k for k in range(length)) * ends
    return int(ended + inner**length)


def _vocabulary(model: PreTrainedModel) -> int:
    base = base_model(model)
    layer = None if base is None else base.get_output_embeddings()  # type: ignore[no-untyped-call]
    if layer is None:
        raise ModelError(f"{type(model).__name__} has no output layer that could be looked at")
    return int(layer.weight.shape[0])


@torch.no_grad()
def answer_law(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    prompt: Prompt,
    config: SamplingConfig,
    *,
    batch_size: int = 256,
) -> AnswerLaw:
    """The distribution that `TransformersSampler` draws from, in full.

    Prefixes grow by one token a level, ``(vocabulary - ends)^(length - 1)`` of them at the last
    one: ask `count_answers` first.

    Args:
        model: the policy.
        tokenizer: of the model.
        prompt: what is answered.
        config: length limit, temperature, nucleus.
        batch_size: prefixes scored together.
    """
    start = encode_prompt(tokenizer, prompt)
    ends = end_tokens(model, tokenizer)
    going: dict[tuple[int, ...], float] = {(): 1.0}
    done: dict[tuple[int, ...], float] = {}
    with eval_mode(model):
        for _ in range(config.max_new_tokens):
            prefixes = list(going)
            rows: list[list[float]] = []
            for at in range(0, len(prefixes), batch_size):
                part = prefixes[at : at + batch_size]
                rows += _next_tokens(model, [start + p for p in part], config).tolist()
            longer: dict[tuple[int, ...], float] = {}
            for prefix, law in zip(prefixes, rows, strict=True):
                for token, chance in enumerate(law):
                    place = done if token in ends else longer
                    place[(*prefix, token)] = going[prefix] * chance
            going = longer
    return _by_text(tokenizer, {**done, **going})


def _next_tokens(
    model: PreTrainedModel, rows: Sequence[tuple[int, ...]], config: SamplingConfig
) -> Tensor:
    """Probabilities of the next token; rows have one length, so nothing is padded."""
    ids = torch.tensor(rows, device=model.device)
    logits = model(input_ids=ids, use_cache=False).logits[:, -1].double()
    if config.temperature == 0.0:
        return torch.nn.functional.one_hot(logits.argmax(-1), logits.shape[-1]).double()
    return nucleus(logits / config.temperature, config.top_p).softmax(-1)


def _by_text(
    tokenizer: PreTrainedTokenizerBase, answers: dict[tuple[int, ...], float]
) -> AnswerLaw:
    total: dict[str, float] = {}
    for ids, chance in answers.items():
        text = str(tokenizer.decode(list(ids), skip_special_tokens=True))
        total[text] = total.get(text, 0.0) + chance
    return AnswerLaw(tuple(total), tuple(total.values()))
