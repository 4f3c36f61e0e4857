"""Refinement at inference time: a Leader answers, a Follower improves, again and again.

``y_0 ~ leader(. | x)``, ``y_i ~ follower(. | x, y_{i-1})``: Stackelberg Learning from Human
Feedback (Pasztor et al. 2025, arXiv:2512.16626). `equilign.games.refine` is the same on a matrix.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from equilign.errors import ConfigError
from equilign.evaluation.best_of_n import best_answer
from equilign.oracles import Oracle, compare_symmetric, score_groups
from equilign.rollout import Completion, Group, Prompt, Sampler, prompt_text
from equilign.rollout.follower import FollowerPrompt


@dataclass(frozen=True)
class Chain:
    """One answer and what became of it.

    Attributes:
        prompt: what is answered.
        answers: the Leader's, then one per round. A chain that stopped repeats its last answer.
        stopped: the first round whose Follower could not be shown the answer; None: every round
            was asked.
    """

    prompt: Prompt
    answers: tuple[Completion, ...]
    stopped: int | None = None

    @property
    def rounds(self) -> int:
        """Rounds so far."""
        return len(self.answers) - 1

    @property
    def texts(self) -> tuple[str, ...]:
        """The answers as text."""
        return tuple(c.text for c in self.answers)

    def then(self, answer: Completion) -> "Chain":
        """The chain with one more answer."""
        return Chain(self.prompt, (*self.answers, answer), self.stopped)

    def stay(self) -> "Chain":
        """The chain with its last answer once more: the Follower cannot be asked."""
        stopped = len(self.answers) if self.stopped is None else self.stopped
        return Chain(self.prompt, (*self.answers, self.answers[-1]), stopped)


@dataclass(frozen=True)
class Refiner:
    """Who improves answers, and how it is asked.

    Attributes:
        follower: samples the improvements.
        form: how an answer becomes the Follower's prompt.
        fits: whether the Follower can read a prompt (its length limit, say); an answer that it
            cannot be shown stays as it is. By default every prompt is passed on, and what the
            sampler raises is raised.
    """

    follower: Sampler
    form: FollowerPrompt = field(default_factory=FollowerPrompt)
    fits: Callable[[Prompt], bool] | None = None

    def chain(self, led: Sequence[Group], rounds: int, seed: int) -> list[tuple[Chain, ...]]:
        """``rounds`` rounds of refinement of every answer of every group.

        Args:
            led: prompts with the Leader's answers.
            rounds: at least 0.
            seed: each round has a seed of its own made from it, so a chain of fewer rounds is the
                beginning of a longer one.

        Returns:
            For each group one chain per answer.

        Raises:
            ConfigError: a negative number of rounds.
        """
        if rounds < 0:
            raise ConfigError(f"rounds = {rounds}; it must be >= 0")
        flat = start(led)
        for _ in range(rounds):
            flat = self.step(flat, seed)
        found = iter(flat)
        return [tuple(next(found) for _ in group.completions) for group in led]

    def step(self, chains: Sequence[Chain], seed: int) -> list[Chain]:
        """One more round of chains that all have the same number of rounds behind them."""
        if not chains:
            return []
        shown = [self.form.of(c.prompt, c.answers[-1].text) for c in chains]
        asked = [i for i, c in enumerate(chains) if c.stopped is None and self._fits(shown[i])]
        improved: dict[int, Completion] = {}
        if asked:
            own = round_seed(seed, chains[0].rounds + 1)
            groups = self.follower.sample([shown[i] for i in asked], 1, own)
            for i, group in zip(asked, groups, strict=True):
                (improved[i],) = group.completions
        return [c.then(improved[i]) if i in improved else c.stay() for i, c in enumerate(chains)]

    def _fits(self, prompt: Prompt) -> bool:
        return self.fits is None or self.fits(prompt)


def start(led: Sequence[Group]) -> list[Chain]:
    """A chain of no rounds for every answer of every group, in order."""
    return [Chain(group.prompt, (c,)) for group in led for c in group.completions]


def round_seed(seed: int, number: int) -> int:
    """The seed of a round, in [0, 2**63)."""
    return int(np.random.SeedSequence([seed, number]).generate_state(1, np.uint64)[0] >> 1)


def standing(chains: Sequence[Sequence[Chain]], number: int) -> list[Group]:
    """The answers that stand after round ``number`` (0: the Leader's), a group per prompt.

    The groups have the Leader's prompts, so that they can be compared with anybody's answers.
    """
    return [Group(row[0].prompt, (), tuple(c.answers[number] for c in row)) for row in chains]


def wins_over_leader(oracle: Oracle, chains: Sequence[Chain]) -> list[np.ndarray]:
    """How probably each round's answer beats the answer that its own chain began with.

    Both orders are asked and averaged, equal texts are ties and not asked.

    Returns:
        For each chain one number per round, shape ``(rounds,)``; nan where an oracle that
        abstains gave no verdict.
    """
    prompts = [prompt_text(c.prompt) for c in chains for _ in range(c.rounds)]
    later = [text for c in chains for text in c.texts[1:]]
    first = [c.texts[0] for c in chains for _ in range(c.rounds)]
    verdicts = iter(compare_symmetric(oracle, prompts, later, first))
    return [np.array([next(verdicts) for _ in range(c.rounds)]) for c in chains]


def chain_games(oracle: Oracle, chains: Sequence[Chain]) -> list[np.ndarray]:
    """The game that the answers of each chain play, ``(rounds + 1, rounds + 1)``; nan as above."""
    prompts = [prompt_text(c.prompt) for c in chains]
    return score_groups(oracle, prompts, [c.texts for c in chains])


def picks(oracle: Oracle, chains: Sequence[Chain]) -> list[int | None]:
    """The round whose answer the oracle prefers, chain by chain; see `best_answer`."""
    games = chain_games(oracle, chains)
    return [best_answer(g, c.texts) for g, c in zip(games, chains, strict=True)]
