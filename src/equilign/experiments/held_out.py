"""Where a reproduction keeps what its pieces found, and everybody's answers to held-out prompts."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import torch
from transformers import PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from equilign.errors import RunDirectoryError
from equilign.evaluation.callback import kl_nats, load_groups, save_groups
from equilign.evaluation.round_robin import first
from equilign.models import SHIPPED, load_model
from equilign.rollout import (
    Group,
    Prompt,
    SamplingConfig,
    TransformersSampler,
    pad_token,
    score_answers,
)
from equilign.trainers.rounds import derive_seed

KL_PROMPTS = 64
"""The distance from the start is measured on so many prompts, one answer each."""

Tell = Callable[[int, int], None]
"""How much of a piece is done, and how much there is."""


class Sizes(Protocol):
    """Of a run."""

    @property
    def max_tokens(self) -> int:
        """Length limit of an answer."""
        ...


Scale = TypeVar("Scale", bound=Sizes)


@dataclass(frozen=True)
class HeldOut(Generic[Scale]):
    """What all pieces of a run share.

    Attributes:
        folder: the run directory.
        scale: sizes.
        train: prompts to train on.
        evaluate: held-out prompts.
    """

    folder: Path
    scale: Scale
    train: Sequence[Prompt]
    evaluate: Sequence[Prompt]

    @property
    def max_tokens(self) -> int:
        """Length limit of an answer."""
        return self.scale.max_tokens

    def piece_file(self, name: str, seed: int) -> Path:
        """The file whose presence says that a piece is finished."""
        return self.folder / "pieces" / f"{name}-seed-{seed}.json"

    def read_piece(self, name: str, seed: int) -> dict[str, Any]:
        """What a finished piece recorded.

        Raises:
            RunDirectoryError: it cannot be read; names it and the cure.
        """
        path = self.piece_file(name, seed)
        try:
            found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise RunDirectoryError(
                f"cannot read {path}: {error}; delete that file to make the piece again"
            ) from error
        return found

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


def kl_to_start(sampler: TransformersSampler, answers: Sequence[Group]) -> float:
    """KL of a policy to the start model on its own answers, nats per answer.

    The start model is shown the same prompt: a Follower's distance is to what the start model
    would reply.
    """
    pad = pad_token(sampler.tokenizer)
    found = kl_nats(sampler.model, start_logps(pad), answers, pad_id=pad, temperature=1.0)
    return found.value
