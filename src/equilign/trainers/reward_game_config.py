"""Options of the game between a policy and the reward model fitted to its answers (STA-RLHF)."""

import math
from dataclasses import dataclass, field
from typing import Any

from equilign.errors import ConfigError
from equilign.trainers.config import GameConfig

PAPER_SEEDS = (467, 532, 6518, 7107, 8688)
"""Seeds of the paper's five runs."""

PAPER: dict[str, Any] = {
    "optim": "rmsprop",
    "learning_rate": 1e-6,
    "reward_learning_rate": 1e-5,
    "lr_scheduler_type": "constant",
    "beta": 0.1,
    "inner_steps": 5,
    "per_device_train_batch_size": 16,
    "prompts_per_round": 16,
    "num_generations": 4,
    "max_completion_length": 75,
    "pairs": "best_worst",
    "labels": "utility",
    "policy_samples": "pair",
    "baseline": "none",
    "solver": "cg",
    "cg_iterations": 10,
}
"""The paper's settings, where it states them; `PAPER_SEEDS` go with them."""

_CHOICES = {
    "pairs": ("best_worst", "all"),
    "labels": ("utility", "soft", "quantal"),
    "ties": ("replace", "half"),
    "policy_samples": ("all", "pair"),
    "baseline": ("mean", "none"),
    "solver": ("woodbury", "cg"),
    "followers": ("one", "members"),
    "aggregation": ("mean", "min"),
    "reward_optim": ("adamw", "sgd"),
}


@dataclass
class RewardGameConfig(GameConfig):
    """`GameConfig` plus the reward model's side of the game.

    A round plays one batch of prompts. What is done with it is the rule's: who moves first and how
    often is no option but `inner_steps`.

    Raises:
        ConfigError: an option is out of range.
    """

    inner_steps: int = field(
        default=5,
        metadata={"help": "Steps (S) of the player that follows, per step of the one that leads."},
    )
    beta: float = field(
        default=0.1,
        metadata={"help": "KL weight to the start model, reward per nat (k1 in the reward)."},
    )
    baseline: str = field(
        default="mean",
        metadata={
            "help": "Taken off an answer's reward: 'mean' of the prompt's other answers, or 'none'."
        },
    )
    reward_model: str = field(
        default="same",
        metadata={
            "help": "'same': the start model with a scalar head; 'head': a linear head on the "
            "frozen start model's last state; or a folder or name of a sequence classifier."
        },
    )
    reward_learning_rate: float = field(
        default=1e-5, metadata={"help": "Step of the reward model's own optimiser, constant."}
    )
    reward_optim: str = field(
        default="adamw", metadata={"help": "The reward model's optimiser: 'adamw' or 'sgd'."}
    )
    reward_max_grad_norm: float = field(
        default=1.0, metadata={"help": "The reward's gradient is clipped to it; 0 for not."}
    )
    reward_batch_size: int = field(
        default=64, metadata={"help": "Answers that the reward model reads together."}
    )
    reward_lora_rank: int | None = field(
        default=None, metadata={"help": "Adapt the reward model with LoRA of this rank."}
    )
    ridge: float = field(
        default=1e-3,
        metadata={
            "help": "Weight of half the squared distance of the reward's weights to where they "
            "started."
        },
    )
    pairs: str = field(
        default="best_worst",
        metadata={
            "help": "What the reward is fitted to: 'best_worst' of a prompt's answers, or 'all' "
            "pairs of them."
        },
    )
    labels: str = field(
        default="utility",
        metadata={
            "help": "'utility': the better one wins for certain; 'soft': the oracle's win "
            "probability; 'quantal': a verdict sampled with it."
        },
    )
    ties: str = field(
        default="replace",
        metadata={
            "help": "A prompt whose answers are all worth the same: 'replace' its pair with one of "
            "another prompt of the round, or keep first and last with label one 'half'."
        },
    )
    policy_samples: str = field(
        default="all",
        metadata={
            "help": "Answers that the policy learns from: 'all' sampled ones, or the 'pair' that "
            "was selected, as the paper does (biased: those two are no independent samples)."
        },
    )
    solver: str = field(
        default="woodbury",
        metadata={
            "help": "Of the total derivative: 'woodbury' (Gauss-Newton among the pairs), or 'cg' "
            "(conjugate gradients with exact Hessian-vector products, the paper's)."
        },
    )
    damping: float = field(
        default=1e-3, metadata={"help": "Added to the ridge in the total derivative's system."}
    )
    relative_damping: float = field(
        default=10.0,
        metadata={
            "help": "solver = 'woodbury': so many times the batch's largest curvature is added "
            "too. A reward that has hardly been fitted is flat; with little damping its response "
            "drowns the gradient. 0 for the implicit gradient itself. 'cg' raises its own damping."
        },
    )
    cg_iterations: int = field(
        default=10, metadata={"help": "Hessian-vector products of solver = 'cg'."}
    )
    followers: str = field(
        default="one",
        metadata={
            "help": "'one' reward model for the oracle, or one for each of the 'members' of an "
            "ensemble oracle (annotators who disagree)."
        },
    )
    aggregation: str = field(
        default="mean",
        metadata={
            "help": "Of several reward models: the ensemble's weighted 'mean', or the 'min' of "
            "each answer's advantages over the prompt's mean."
        },
    )
    fit_batches: int = field(
        default=20,
        metadata={"help": "rlhf: batches of prompts played by the start model for the fit."},
    )
    fit_epochs: int = field(
        default=5, metadata={"help": "rlhf: passes over them, one reward step per batch."}
    )
    num_rounds: int = field(default=100, metadata={"help": "Batches of prompts played."})
    num_generations: int = field(default=4, metadata={"help": "Answers per prompt (K)."})
    max_completion_length: int = field(
        default=75, metadata={"help": "Length limit of a response in tokens."}
    )
    per_device_train_batch_size: int = field(
        default=16, metadata={"help": "Prompts per policy step and device."}
    )
    prompts_per_round: int | None = field(
        default=None,
        metadata={
            "help": "Prompts played per round; one policy step's by default. More of them make "
            "several policy steps of one pass."
        },
    )
    optim: str = field(default="rmsprop", metadata={"help": "The policy's optimiser."})
    lr_scheduler_type: str = field(
        default="constant", metadata={"help": "The policy's learning-rate schedule."}
    )
    reset_optimizer_each_round: bool = field(
        default=False,
        metadata={"help": "Fresh optimiser state and learning-rate schedule every round."},
    )

    def __post_init__(self) -> None:
        self._check_reward_options()
        self._check_weights()
        super().__post_init__()
        if self.prompts_per_round is None:
            each = self.per_device_train_batch_size * self.gradient_accumulation_steps
            self.prompts_per_round = each * self.world_size

    def _check_reward_options(self) -> None:
        for name, known in _CHOICES.items():
            if vars(self)[name] not in known:
                raise ConfigError(
                    f"{name} = {vars(self)[name]!r}; use {' or '.join(map(repr, known))}"
                )
        for name in ("inner_steps", "cg_iterations", "fit_batches", "fit_epochs"):
            if vars(self)[name] < 1:
                raise ConfigError(f"{name} = {vars(self)[name]}; it must be >= 1")
        if self.reward_batch_size < 2:
            raise ConfigError(f"reward_batch_size = {self.reward_batch_size}; it must be >= 2")
        if self.epochs_per_round not in (1, self._passes()):
            raise ConfigError(
                f"epochs_per_round = {self.epochs_per_round}; how often a batch is used is the "
                "rule's: set inner_steps"
            )
        self.epochs_per_round = self._passes()

    def _check_weights(self) -> None:
        for name in ("beta", "ridge", "damping", "relative_damping", "reward_max_grad_norm"):
            if not 0.0 <= vars(self)[name] < math.inf:
                raise ConfigError(f"{name} = {vars(self)[name]}; it must be >= 0")
        if not self.ridge + self.damping > 0.0:
            raise ConfigError(
                "ridge = 0 and damping = 0; a Bradley-Terry reward is determined up to a constant "
                "per prompt, so one of them must be > 0 for its response to be defined"
            )
        if not self.reward_learning_rate > 0.0:
            raise ConfigError(f"reward_learning_rate = {self.reward_learning_rate}; it must be > 0")
        if self.reward_lora_rank is not None and self.reward_lora_rank < 1:
            raise ConfigError(f"reward_lora_rank = {self.reward_lora_rank}; it must be >= 1")

    def _passes(self) -> int:
        """Passes of the policy over a round's batch."""
        return 1


@dataclass
class STANaiveConfig(RewardGameConfig):
    """Options of STA-RLHF with the naive gradient."""


@dataclass
class STATotalConfig(RewardGameConfig):
    """Options of STA-RLHF with the total derivative."""


@dataclass
class SimultaneousConfig(RewardGameConfig):
    """Options of simultaneous steps; `inner_steps` is 1 whatever is said."""


@dataclass
class ReversedConfig(RewardGameConfig):
    """Options of the reversed game: `inner_steps` policy steps on each batch."""

    def _passes(self) -> int:
        return self.inner_steps


@dataclass
class PARLConfig(RewardGameConfig):
    """Options of PARL: a batch per policy step, a reward step after every `inner_steps`."""


@dataclass
class RLHFConfig(RewardGameConfig):
    """Options of RLHF with a reward fitted once, before the first round."""
