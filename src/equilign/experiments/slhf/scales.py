"""How much of the experiment is run."""

from dataclasses import dataclass

from equilign.experiments.sizes import find_scale


@dataclass(frozen=True)
class Scale:
    """Sizes; the same for every method.

    Attributes:
        seeds: runs per method.
        kappa_seeds: runs of each kappa of the sweep, with the first of those seeds; 0 for none.
        rounds: rounds of sample, compare, one optimiser step.
        prompts_per_round: prompts played per round.
        leader_answers: of SLHF's Leader per prompt.
        follower_answers: of its Follower to each of them.
        eval_prompts: held-out prompts.
        samples: answers per player and prompt in the round robin.
        pool: answers per policy and prompt for the best of N; at least ``samples + chains``.
        chains: refinements begun per prompt, from a Leader's last answers.
        steps: rounds of refinement.
        half_prompts: prompts whose answers the half-size model is distilled on.
        half_epochs: passes over them.
        save_every: rounds between checkpoints.
        max_tokens: length limit of an answer.
    """

    seeds: int
    kappa_seeds: int
    rounds: int
    prompts_per_round: int
    leader_answers: int
    follower_answers: int
    eval_prompts: int
    samples: int
    pool: int
    chains: int
    steps: int
    half_prompts: int
    half_epochs: int
    save_every: int
    max_tokens: int

    @property
    def answers(self) -> int:
        """Answers sampled per prompt and round, by every method."""
        return self.leader_answers * (1 + self.follower_answers)


SCALES: dict[str, Scale] = {
    "tiny": Scale(
        seeds=2,
        kappa_seeds=1,
        rounds=2,
        prompts_per_round=2,
        leader_answers=2,
        follower_answers=2,
        eval_prompts=3,
        samples=2,
        pool=3,
        chains=1,
        steps=2,
        half_prompts=4,
        half_epochs=1,
        save_every=2,
        max_tokens=12,
    ),
    "quick": Scale(
        seeds=5,
        kappa_seeds=1,
        rounds=100,
        prompts_per_round=4,
        leader_answers=4,
        follower_answers=3,
        eval_prompts=96,
        samples=2,
        pool=4,
        chains=2,
        steps=3,
        half_prompts=272,
        half_epochs=4,
        save_every=20,
        max_tokens=80,
    ),
    "full": Scale(
        seeds=5,
        kappa_seeds=5,
        rounds=120,
        prompts_per_round=6,
        leader_answers=4,
        follower_answers=3,
        eval_prompts=128,
        samples=4,
        pool=8,
        chains=4,
        steps=5,
        half_prompts=272,
        half_epochs=4,
        save_every=20,
        max_tokens=80,
    ),
}
"""``tiny`` is a smoke test: seconds, and too little of everything to decide a claim."""


def get_scale(name: str) -> Scale:
    """The sizes of that name.

    Raises:
        ConfigError: no such scale.
    """
    return find_scale(SCALES, name)
