"""What a sampler returns."""

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Protocol

from equilign.chat import Message, Prompt, prompt_text

__all__ = [
    "Completion",
    "Group",
    "Message",
    "MixtureSampler",
    "Prompt",
    "Sampler",
    "prompt_text",
]


@dataclass(frozen=True)
class Completion:
    """One sampled response.

    Attributes:
        ids: its tokens; the last one is the end-of-sequence token iff `finished`.
        text: decoded without special tokens.
        finished: whether the model ended it (False: cut at the length limit).
        logps: log-probability of each token to the policy that it was sampled from, nats, to
            rounding; empty where the sampler does not tell.
    """

    ids: tuple[int, ...]
    text: str
    finished: bool
    logps: tuple[float, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True)
class Group:
    """A prompt with its responses: the players of one small game.

    Attributes:
        prompt: as in the data set.
        prompt_ids: as the model saw it.
        completions: K responses.
        weights: sampling weight of each response, summing to 1; empty means 1 / K each.
            Only an enumerating sampler (exact expectations) sets it.
    """

    prompt: Prompt
    prompt_ids: tuple[int, ...]
    completions: tuple[Completion, ...]
    weights: tuple[float, ...] = field(default=())

    def probabilities(self) -> tuple[float, ...]:
        """The weights, or 1 / K each."""
        size = len(self.completions)
        return self.weights or tuple(1.0 / size for _ in range(size))


class Sampler(Protocol):
    """Who answers."""

    def sample(self, prompts: Sequence[Prompt], num_samples: int, seed: int) -> list[Group]:
        """``num_samples`` responses to every prompt; the same for the same seed and weights."""
        ...


class MixtureSampler(Sampler, Protocol):
    """Who can also answer as a geometric mixture of several policies."""

    def sample_mixture(
        self,
        parts: Sequence[tuple[float, Callable[[], AbstractContextManager[None]]]],
        prompts: Sequence[Prompt],
        num_samples: int,
        seed: int,
    ) -> list[Group]:
        """As `sample`, from the normalised ``prod_k q_k^{w_k}``.

        Args:
            parts: weight ``w_k``, and a context within which the model is ``q_k``.
            prompts: what to answer.
            num_samples: responses per prompt.
            seed: the same responses for the same seed and weights.
        """
        ...
