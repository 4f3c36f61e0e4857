"""Options of the trainers that climb a scalar reward."""

from dataclasses import dataclass, field

from equilign.errors import ConfigError
from equilign.trainers.config import GameConfig


@dataclass
class RewardConfig(GameConfig):
    """`GameConfig` plus what a reward is and how far the policy may go for it.

    A round is one batch of samples: ``epochs_per_round`` passes over it (TRL's ``num_iterations``
    and PPO's ``num_ppo_epochs``), then new samples. Many short rounds are closest to on-policy
    training. Optimiser state and learning-rate schedule run through all rounds.

    Raises:
        ConfigError: an option is out of range.
    """

    reward: str = field(
        default="auto",
        metadata={
            "help": "'score': the oracle's scalar reward; 'win_rate': mean win probability "
            "against the other responses to the prompt; 'auto': the score where there is one."
        },
    )
    beta: float = field(
        default=0.05,
        metadata={"help": "KL weight to the start model, reward per nat (k1 in the reward)."},
    )
    missing_eos_penalty: float = field(
        default=0.0,
        metadata={"help": "Taken off the reward of a response that was cut at the length limit."},
    )
    reward_clip_range: tuple[float, float] | None = field(
        default=None,
        metadata={"help": "Rewards are clipped to (low, high) before anything is taken off."},
    )
    num_generations: int = field(
        default=2, metadata={"help": "Responses sampled per prompt and round."}
    )
    reset_optimizer_each_round: bool = field(
        default=False,
        metadata={"help": "Fresh optimiser state and learning-rate schedule every round."},
    )

    def __post_init__(self) -> None:
        if self.reward not in ("auto", "score", "win_rate"):
            raise ConfigError(f"reward = {self.reward!r}; use 'auto', 'score' or 'win_rate'")
        for name in ("beta", "missing_eos_penalty"):
            if not vars(self)[name] >= 0.0:
                raise ConfigError(f"{name} = {vars(self)[name]}; it must be >= 0")
        if self.reward_clip_range is not None:
            low_high = tuple(self.reward_clip_range)
            if len(low_high) != 2 or not low_high[0] < low_high[1]:
                raise ConfigError(
                    f"reward_clip_range = {self.reward_clip_range}; two numbers, low < high"
                )
            self.reward_clip_range = (float(low_high[0]), float(low_high[1]))
        super().__post_init__()


@dataclass
class SequenceConfig(RewardConfig):
    """`RewardConfig` plus the clipped ratio of whole responses (REINFORCE and RLOO).

    Raises:
        ConfigError: an option is out of range.
    """

    epsilon: float | None = field(
        default=0.2,
        metadata={
            "help": "How far the probability ratio of a response to its sampling policy may leave "
            "1; null: importance weights without a bound."
        },
    )
    epsilon_high: float | None = field(
        default=None, metadata={"help": "The upper bound, where it differs from epsilon."}
    )
    normalize_advantages: bool = field(
        default=False,
        metadata={"help": "Advantages of a chunk of prompts to mean 0 and standard deviation 1."},
    )

    def __post_init__(self) -> None:
        for name in ("epsilon", "epsilon_high"):
            bound = vars(self)[name]
            if bound is not None and not bound > 0.0:
                raise ConfigError(f"{name} = {bound}; it must be > 0, or null for no bound")
        super().__post_init__()


@dataclass
class RLOOConfig(SequenceConfig):
    """Options of RLOO; names and defaults are those of TRL 1.16 where the meaning is the same."""

    max_completion_length: int = field(
        default=512, metadata={"help": "Length limit of a response in tokens."}
    )


@dataclass
class ReinforceConfig(SequenceConfig):
    """Options of REINFORCE.

    Raises:
        ConfigError: an option is out of range.
    """

    baseline: str = field(
        default="mean",
        metadata={
            "help": "Taken off the reward: 'mean' of the other responses played together "
            "(chunk_prompts x num_generations), 'constant' (baseline_value), or 'none'."
        },
    )
    baseline_value: float = field(
        default=0.0, metadata={"help": "The constant baseline, in units of reward."}
    )

    def __post_init__(self) -> None:
        if self.baseline not in ("none", "mean", "constant"):
            raise ConfigError(f"baseline = {self.baseline!r}; use 'none', 'mean' or 'constant'")
        if self.baseline != "constant" and self.baseline_value != 0.0:
            raise ConfigError(
                f"baseline_value = {self.baseline_value} has no effect with baseline = "
                f"{self.baseline!r}; set baseline = 'constant'"
            )
        super().__post_init__()


@dataclass
class PPOConfig(RewardConfig):
    """Options of PPO; names as in TRL's last PPO where the meaning is the same.

    So are the defaults, but for what suits a critic that starts from a reward model, as ours does
    not: ``lam`` was 0.95 and ``cliprange_value`` 0.2.

    Raises:
        ConfigError: an option is out of range.
    """

    learning_rate: float = field(default=3e-6, metadata={"help": "Optimiser step of the policy."})
    epochs_per_round: int = field(
        default=4, metadata={"help": "Passes over a round's data before the next round."}
    )
    gamma: float = field(default=1.0, metadata={"help": "Discount per token."})
    lam: float = field(
        default=1.0,
        metadata={
            "help": "Decay of the advantage trace per token (lambda of GAE); 1 takes whole "
            "responses and is unbiased, less trusts the critic, which starts from nothing."
        },
    )
    cliprange: float = field(
        default=0.2,
        metadata={"help": "How far the probability ratio of a token may leave 1 with a gradient."},
    )
    cliprange_value: float | None = field(
        default=None,
        metadata={
            "help": "How far a round may move a value with a gradient, in units of reward; null: "
            "no bound."
        },
    )
    whiten_advantages: bool = field(
        default=True,
        metadata={"help": "Token advantages of a chunk of prompts to mean 0 and variance 1."},
    )
    critic: str = field(
        default="mlp",
        metadata={
            "help": "Value network on the policy's last states: 'mlp' (one hidden layer as wide "
            "as the states) or 'head' (linear)."
        },
    )
    critic_learning_rate: float = field(
        default=1e-3, metadata={"help": "Step of the critic's own AdamW, constant."}
    )

    def __post_init__(self) -> None:
        for name in ("gamma", "lam"):
            if not 0.0 <= vars(self)[name] <= 1.0:
                raise ConfigError(f"{name} = {vars(self)[name]}; it must be in [0, 1]")
        for name in ("cliprange", "cliprange_value", "critic_learning_rate"):
            value = vars(self)[name]
            if value is None and name == "cliprange_value":
                continue
            if value is None or not value > 0.0:
                raise ConfigError(f"{name} = {value}; it must be > 0")
        if self.critic not in ("mlp", "head"):
            raise ConfigError(f"critic = {self.critic!r}; use 'mlp' or 'head'")
        super().__post_init__()
