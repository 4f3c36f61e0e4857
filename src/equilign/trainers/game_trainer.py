"""The trainer base: rounds of sample, compare, train, on `transformers.Trainer`.

One epoch of the underlying loop is one round. At its start the round is played (or read from
its file, after a crash); its rows are then trained on like any data set. Subclasses say how a
chunk of prompts is played and what the loss of a batch of rows is.
"""

import math
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft import PeftConfig
from torch import Tensor, nn
from torch.utils.data import Sampler as IndexSampler
from torch.utils.data import SequentialSampler
from transformers import (
    PreTrainedTokenizerBase,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import TrainOutput

from equilign.errors import ConfigError
from equilign.oracles import Oracle
from equilign.rollout import (
    Group,
    Prompt,
    Sampler,
    TransformersSampler,
    pad_token,
    score_answers,
)
from equilign.rollout.models import tables_depend_on_length
from equilign.trainers.checkpoints import CheckpointingTrainer
from equilign.trainers.config import GameConfig
from equilign.trainers.metrics import MetricsFile
from equilign.trainers.references import References
from equilign.trainers.rounds import RoundDataset, Row, play_or_load
from equilign.trainers.schedule import schedule_per_round
from equilign.trainers.setup import (
    claim,
    deciding_options,
    keep_rows,
    make_plan,
    prepare_policy,
    sampling_config,
    tokenizer_of,
)
from equilign.trainers.team import Team

Progress = Callable[[str, int, int, int], None]
"""``(stage, round, done, total)``; rounds count from 1, and 0 is before the first."""


class _RoundStart(TrainerCallback):
    def __init__(self, trainer: "GameTrainer") -> None:
        self._trainer = trainer

    def on_epoch_begin(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ANN401 - signature of transformers
    ) -> None:
        self._trainer.begin_round()

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ANN401 - signature of transformers
    ) -> None:
        self._trainer.report_step()


class GameTrainer(CheckpointingTrainer):
    """Rounds of play on `transformers.Trainer`; subclass it per family of rules.

    Layout under ``args.output_dir``: ``rounds/METHOD-001.jsonl`` (what was played),
    ``checkpoints/METHOD/checkpoint-N`` (each whole, or not there), ``metrics.jsonl``.

    Under a launcher every process plays its share of a round and trains on its share of every
    batch; the rounds are the same for any number of processes.

    Args:
        model: the policy; a module, or a path or name for `AutoModelForCausalLM`.
        args: options.
        train_dataset: rows with a ``prompt`` (text or chat messages), TRL's prompt-only format;
            methods that learn from given pairs (``data_format``) take TRL's preference format.
        oracle: who judges; None for methods that ask nobody (``needs_oracle``).
        processing_class: the tokenizer; the model's own where ``model`` is a path or name.
        sampler: who answers; the model itself by default.
        peft_config: adapt the model with PEFT (LoRA) and train the adapter only.
        callbacks: as in transformers.
        progress: called while rounds are played and trained.

    Raises:
        ConfigError: the data set is too small for the options, or an oracle is missing.
        ModelError: no trainable weights, or weights that no process holds in full.
    """

    method = "game"
    data_format = "prompts"
    """What rows of the data set hold: ``prompts`` or ``pairs``."""
    needs_oracle = True
    # The loss below is a mean over the micro-batch: transformers must divide it by the number of
    # accumulation steps.
    loss_is_scaled_for_ga = False

    def __init__(  # noqa: PLR0913 - the constructor that transformers' users know
        self,
        model: str | nn.Module,
        args: GameConfig,
        train_dataset: Sequence[Mapping[str, Any]],
        oracle: Oracle | None = None,
        processing_class: PreTrainedTokenizerBase | None = None,
        *,
        sampler: Sampler | None = None,
        peft_config: PeftConfig | None = None,
        callbacks: list[TrainerCallback] | None = None,
        progress: Progress | None = None,
    ) -> None:
        if oracle is None and self.needs_oracle:
            raise ConfigError(f"{type(self).__name__} needs an oracle: who judges the answers?")
        tokenizer = tokenizer_of(model, processing_class)
        self.policy: nn.Module = prepare_policy(model, args, peft_config)
        self.examples: list[Mapping[str, Any]] = list(train_dataset)
        self.prompts: list[Prompt] = self.read_prompts(self.examples)
        self.plan = make_plan(len(self.prompts), args)
        self._oracle = oracle
        self.references = References(self.policy)
        self.folder = Path(str(args.output_dir))
        self.pad_id = pad_token(tokenizer)
        self.tokenizer = tokenizer
        self.metrics = MetricsFile(self.folder / "metrics.jsonl", self.method)
        self.sampler = sampler or TransformersSampler(
            self.policy,  # type: ignore[arg-type]
            tokenizer,
            sampling_config(args),
        )
        self._progress = progress or (lambda stage, index, done, total: None)
        self._sums: dict[str, list[float]] = defaultdict(list)
        super().__init__(
            model=self.policy,
            args=args,
            data_collator=keep_rows,
            train_dataset=RoundDataset(self.plan),
            processing_class=tokenizer,
            callbacks=[_RoundStart(self), *(callbacks or [])],
        )
        self.team = Team.of(self.accelerator)

    # -- what a subclass says ---------------------------------------------------------------

    @abstractmethod
    def play_chunk(self, index: int, number: int, members: list[int]) -> list[Row]:
        """Play prompts ``members`` of round ``index`` (0-based): sample, compare, targets."""

    @abstractmethod
    def batch_loss(self, model: nn.Module, rows: list[Row]) -> tuple[Tensor, dict[str, float]]:
        """Mean loss of a batch of rows, and metrics to log (quantity and unit in the name)."""

    def read_prompts(self, examples: list[Mapping[str, Any]]) -> list[Prompt]:
        """The prompt of every row of the data set."""
        return [row["prompt"] for row in examples]

    def start_round(self, index: int) -> None:
        """Update the references; called once at the true start of round ``index``."""

    def round_summary(self, rows: list[Row]) -> dict[str, float]:
        """Metrics of a played round."""
        return {}

    # -- log-probabilities ------------------------------------------------------------------

    def score(self, groups: Sequence[Group]) -> list[list[float]]:
        """Log-probability of every response to the policy as it is now, nats."""
        return score_answers(
            self.policy,
            groups,
            pad_id=self.pad_id,
            temperature=self.config.temperature,
            batch_size=self.config.generation_batch_size,
        )

    def score_own(self, groups: Sequence[Group]) -> list[list[float]]:
        """`score` of responses that the policy as it is now has sampled: as it sampled them.

        In half precision a decoder rounds otherwise than a pass over whole responses does, by more
        than a step of training moves: they are scored again there.
        """
        if not self.sampler_tells or not all(c.logps for g in groups for c in g.completions):
            return self.score(groups)
        return [[math.fsum(c.logps) for c in group.completions] for group in groups]

    @property
    def sampler_tells(self) -> bool:
        """Whether log-probabilities that come with samples are those of the policy, to rounding."""
        sampler = self.sampler
        device = self.accelerator.device.type
        rounded = device != "cpu" and torch.get_float32_matmul_precision() != "highest"
        return (
            isinstance(sampler, TransformersSampler)
            and sampler.model is self.policy
            and sampler.config.temperature == self.config.temperature
            and self.accelerator.mixed_precision == "no"
            and not rounded
            and not tables_depend_on_length(self.policy)
            and {p.dtype for p in self.policy.parameters()} <= {torch.float32, torch.float64}
        )

    # -- rounds -----------------------------------------------------------------------------

    @property
    def oracle(self) -> Oracle:
        """Who judges."""
        assert self._oracle is not None  # noqa: S101 - checked at the start
        return self._oracle

    @property
    def config(self) -> GameConfig:
        """The options, with their type."""
        assert isinstance(self.args, GameConfig)  # noqa: S101 - for the type checker
        return self.args

    @property
    def steps_per_round(self) -> int:
        """Optimiser steps per round."""
        return int(self.state.max_steps) // self.config.num_rounds

    @property
    def round_index(self) -> int:
        """The round being played or trained, from 0."""
        return min(self.state.global_step // self.steps_per_round, self.config.num_rounds - 1)

    def round_file(self, index: int) -> Path:
        """Where round ``index`` (0-based) is written; the file's number counts from 1."""
        return self.folder / "rounds" / f"{self.method}-{index + 1:03d}.jsonl"

    def begin_round(self) -> None:
        """Play the coming round, or read it back, and show it to the data loader."""
        index = self.round_index
        if self.state.global_step % self.steps_per_round == 0:
            self.start_round(index)
            if self.config.reset_optimizer_each_round and self.optimizer is not None:
                self.optimizer.state.clear()
        # In the precision of the training: what is sampled and scored is what is trained.
        with self.accelerator.autocast(), self.references.gathered():
            rows = play_or_load(
                self.round_file(index),
                self.plan.prompts(index),
                self.config.chunk_prompts,
                lambda number, members: self.play_chunk(index, number, members),
                lambda done, total: self._progress("play", index + 1, done, total),
                self.team,
            )
        dataset = self.train_dataset
        assert isinstance(dataset, RoundDataset)  # noqa: S101 - for the type checker
        dataset.set_round(index, rows)
        if self.team.is_main:
            step = index * self.steps_per_round
            self.metrics.add("round", index + 1, step, self.round_summary(rows))

    def report_step(self) -> None:
        """Tell the progress callback about the optimiser step just made."""
        done = (self.state.global_step - 1) % self.steps_per_round + 1
        index = (self.state.global_step - 1) // self.steps_per_round
        self._progress("train", index + 1, done, self.steps_per_round)

    # -- hooks of transformers.Trainer ------------------------------------------------------

    def train(
        self,
        resume_from_checkpoint: str | bool | None = None,
        trial: Any = None,  # noqa: ANN401 - as in transformers
        ignore_keys_for_eval: list[str] | None = None,
    ) -> TrainOutput:
        """Play and train all rounds.

        Args:
            resume_from_checkpoint: True goes on from the newest checkpoint of this output
                directory, or from the beginning when there is none yet; or a folder.
            trial: as in transformers.
            ignore_keys_for_eval: as in transformers.

        Raises:
            RunDirectoryError: the output directory holds another run.
        """
        resume = bool(resume_from_checkpoint)
        self.team.together(lambda: self._claim(resume) if self.team.is_main else None)
        if resume_from_checkpoint is True:
            resume_from_checkpoint = self.last_checkpoint()
        if resume_from_checkpoint and self.team.is_main:
            state = TrainerState.load_from_json(
                str(Path(resume_from_checkpoint) / "trainer_state.json")
            )
            self.metrics.rewind(state.global_step)
        return super().train(resume_from_checkpoint or None, trial, ignore_keys_for_eval)

    def _claim(self, resume: bool) -> None:
        options = deciding_options(self.config, self.examples)
        path = self.checkpoints() / "options.json"
        claim(path, options, self.round_file(0), resume=resume)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor:
        """The subclass's loss of a batch of rows."""
        if return_outputs:
            raise ConfigError("game trainers are evaluated by playing; they have no eval loss")
        loss, metrics = self.batch_loss(model, inputs["rows"])
        for name, value in metrics.items():
            self._sums[name].append(value)
        return loss

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the means of the batch metrics; write everything to metrics.jsonl too."""
        logs = {**logs, **{name: sum(v) / len(v) for name, v in self._sums.items()}}
        self._sums.clear()
        if self.is_world_process_zero() and "loss" in logs:
            step = self.state.global_step
            self.metrics.add("step", (step - 1) // self.steps_per_round + 1, step, logs)
        super().log(logs, start_time)

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not estimated: a row holds no padded batch."""
        return 0

    def _get_train_sampler(self, *args: Any) -> IndexSampler[int]:  # noqa: ANN401
        # The order within a round is the plan's: a function of seed and round alone.
        return SequentialSampler(self.train_dataset)  # type: ignore[arg-type]

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> Any:  # noqa: ANN401 - transformers' own type
        """The chosen schedule, begun anew every round when the optimiser is."""
        if self.lr_scheduler is None and self.config.reset_optimizer_each_round:
            optimizer = self.optimizer if optimizer is None else optimizer
            assert optimizer is not None  # noqa: S101 - transformers makes it first
            per_round = num_training_steps // self.config.num_rounds
            schedule: Any = schedule_per_round(self.args, optimizer, per_round)
            self.lr_scheduler = schedule
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)
