"""Where a reproduction keeps what its pieces found, and everybody's answers to held-out prompts."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from equilign.evaluation.callback import load_groups, save_groups
from equilign.evaluation.round_robin import first
from equilign.models import SHIPPED, load_model
from equilign.rollout import (
    Group,
    Prompt,
    SamplingConfig,
    TransformersSampler,
    score_answers,
)
from equilign.trainers.rounds import derive_seed


class HeldOut:
    """A run directory and its held-out prompts; runs say what else they share.

    Attributes:
        folder: the run directory.
        evaluate: held-out prompts.
    """

    folder: Path
    evaluate: Sequence[Prompt]

    @property
    @abstractmethod
    def max_tokens(self) -> int:
        """Length limit of an answer."""

    def piece_file(self, name: str, seed: int) -> Path:
        """The file whose presence says that a piece is finished."""
        return self.folder / "pieces" / f"{name}-seed-{seed}.json"

    def answers_file(self, player: str, seed: int) -> Path:
        """Where the answers of a policy to the held-out prompts are."""
        return self.folder / "answers" / f"{player}-seed-{seed}.jsonl"

    def load_answers(self, player: str, seed: int, count: int | None = None) -> list[Group]:
        """The answers of a policy, the first ``count`` per prompt."""
        groups = load_groups(self.answers_file(player, seed))
        return groups if count is None else [first(g, count) for g in groups]

    def sampler(
        self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase
    ) -> TransformersSampler:
        """How held-out answers are drawn."""
        config = SamplingConfig(max_new_tokens=self.max_tokens, batch_size=128)
        return TransformersSampler(model, tokenizer, config)

    def sample_answers(
        self,
        player: str,
        seed: int,
        model: PreTrainedModel,
        tokenizer: PreTrainedTokenizerBase,
        count: int,
    ) -> None:
        """Sample ``count`` answers to every held-out prompt, unless that is done."""
        path = self.answers_file(player, seed)
        if path.exists():
            return
        sampler = self.sampler(model, tokenizer)
        path.parent.mkdir(parents=True, exist_ok=True)
        # Each policy draws for itself: with one stream for all, answers would go together.
        own = derive_seed(seed, "answers", player)
        save_groups(path, sampler.sample(self.evaluate, count, own))


def quiet() -> None:
    """One thread, no progress bars: several processes work at a time."""
    torch.set_num_threads(1)
    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]


def start_logps(pad_id: int) -> Callable[[Sequence[Group]], list[float]]:
    """Log-probabilities of answers under the shipped model, nats; loaded when first asked."""
    loaded: list[PreTrainedModel] = []

    def logps(groups: Sequence[Group]) -> list[float]:
        if not loaded:
            loaded.append(load_model(SHIPPED))
        return [v for row in score_answers(loaded[0], groups, pad_id=pad_id) for v in row]

    return logps
