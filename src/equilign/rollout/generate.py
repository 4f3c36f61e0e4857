"""Sampling from a transformers model."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import GenerationConfig, PreTrainedModel, PreTrainedTokenizerBase

from equilign.errors import DataError, ModelError
from equilign.rollout.decoding import Decoding, can_decode, decode
from equilign.rollout.encoding import cut_at_end, encode_prompt, end_tokens, pad_token
from equilign.rollout.mixture import ITSELF, Part
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
        return self.sample_mixture(ITSELF, prompts, num_samples, seed)

    def sample_mixture(
        self, parts: Sequence[Part], prompts: Sequence[Prompt], num_samples: int, seed: int
    ) -> list[Group]:
        """See `equilign.rollout.types.MixtureSampler.sample_mixture`.

        Raises:
            DataError: a prompt is longer than ``max_prompt_tokens``.
            ModelError: a mixture of a model without an ordinary key-value cache.
        """
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
                answers = self._answers(parts, [encoded[i] for i in rows], num_samples)
                for i, mine in zip(rows, answers, strict=True):
                    groups[i] = Group(prompts[i], encoded[i], mine)
        return [groups[i] for i in range(len(prompts))]

    def _answers(
        self, parts: Sequence[Part], prompts: list[tuple[int, ...]], num_samples: int
    ) -> list[tuple[Completion, ...]]:
        ends = end_tokens(self.model, self.tokenizer)
        config = self.config
        # All greedy answers are one: it is decoded once.
        distinct = num_samples if config.temperature > 0.0 else 1
        options = Decoding(distinct, config.max_new_tokens, config.temperature, config.top_p, ends)
        pad = pad_token(self.tokenizer)
        ids, mask = pad_left(prompts, pad)
        ids, mask = ids.to(self.model.device), mask.to(self.model.device)
        logps: list[list[float]] | None = None
        if can_decode(self.model):
            rows, found = decode(self.model, parts, ids, mask, options)
            logps = found.tolist() if options.whole and parts is ITSELF else None
        elif parts is ITSELF:
            rows = _generate(self.model, ids, mask, options, pad)
        else:
            raise ModelError(
                f"{type(self.model).__name__} has no ordinary key-value cache: a mixture of "
                "policies, which keeps a cache for each, cannot be sampled from it"
            )
        answers = [
            self._completion(row, ends, logps[i] if logps else [])
            for i, row in enumerate(rows.tolist())
        ]
        repeats = num_samples // distinct
        return [
            tuple(answers[i : i + distinct]) * repeats for i in range(0, len(answers), distinct)
        ]

    def _completion(self, row: list[int], ends: frozenset[int], logps: list[float]) -> Completion:
        kept, finished = cut_at_end(row, ends)
        text = self.tokenizer.decode(list(kept), skip_special_tokens=True)
        return Completion(kept, str(text), finished, tuple(logps[: len(kept)]))


def pad_left(prompts: Sequence[Sequence[int]], pad: int) -> tuple[Tensor, Tensor]:
    """Prompts as one array and the mask of their tokens, both ``(n, t)``."""
    width = max(map(len, prompts))
    ids = torch.full((len(prompts), width), pad)
    mask = torch.zeros_like(ids)
    for row, prompt in enumerate(prompts):
        ids[row, width - len(prompt) :] = torch.tensor(prompt)
        mask[row, width - len(prompt) :] = 1
    return ids, mask


@torch.no_grad()
def _generate(
    model: PreTrainedModel, ids: Tensor, mask: Tensor, options: Decoding, pad: int
) -> Tensor:
    """What `equilign.rollout.decoding.decode` gives, for any model that can generate."""
    greedy = options.temperature == 0.0
    # Everything is said here: a model's own generation defaults (top_k, repetition
    # penalty) would make the sampled policy another one than the scored policy.
    config = GenerationConfig(  # type: ignore[no-untyped-call]
        max_new_tokens=options.max_new_tokens,
        do_sample=not greedy,
        temperature=None if greedy else options.temperature,
        top_p=None if greedy else options.top_p,
        top_k=None if greedy else 0,
        num_return_sequences=options.num_samples,
        eos_token_id=sorted(options.ends),
        pad_token_id=pad,
    )
    out: Tensor = model.generate(  # type: ignore[operator]
        input_ids=ids, attention_mask=mask, generation_config=config
    )
    return out[:, ids.shape[1] :]
