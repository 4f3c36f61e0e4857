"""A language model so small that every response can be listed: vocabulary {end, a, b}, length 2.

The end token doubles as padding token, the commonest trap of response masks.
"""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from equilign.rollout import Completion, Group, score_completions
from equilign.rollout.generate import cut_at_end

END, A, B = 0, 1, 2
RESPONSES = ((END,), *itertools.product((A, B), (END, A, B)))
BANDIT = ((END,), (A,), (B,))
"""Answers of one token: the policy is a table of three numbers per prompt."""


def tiny_tokenizer() -> PreTrainedTokenizerFast:
    raw = Tokenizer(models.WordLevel({"e": END, "a": A, "b": B}, unk_token="b"))
    raw.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(tokenizer_object=raw, eos_token="e", pad_token="e")


def tiny_model(seed: int = 0, dtype: torch.dtype = torch.float64, spread: float = 1.0):
    """Random two-layer Llama over three tokens; `spread` scales its logits."""
    torch.manual_seed(seed)
    config = LlamaConfig(
        vocab_size=3,
        hidden_size=24,
        intermediate_size=48,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=16,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=END,
        pad_token_id=END,
    )
    model = LlamaForCausalLM(config).to(dtype)
    with torch.no_grad():
        model.lm_head.weight.mul_(spread * 20)
        model.model.embed_tokens.weight.mul_(20)
    return model


def texts_of(responses) -> tuple[str, ...]:
    return tuple(" ".join("eab"[t] for t in ids) for ids in responses)


TEXTS = texts_of(RESPONSES)


def exact_logps(model, prompt_ids: Sequence[int], responses=RESPONSES) -> np.ndarray:
    """Log-probability of every response, nats, in the library's way."""
    return np.array(
        score_completions(model, [tuple(prompt_ids)] * len(responses), responses, pad_id=END)
    )


@dataclass
class EnumeratingSampler:
    """All responses with their exact probabilities: sampling without noise."""

    model: torch.nn.Module
    tokenizer: PreTrainedTokenizerFast
    responses: tuple[tuple[int, ...], ...] = RESPONSES

    def sample(self, prompts, num_samples, seed):
        return self._groups(prompts, lambda ids: exact_logps(self.model, ids, self.responses))

    def sample_mixture(self, parts, prompts, num_samples, seed):
        """The geometric mixture of whole responses, which is what the exact rules mean."""

        def mixed(ids):
            total = 0.0
            for weight, playing in parts:
                with playing():
                    total = total + weight * exact_logps(self.model, ids, self.responses)
            return total

        return self._groups(prompts, mixed)

    def _groups(self, prompts, logps):
        groups = []
        for prompt in prompts:
            ids = tuple(self.tokenizer(prompt)["input_ids"])
            weights = np.exp(logps(ids))
            answers = tuple(
                Completion(r, t, cut_at_end(r, frozenset({END}))[1])
                for r, t in zip(self.responses, texts_of(self.responses), strict=True)
            )
            groups.append(Group(prompt, ids, answers, tuple(weights / weights.sum())))
        return groups


@dataclass
class MatrixOracle:
    """Win probabilities by table, one matrix over `texts` per prompt."""

    games: dict[str, np.ndarray]
    texts: tuple[str, ...] = TEXTS

    def compare(self, prompts, a, b):
        return np.array(
            [
                self.games[x][self.texts.index(left), self.texts.index(right)]
                for x, left, right in zip(prompts, a, b, strict=True)
            ]
        )


def random_prefs(seed: int, size: int = len(RESPONSES)) -> np.ndarray:
    """A generic game: entries uniform, `P + P.T == 1`."""
    draws = np.random.default_rng(seed).uniform(0.05, 0.95, (size, size))
    upper = np.triu(draws, 1)
    return upper + np.tril(1.0 - upper.T, -1) + 0.5 * np.eye(size)
