"""Options of SLHF."""

import math
from dataclasses import dataclass, field
from typing import ClassVar

from equilign.errors import ConfigError
from equilign.rollout.follower import INSTRUCTION, FollowerPrompt
from equilign.trainers.config import GameConfig

PLAYERS = ("shared", "adapters", "separate")
_CHOICES = {
    "players": PLAYERS,
    "follower_reference": ("context", "prompt"),
    "baseline": ("leave_one_out", "constant"),
    "kl_gradient": ("to_go", "own_token_k1", "own_token_k3"),
}


@dataclass
class SLHFConfig(GameConfig):
    """`GameConfig` plus the two players, and how far each may go.

    A round is one batch of games, and many short rounds are closest to on-policy training.
    Optimiser state and learning-rate schedule run through all rounds.

    Raises:
        ConfigError: an option is out of range.
    """

    least_generations: ClassVar[int] = 1

    players: str = field(
        default="shared",
        metadata={
            "help": "'shared': one model plays both roles, told apart by the prompt; 'adapters': "
            "two LoRA adapters of one model; 'separate': two models."
        },
    )
    follower_model: str | None = field(
        default=None,
        metadata={
            "help": "Start model of the Follower (players = separate), a folder or name; a copy of "
            "the Leader's by default."
        },
    )
    kappa: float = field(
        default=5.0,
        metadata={
            "help": "Step of the Follower relative to the Leader's: the weight of its loss where "
            "both share their weights, of its learning rate where they do not."
        },
    )
    leader_update_every: int = field(
        default=1, metadata={"help": "The Leader moves at every so many-th optimiser step."}
    )
    beta_leader: float = field(
        default=0.001, metadata={"help": "KL weight of the Leader, win probability per nat."}
    )
    beta_follower: float = field(
        default=0.001, metadata={"help": "KL weight of the Follower, win probability per nat."}
    )
    leader_pays_follower_kl: bool = field(
        default=True,
        metadata={
            "help": "Whether the Leader's payoff holds beta_follower * KL of the Follower, as the "
            "game's does; the authors' code leaves it out."
        },
    )
    follower_reference: str = field(
        default="context",
        metadata={
            "help": "What the Follower's reference is shown: 'context', all that the Follower is, "
            "or 'prompt', the original prompt only."
        },
    )
    follower_instruction: str = field(
        default=INSTRUCTION,
        metadata={"help": "The request that follows the Leader's answer in the Follower's prompt."},
    )
    follower_template: str | None = field(
        default=None,
        metadata={
            "help": "The Follower's prompt where prompts are plain text, with {prompt}, {answer} "
            "and {instruction}; chats need none."
        },
    )
    num_generations: int = field(
        default=2, metadata={"help": "Leader answers sampled per prompt and round."}
    )
    num_follower_generations: int = field(
        default=2, metadata={"help": "Follower answers sampled per leader answer."}
    )
    baseline: str = field(
        default="leave_one_out",
        metadata={
            "help": "Taken off a response's payoff: 'leave_one_out', the mean of the others in "
            "its context (without others: of all that were played together), or 'constant'."
        },
    )
    baseline_value: float = field(
        default=0.5,
        metadata={"help": "The constant baseline; also that of a response played all alone."},
    )
    kl_gradient: str = field(
        default="to_go",
        metadata={
            "help": "'to_go': the sequence's KL, unbiased; 'own_token_k1', 'own_token_k3': the "
            "authors', which are biased."
        },
    )
    importance_cap: float | None = field(
        default=2.0,
        metadata={
            "help": "The most that a response's probability ratio to its sampling policy may "
            "count, which is 1 at the first step of a round; null: no bound."
        },
    )
    missing_eos_penalty: float = field(
        default=0.0,
        metadata={
            "help": "Taken off the payoff of a player's response that was cut at the length limit."
        },
    )
    max_completion_length: int = field(
        default=512, metadata={"help": "Length limit of a response in tokens."}
    )
    learning_rate: float = field(default=1e-5, metadata={"help": "Optimiser step of the Leader."})
    lr_scheduler_type: str = field(
        default="constant", metadata={"help": "Shape of the learning rate, as in transformers."}
    )
    reset_optimizer_each_round: bool = field(
        default=False,
        metadata={"help": "Fresh optimiser state and learning-rate schedule every round."},
    )
    ddp_find_unused_parameters: bool | None = field(
        default=False,
        metadata={"help": "Must stay false: two forward passes go backward together."},
    )

    def __post_init__(self) -> None:
        for name, allowed in _CHOICES.items():
            if vars(self)[name] not in allowed:
                words = ", ".join(map(repr, allowed[:-1])) + f" or {allowed[-1]!r}"
                raise ConfigError(f"{name} = {vars(self)[name]!r}; use {words}")
        self._check_numbers()
        if self.follower_model is not None and self.players != "separate":
            raise ConfigError(
                f"follower_model = {self.follower_model!r} has no effect with players = "
                f"{self.players!r}; set players = 'separate', or leave it out"
            )
        if self.ddp_find_unused_parameters:
            raise ConfigError(
                "ddp_find_unused_parameters must be false: both players' losses go backward "
                "together, which DDP's search for unused weights does not survive"
            )
        self.follower_prompt()
        super().__post_init__()

    def _check_numbers(self) -> None:
        for name in ("kappa", "beta_leader", "beta_follower", "missing_eos_penalty"):
            if not 0.0 <= vars(self)[name] < math.inf:
                raise ConfigError(f"{name} = {vars(self)[name]}; it must be finite and >= 0")
        for name in ("leader_update_every", "num_follower_generations"):
            if vars(self)[name] < 1:
                raise ConfigError(f"{name} = {vars(self)[name]}; it must be >= 1")
        if self.importance_cap is not None and not self.importance_cap >= 1.0:
            raise ConfigError(
                f"importance_cap = {self.importance_cap}; it must be >= 1 (1 is what a fresh "
                "response counts), or null for no bound"
            )
        if not math.isfinite(self.baseline_value):
            raise ConfigError(f"baseline_value = {self.baseline_value}; it must be finite")

    def follower_prompt(self) -> FollowerPrompt:
        """What the Follower is shown.

        Raises:
            ConfigError: the template does not show the Leader's answer.
        """
        if self.follower_template is None:
            return FollowerPrompt(self.follower_instruction)
        return FollowerPrompt(self.follower_instruction, self.follower_template)
