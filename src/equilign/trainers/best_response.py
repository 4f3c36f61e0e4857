r"""A best responder: a copy of a model trained to beat the model that it began as.

``J(theta) = E_x E_{y ~ pi_theta, y' ~ pi_0} Pr(y beats y' | x) - beta KL(pi_theta || pi_0)``,
climbed by RLOO. The opponent does not move, so this is no game but a reward: with ``beta = 0`` its
maximum plays a best response to every prompt, and ``max J - 1/2`` is the exploitability of
``pi_0``.
"""

from dataclasses import dataclass, field

import numpy as np

from equilign.errors import ConfigError
from equilign.oracles import compare_symmetric
from equilign.rollout import Group, prompt_text
from equilign.rules import RLOO, RewardRule
from equilign.trainers.reward_config import RLOOConfig
from equilign.trainers.reward_gradient import RLOOTrainer
from equilign.trainers.rounds import Row, derive_seed

BEST_RESPONSE = RewardRule(
    name="best-response",
    title="Best response to the start model (RLOO)",
    paper=RLOO.paper,
    converges_to="a best response to the start model",
)


@dataclass
class BestResponseConfig(RLOOConfig):
    """`RLOOConfig` plus the opponents; the reward is always the win probability against them.

    Raises:
        ConfigError: an option is out of range.
    """

    beta: float = field(
        default=0.0,
        metadata={"help": "KL weight to the start model, win probability per nat; 0: none."},
    )
    reward: str = field(
        default="win_rate", metadata={"help": "Always 'win_rate': that against the start model."}
    )
    num_opponents: int = field(
        default=4, metadata={"help": "Fresh answers of the start model per prompt and round."}
    )

    def __post_init__(self) -> None:
        if self.num_opponents < 1:
            raise ConfigError(f"num_opponents = {self.num_opponents}; it must be >= 1")
        if self.reward != "win_rate":
            raise ConfigError(f"reward = {self.reward!r}; a best responder has 'win_rate' only")
        super().__post_init__()


class BestResponseTrainer(RLOOTrainer):
    """RLOO on the win probability against fresh answers of the start model.

    The start model is the reference of the same module (with LoRA the model without its adapter),
    so no second copy of a model's weights is held but for full fine-tuning's own.
    """

    rule = BEST_RESPONSE

    def worth(
        self, index: int, number: int, groups: list[Group]
    ) -> tuple[list[np.ndarray], list[Row]]:
        """Mean win probability of each response against opponents drawn for this chunk."""
        args = self.args
        assert isinstance(args, BestResponseConfig)  # noqa: S101 - for the type checker
        with self.references.playing("reference"):
            rivals = self.sampler.sample(
                [g.prompt for g in groups],
                args.num_opponents,
                derive_seed(args.seed, self.method, "opponents", index, number),
            )
        flat = [
            (prompt_text(mine.prompt), x.text, y.text)
            for mine, theirs in zip(groups, rivals, strict=True)
            for x in mine.completions
            for y in theirs.completions
        ]
        prompts, left, right = (list(column) for column in zip(*flat, strict=True))
        verdicts = iter(compare_symmetric(self.oracle, prompts, left, right))
        found, extra = [], []
        for mine, theirs in zip(groups, rivals, strict=True):
            block = np.array(
                [[next(verdicts) for _ in theirs.completions] for _ in mine.completions]
            )
            law = np.where(np.isnan(block), 0.0, np.array(theirs.probabilities()))
            mass = law.sum(axis=1)
            rates = (law * np.nan_to_num(block)).sum(axis=1) / np.where(mass > 0.0, mass, 1.0)
            found.append(np.where(mass > 0.0, rates, np.nan))
            extra.append({"opponents": [c.text for c in theirs.completions]})
        return found, extra
