"""How much of the experiment is run."""

from dataclasses import dataclass

from equilign.experiments.sizes import find_scale


@dataclass(frozen=True)
class Scale:
    """Sizes; the same for every method.

    Attributes:
        seeds: runs per method.
        rounds: iterations of sample, compare, train.
        prompts_per_round: prompts played per iteration, different ones in each for as long as
            there are any.
        generations: answers sampled per prompt, K; each plays each.
        batch_prompts: prompts per optimiser step.
        epochs: passes over an iteration's answers.
        eval_prompts: held-out prompts.
        samples: answers per held-out prompt and policy; the start model gives ``best_of``.
        best_of: answers among which the best is taken, at most 16; at least ``samples``.
        max_tokens: length limit of an answer.
    """

    seeds: int
    rounds: int
    prompts_per_round: int
    generations: int
    batch_prompts: int
    epochs: int
    eval_prompts: int
    samples: int
    best_of: int
    max_tokens: int


SCALES: dict[str, Scale] = {
    "tiny": Scale(
        seeds=2,
        rounds=3,
        prompts_per_round=4,
        generations=2,
        batch_prompts=1,
        epochs=1,
        eval_prompts=3,
        samples=2,
        best_of=3,
        max_tokens=16,
    ),
    "quick": Scale(
        seeds=5,
        rounds=3,
        prompts_per_round=90,
        generations=5,
        batch_prompts=4,
        epochs=1,
        eval_prompts=128,
        samples=2,
        best_of=8,
        max_tokens=80,
    ),
    "full": Scale(
        seeds=10,
        rounds=3,
        prompts_per_round=136,
        generations=8,
        batch_prompts=4,
        epochs=1,
        eval_prompts=128,
        samples=8,
        best_of=16,
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
