"""Options that every game trainer shares."""

from dataclasses import dataclass, field
from typing import ClassVar

from transformers import TrainingArguments

from equilign.errors import ConfigError


@dataclass
class GameConfig(TrainingArguments):
    """`transformers.TrainingArguments` plus the options of playing rounds.

    Defaults that differ from transformers': no tracker unless asked for, a checkpoint at the end
    of every round, evaluation-mode forward passes for everything but the gradient.

    Raises:
        ConfigError: an option is out of range; names the option, the value and what is allowed.
    """

    least_generations: ClassVar[int] = 2
    """Answers to a prompt that the method needs at the least."""

    num_rounds: int = field(default=3, metadata={"help": "Rounds of sample, compare, train."})
    prompts_per_round: int | None = field(
        default=None,
        metadata={
            "help": "Prompts played per round; the data set is gone through in order and again "
            "from the start. Default: an equal share of it for every round."
        },
    )
    epochs_per_round: int = field(
        default=1, metadata={"help": "Passes over a round's data before the next round."}
    )
    num_generations: int = field(
        default=5, metadata={"help": "Responses sampled per prompt (K); each plays each."}
    )
    max_completion_length: int = field(
        default=256, metadata={"help": "Length limit of a response in tokens."}
    )
    max_prompt_length: int = field(
        default=1024, metadata={"help": "Longer prompts (tokens) are an error."}
    )
    temperature: float = field(
        default=1.0,
        metadata={"help": "Softmax temperature of the policy: for sampling and in every log-prob."},
    )
    top_p: float = field(default=1.0, metadata={"help": "Nucleus mass; 1 samples the policy."})
    generation_batch_size: int = field(
        default=64, metadata={"help": "Sequences generated or scored together."}
    )
    chunk_prompts: int = field(
        default=32,
        metadata={"help": "Prompts sampled and judged between two entries of the journal."},
    )
    reset_optimizer_each_round: bool = field(
        default=True,
        metadata={"help": "Fresh optimiser state and learning-rate schedule every round."},
    )
    disable_dropout: bool = field(
        default=True, metadata={"help": "Set every dropout of the policy to zero."}
    )
    learning_rate: float = field(default=1e-6, metadata={"help": "Optimiser step."})
    report_to: str | list[str] | None = field(
        default="none", metadata={"help": "Trackers, as in transformers; none by default."}
    )
    save_strategy: str = field(
        default="epoch", metadata={"help": "'epoch' saves at the end of every round."}
    )
    logging_steps: float = field(default=10, metadata={"help": "Optimiser steps between logs."})
    dataloader_pin_memory: bool = field(
        default=False, metadata={"help": "Rounds are lists of numbers: there is nothing to pin."}
    )
    remove_unused_columns: bool = field(
        default=False, metadata={"help": "Always False: rounds carry columns of their own."}
    )

    def __post_init__(self) -> None:
        self._check_game_options()
        if self.max_steps > 0 or self.num_train_epochs not in (3.0, float(self.num_rounds)):
            raise ConfigError(
                "max_steps and num_train_epochs have no effect on a game trainer; "
                "use num_rounds, prompts_per_round and epochs_per_round"
            )
        # One round is one epoch of the underlying loop.
        self.num_train_epochs = float(self.num_rounds)
        super().__post_init__()  # type: ignore[no-untyped-call]

    def _check_game_options(self) -> None:
        at_least = {
            "num_rounds": 1,
            "epochs_per_round": 1,
            "num_generations": self.least_generations,
            "max_completion_length": 1,
            "max_prompt_length": 1,
            "generation_batch_size": 1,
            "chunk_prompts": 1,
        }
        for name, minimum in at_least.items():
            if getattr(self, name) < minimum:
                raise ConfigError(f"{name} = {getattr(self, name)}; it must be >= {minimum}")
        if self.prompts_per_round is not None and self.prompts_per_round < 1:
            raise ConfigError(f"prompts_per_round = {self.prompts_per_round}; it must be >= 1")
        if not self.temperature > 0.0:
            raise ConfigError(
                f"temperature = {self.temperature}; a policy that plays itself must be sampled, "
                "so it must be > 0"
            )
        if not 0.0 < self.top_p <= 1.0:
            raise ConfigError(f"top_p = {self.top_p}; it must be in (0, 1]")
        if self.remove_unused_columns:
            raise ConfigError("remove_unused_columns must stay False for game trainers")
