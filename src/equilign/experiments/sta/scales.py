"""How much of the experiment is run."""

from dataclasses import dataclass

from equilign.experiments.sizes import find_scale


@dataclass(frozen=True)
class Scale:
    """Sizes; the same for every method.

    Attributes:
        seeds: runs per method and task.
        rounds: batches of prompts.
        batch: prompts per batch.
        answers: sampled per prompt and batch, K.
        inner_steps: steps of the player that follows, S.
        evaluations: how often held-out answers are sampled, at equal distances, the end included.
        eval_prompts: held-out prompts.
        samples: answers per held-out prompt.
        max_tokens: length limit of an answer.
        fit_batches: of RLHF: batches of the start model's answers that its reward is fitted to.
        cg_rounds: rounds that STA with conjugate gradients is timed on.
        learning_rate: of the policy, for every method. 3e-4 and 1e-3 were tried on ``quick``, once
            each, with STA naive on Unique Nouns: at 1e-3 the policy ended 30 nats from the start.
    """

    seeds: int
    rounds: int
    batch: int
    answers: int
    inner_steps: int
    evaluations: int
    eval_prompts: int
    samples: int
    max_tokens: int
    fit_batches: int
    cg_rounds: int
    learning_rate: float

    @property
    def between(self) -> int:
        """Batches from one evaluation to the next; ``evaluations`` divides ``rounds``."""
        return self.rounds // self.evaluations


SCALES: dict[str, Scale] = {
    "tiny": Scale(
        seeds=1,
        rounds=2,
        batch=2,
        answers=3,
        inner_steps=2,
        evaluations=2,
        eval_prompts=2,
        samples=1,
        max_tokens=6,
        fit_batches=1,
        cg_rounds=1,
        learning_rate=3e-4,
    ),
    "quick": Scale(
        seeds=2,
        rounds=16,
        batch=4,
        answers=4,
        inner_steps=3,
        evaluations=4,
        eval_prompts=32,
        samples=1,
        max_tokens=32,
        fit_batches=6,
        cg_rounds=1,
        learning_rate=3e-4,
    ),
    "full": Scale(
        seeds=5,
        rounds=200,
        batch=16,
        answers=4,
        inner_steps=5,
        evaluations=10,
        eval_prompts=128,
        samples=4,
        max_tokens=75,
        fit_batches=40,
        cg_rounds=5,
        learning_rate=1e-4,
    ),
}
"""``tiny`` is a smoke test: seconds, and too little of everything to decide a claim. ``full`` has
the paper's batch, K, S, length and five seeds."""


def get_scale(name: str) -> Scale:
    """The sizes of that name.

    Raises:
        ConfigError: no such scale.
    """
    return find_scale(SCALES, name)
