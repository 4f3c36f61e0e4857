"""Sampling from a transformers model."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from equilign.errors import DataError, ModelError
from equilign.rollout.mixture import Part, generate_mixture
from equilign.rollout.types import Completion, Group, Prompt


@dataclass(frozen=True)
class SamplingConfig:
    """How responses are drawn.

    Attributes:
        max_new_tokens: length limit of a response, its end token included.
        temperature: of the softmax; 0 decodes greedily.
        top_p: nucleus mass, 1 for none.
        batch_size: sequences generated together.
        max_prompt_tokens: longer prompts are an error.
    """

    max_new_tokens: int = 256
    temperature: float = 1.0
    top_p: float = 1.0
    batch_size: int = 64
    max_prompt_tokens: int = 1024


def encode_prompt(tokenizer: PreTrainedTokenizerBase, prompt: Prompt) -> tuple[int, ...]:
    """Token ids of a prompt: chat messages through the template, plain text as it is.

    Raises:
        ModelError: chat messages, but the tokenizer has no chat template.
    """
    if isinstance(prompt, str):
        return tuple(tokenizer(prompt)["input_ids"])
    if not tokenizer.chat_template:
        raise ModelError(
            "the prompts are chat messages but the tokenizer has no chat template; "
            "use plain-text prompts, or a chat model"
        )
    text = tokenizer.apply_chat_template(prompt, tokenize=False, add_generation_prompt=True)
    # The template writes its own special tokens: adding them again would double the BOS.
    return tuple(tokenizer(text, add_special_tokens=False)["input_ids"])


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


@contextmanager
def seeded(seed: int, device: torch.device) -> Iterator[None]:
    """A random stream of its own: the surrounding one is as if nothing had been drawn."""
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        torch.manual_seed(seed)
        yield


@contextmanager
def eval_mode(model: nn.Module) -> Iterator[None]:
    """Dropout off, and back to what it was."""
    training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(training)


@dataclass(frozen=True)
class TransformersSampler:
    """Responses from a model in this process.

    Attributes:
        model: its current weights are sampled, also when they change between calls.
        tokenizer: of the model.
        config: how to draw.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    config: SamplingConfig

    def sample(self, prompts: Sequence[Prompt], num_samples: int, seed: int) -> list[Group]:
        """See `equilign.rollout.types.Sampler.sample`.

        Raises:
            DataError: a prompt is longer than ``max_prompt_tokens``.
        """
        return self._in_batches(prompts, num_samples, seed, self._plain)

    def sample_mixture(
        self, parts: Sequence[Part], prompts: Sequence[Prompt], num_samples: int, seed: int
    ) -> list[Group]:
        """See `equilign.rollout.types.MixtureSampler.sample_mixture`.

        Raises:
            DataError: a prompt is longer than ``max_prompt_tokens``.
        """
        return self._in_batches(prompts, num_samples, seed, partial(self._mixed, parts))

    def _in_batches(
        self,
        prompts: Sequence[Prompt],
        num_samples: int,
        seed: int,
        generate: Callable[[Tensor, Tensor, int, frozenset[int], int], Tensor],
    ) -> list[Group]:
        encoded = [encode_prompt(self.tokenizer, p) for p in prompts]
        limit = self.config.max_prompt_tokens
        for i, ids in enumerate(encoded):
            if not 0 < len(ids) <= limit:
                raise DataError(
                    f"prompt {i} has {len(ids)} tokens; between 1 and {limit} are allowed. "
                    "Shorten it, or raise max_prompt_tokens."
                )
        # Alike lengths together: less padding to compute.
        order = sorted(range(len(prompts)), key=lambda i: (len(encoded[i]), i))
        per_batch = max(1, self.config.batch_size // num_samples)
        groups: dict[int, Group] = {}
        with seeded(seed, self.model.device), eval_mode(self.model):
            for start in range(0, len(order), per_batch):
                rows = order[start : start + per_batch]
                answers = self._answers([encoded[i] for i in rows], num_samples, generate)
                for i, mine in zip(rows, answers, strict=True):
                    groups[i] = Group(prompts[i], encoded[i], tuple(mine))
        return [groups[i] for i in range(len(prompts))]

    @torch.no_grad()
    def _answers(
        self,
        prompts: list[tuple[int, ...]],
        num_samples: int,
        generate: Callable[[Tensor, Tensor, int, frozenset[int], int], Tensor],
    ) -> list[list[Completion]]:
        ends = end_tokens(self.model, self.tokenizer)
        pad = pad_token(self.tokenizer)
        width = max(map(len, prompts))
        ids = torch.full((len(prompts), width), pad)
        mask = torch.zeros_like(ids)
        for row, prompt in enumerate(prompts):
            ids[row, width - len(prompt) :] = torch.tensor(prompt)
            mask[row, width - len(prompt) :] = 1
        device = self.model.device
        answers = []
        for row in generate(ids.to(device), mask.to(device), num_samples, ends, pad).tolist():
            kept, finished = cut_at_end(row, ends)
            text = self.tokenizer.decode(list(kept), skip_special_tokens=True)
            answers.append(Completion(kept, str(text), finished))
        return [answers[i : i + num_samples] for i in range(0, len(answers), num_samples)]

    def _plain(
        self, ids: Tensor, mask: Tensor, num_samples: int, ends: frozenset[int], pad: int
    ) -> Tensor:
        out: Tensor = self.model.generate(  # type: ignore[operator]
            input_ids=ids,
            attention_mask=mask,
            generation_config=self._generation_config(num_samples, ends, pad),
        )
        return out[:, ids.shape[1] :]

    def _mixed(
        self,
        parts: Sequence[Part],
        ids: Tensor,
        mask: Tensor,
        num_samples: int,
        ends: frozenset[int],
        pad: int,
    ) -> Tensor:
        return generate_mixture(
            self.model,
            parts,
            ids,
            mask,
            num_samples=num_samples,
            max_new_tokens=self.config.max_new_tokens,
            temperature=self.config.temperature,
            top_p=self.config.top_p,
            ends=ends,
            pad_id=pad,
        )

    def _generation_config(
        self, num_samples: int, ends: frozenset[int], pad: int
    ) -> GenerationConfig:
        greedy = self.config.temperature == 0.0
        # Everything is said here: a model's own generation defaults (top_k, repetition
        # penalty) would make the sampled policy another one than the scored policy.
        return GenerationConfig(  # type: ignore[no-untyped-call]
            max_new_tokens=self.config.max_new_tokens,
            do_sample=not greedy,
            temperature=None if greedy else self.config.temperature,
            top_p=None if greedy else self.config.top_p,
            top_k=None if greedy else 0,
            num_return_sequences=1 if greedy else num_samples,
            eos_token_id=sorted(ends),
            pad_token_id=pad,
        )
