"""PairRM as an oracle: ``oracle: {kind: python, function: pairrm.py:PairRM}``.

PairRM (Jiang et al. 2023, arXiv:2306.02561; 0.4 billion weights, DeBERTa-v3-large) reads an
instruction and two answers at once, each behind a token of its own. A small network turns the last
hidden states at the instruction's and at an answer's token into that answer's score; the logit
``s_ab`` is the difference of both scores. It depends on the order, so both orders are asked:
``P = sigmoid((s_ab - s_ba) / 2)``. The released SPPO scripts leave out the half and turn the matrix
into one score per answer first, which makes it transitive; this oracle does neither.

Not run here with the real weights: they are on a hub. Its arithmetic is tested with a small random
model.
"""

import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, DebertaV2Config, DebertaV2Model
from transformers.models.deberta_v2.modeling_deberta_v2 import DebertaV2PreTrainedModel

NAME = "llm-blender/PairRM-hf"
PREFIXES = ("<|source|>", "<|candidate1|>", "<|candidate2|>")
LONGEST, LONGEST_SOURCE = 2048, 1224
"""Tokens in all, and of the instruction; the two answers share what is left."""


class PairRanker(DebertaV2PreTrainedModel):
    """The network; its attributes have the names of the published weights."""

    def __init__(self, config: DebertaV2Config) -> None:
        super().__init__(config)
        size, dropout = config.hidden_size, getattr(config, "drop_out", 0.0)
        self.pretrained_model = DebertaV2Model(config)
        self.head_layer = nn.Sequential(
            nn.Dropout(dropout),
            nn.Linear(2 * size, size),
            nn.Tanh(),
            nn.Dropout(dropout),
            nn.Linear(size, getattr(config, "n_tasks", 1)),
        )
        self.post_init()

    def forward(self, input_ids: Tensor, attention_mask: Tensor, marks: Tensor) -> Tensor:
        """Logit that the first answer is better, shape ``(n,)``.

        Args:
            input_ids: ``(n, t)``.
            attention_mask: ``(n, t)``.
            marks: ids of the three prefix tokens, each once in every row.
        """
        states = self.pretrained_model(input_ids, attention_mask).last_hidden_state
        places = [(input_ids == mark).int().argmax(dim=1) for mark in marks]
        rows = torch.arange(len(input_ids), device=input_ids.device)
        source, first, second = (states[rows, place] for place in places)
        scores = [self.head_layer(torch.cat([source, x], dim=1)) for x in (first, second)]
        return (scores[0] - scores[1]).mean(dim=1)


class PairRM:
    """The oracle.

    Args:
        model: the network; the published one where not given.
        tokenizer: of the model, with the prefix tokens.
        batch_size: pairs judged together.
    """

    def __init__(
        self,
        model: PairRanker | None = None,
        tokenizer: Any = None,  # noqa: ANN401 - a tokenizer
        batch_size: int = 16,
    ) -> None:
        device = f"cuda:{os.environ.get('LOCAL_RANK', 0)}" if torch.cuda.is_available() else "cpu"
        self.tokenizer = AutoTokenizer.from_pretrained(NAME) if tokenizer is None else tokenizer
        self.model = PairRanker.from_pretrained(NAME) if model is None else model
        self.model.to(device).eval()
        self.batch_size = batch_size
        self.marks = self.tokenizer.convert_tokens_to_ids(list(PREFIXES))

    def compare(self, prompts: Sequence[str], a: Sequence[str], b: Sequence[str]) -> np.ndarray:
        """Pr(``a[i]`` beats ``b[i]``), shape ``(n,)``; both orders are asked."""
        forward, backward = self.logits(prompts, a, b), self.logits(prompts, b, a)
        return 1.0 / (1.0 + np.exp(-(forward - backward) / 2.0))

    @torch.no_grad()
    def logits(self, prompts: Sequence[str], a: Sequence[str], b: Sequence[str]) -> np.ndarray:
        """``s_ab`` of one order, shape ``(n,)``."""
        rows = [self._ids(*texts) for texts in zip(prompts, a, b, strict=True)]
        order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
        found = np.zeros(len(rows))
        device = self.model.device
        for start in range(0, len(order), self.batch_size):
            batch = order[start : start + self.batch_size]
            padded = self.tokenizer.pad(
                {"input_ids": [rows[i] for i in batch]}, return_tensors="pt"
            )
            values = self.model(
                padded["input_ids"].to(device),
                padded["attention_mask"].to(device),
                torch.tensor(self.marks, device=device),
            )
            found[batch] = values.double().cpu().numpy()
        return found

    def _ids(self, prompt: str, a: str, b: str) -> list[int]:
        def encode(prefix: str, text: str, longest: int) -> list[int]:
            return list(self.tokenizer.encode(prefix + text, max_length=longest, truncation=True))

        source = encode(PREFIXES[0], prompt, LONGEST_SOURCE)
        left = (LONGEST - len(source)) // 2
        return [*source, *encode(PREFIXES[1], a, left), *encode(PREFIXES[2], b, left)]
