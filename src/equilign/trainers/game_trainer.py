"""The trainer base: rounds of sample, compare, train, on `transformers.Trainer`.

One epoch of the underlying loop is one round. At its start the round is played (or read from
its file, after a crash); its rows are then trained on like any data set. Subclasses say how a
chunk of prompts is played and what the loss of a batch of rows is.
"""

import shutil
from abc import abstractmethod
from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR
from torch.utils.data import Sampler as IndexSampler
from torch.utils.data import SequentialSampler
from transformers import (
    PreTrainedTokenizerBase,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    get_scheduler,
)
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR, TrainOutput, get_last_checkpoint

from equilign.errors import ConfigError, ModelError
from equilign.files import sync_folder
from equilign.oracles import Oracle
from equilign.rollout import Prompt, Sampler, TransformersSampler, pad_token
from equilign.trainers.config import GameConfig
from equilign.trainers.metrics import MetricsFile
from equilign.trainers.references import References
from equilign.trainers.rounds import RoundDataset, Row, play_or_load
from equilign.trainers.setup import (
    claim,
    deciding_options,
    keep_rows,
    make_plan,
    remove_dropout,
    sampling_config,
)

Progress = Callable[[str, int, int, int], None]
"""``(stage, round, done, total)``; rounds count from 1, and 0 is before the first."""

_PARTIAL = ".partial"


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


class GameTrainer(Trainer):
    """Rounds of play on `transformers.Trainer`; subclass it per family of rules.

    Layout under ``args.output_dir``: ``rounds/METHOD-001.jsonl`` (what was played),
    ``checkpoints/METHOD/checkpoint-N`` (each whole, or not there), ``metrics.jsonl``.

    Args:
        model: the policy; a module, or a path or name for `AutoModelForCausalLM`.
        args: options.
        train_dataset: rows with a ``prompt`` (text or chat messages), TRL's prompt-only format.
        oracle: who judges.
        processing_class: the tokenizer.
        sampler: who answers; the model itself by default.
        callbacks: as in transformers.
        progress: called while rounds are played and trained.

    Raises:
        ConfigError: the data set is too small for the options, or there are several processes
            (rounds are played by one so far).
        ModelError: no trainable weights.
    """

    method = "game"
    # The loss below is a mean over the micro-batch: transformers must divide it by the number of
    # accumulation steps.
    loss_is_scaled_for_ga = False

    def __init__(  # noqa: PLR0913 - the constructor that transformers' users know
        self,
        model: str | nn.Module,
        args: GameConfig,
        train_dataset: Sequence[Mapping[str, Any]],
        oracle: Oracle,
        processing_class: PreTrainedTokenizerBase,
        *,
        sampler: Sampler | None = None,
        callbacks: list[TrainerCallback] | None = None,
        progress: Progress | None = None,
    ) -> None:
        if isinstance(model, str):
            from equilign.models import load_model  # the loader is not needed otherwise

            model = load_model(model, allow_download=True)
        if args.world_size > 1:
            raise ConfigError(
                f"{args.world_size} processes: rounds are played by a single process so far; "
                "start without a launcher"
            )
        if not any(p.requires_grad for p in model.parameters()):
            raise ModelError("the policy has no trainable weights: training would do nothing")
        if args.disable_dropout:
            remove_dropout(model)
        self.prompts: list[Prompt] = [row["prompt"] for row in train_dataset]
        self.plan = make_plan(len(self.prompts), args)
        self.oracle = oracle
        self.references = References(model)
        self.folder = Path(str(args.output_dir))
        self.policy: nn.Module = model
        self.pad_id = pad_token(processing_class)
        self.metrics = MetricsFile(self.folder / "metrics.jsonl", self.method)
        self.sampler = sampler or TransformersSampler(
            model,  # type: ignore[arg-type]
            processing_class,
            sampling_config(args),
        )
        self._progress = progress or (lambda stage, index, done, total: None)
        self._sums: dict[str, list[float]] = defaultdict(list)
        super().__init__(
            model=model,
            args=args,
            data_collator=keep_rows,
            train_dataset=RoundDataset(self.plan),
            processing_class=processing_class,
            callbacks=[_RoundStart(self), *(callbacks or [])],
        )

    # -- what a subclass says ---------------------------------------------------------------

    @abstractmethod
    def play_chunk(self, index: int, number: int, members: list[int]) -> list[Row]:
        """Play prompts ``members`` of round ``index`` (0-based): sample, compare, targets."""

    @abstractmethod
    def batch_loss(self, model: nn.Module, rows: list[Row]) -> tuple[Tensor, dict[str, float]]:
        """Mean loss of a batch of rows, and metrics to log (quantity and unit in the name)."""

    def start_round(self, index: int) -> None:
        """Update the references; called once at the true start of round ``index``."""

    def round_summary(self, rows: list[Row]) -> dict[str, float]:
        """Metrics of a played round."""
        return {}

    # -- rounds -----------------------------------------------------------------------------

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
        rows = play_or_load(
            self.round_file(index),
            self.plan.prompts(index),
            self.config.chunk_prompts,
            lambda number, members: self.play_chunk(index, number, members),
            lambda done, total: self._progress("play", index + 1, done, total),
        )
        dataset = self.train_dataset
        assert isinstance(dataset, RoundDataset)  # noqa: S101 - for the type checker
        dataset.set_round(index, rows)
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
        claim(
            self._checkpoints() / "options.json",
            deciding_options(self.config, self.prompts),
            self.round_file(0),
            resume=bool(resume_from_checkpoint),
        )
        if resume_from_checkpoint is True:
            resume_from_checkpoint = self.last_checkpoint()
        if resume_from_checkpoint:
            state = TrainerState.load_from_json(
                str(Path(resume_from_checkpoint) / "trainer_state.json")
            )
            self.metrics.rewind(state.global_step)
        return super().train(resume_from_checkpoint or None, trial, ignore_keys_for_eval)

    def last_checkpoint(self) -> str | None:
        """The newest whole checkpoint of this run."""
        folder = self._checkpoints()
        if not folder.exists():
            return None
        found = get_last_checkpoint(str(folder))  # type: ignore[no-untyped-call]
        return None if found is None else str(found)

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
            per_round = num_training_steps // self.config.num_rounds
            optimizer = self.optimizer if optimizer is None else optimizer
            assert optimizer is not None  # noqa: S101 - transformers makes it first
            extra = self.args.lr_scheduler_kwargs
            base = get_scheduler(
                self.args.lr_scheduler_type,
                optimizer=optimizer,
                num_warmup_steps=self.args.get_warmup_steps(per_round),
                num_training_steps=per_round,
                scheduler_specific_kwargs=extra if isinstance(extra, dict) else None,
            )
            if isinstance(base, LambdaLR):
                shape = base.lr_lambdas[0]
                base = LambdaLR(optimizer, lambda step: shape(step % per_round))
            self.lr_scheduler = base
            self._created_lr_scheduler = True
        return super().create_scheduler(num_training_steps, optimizer)

    # -- checkpoints: whole or not there ------------------------------------------------------

    def _checkpoints(self) -> Path:
        return self.folder / "checkpoints" / self.method

    def _get_output_dir(self, trial: Any) -> str:  # noqa: ANN401 - transformers' own type
        return str(self._checkpoints() / _PARTIAL)

    def _save_checkpoint(self, model: nn.Module, trial: Any) -> None:  # noqa: ANN401
        # Written aside and renamed: a kill leaves the previous checkpoint as the newest one.
        partial = self._checkpoints() / _PARTIAL
        name = f"{PREFIX_CHECKPOINT_DIR}-{self.state.global_step}"
        if self.is_world_process_zero():
            shutil.rmtree(partial, ignore_errors=True)
        self.accelerator.wait_for_everyone()
        super()._save_checkpoint(model, trial)
        self.accelerator.wait_for_everyone()
        if self.is_world_process_zero():
            self.references.save(partial / name / "references")
            final = self._checkpoints() / name
            if final.exists():
                shutil.rmtree(final)
            (partial / name).rename(final)
            shutil.rmtree(partial, ignore_errors=True)
            sync_folder(self._checkpoints())
            self._rotate()

    def _rotate(self) -> None:
        limit = self.args.save_total_limit
        if limit:
            found = self._checkpoints().glob(f"{PREFIX_CHECKPOINT_DIR}-*")
            for old in sorted(found, key=lambda p: int(p.name.split("-")[1]))[:-limit]:
                shutil.rmtree(old, ignore_errors=True)

    def _load_from_checkpoint(
        self, resume_from_checkpoint: str, model: nn.Module | None = None
    ) -> None:
        super()._load_from_checkpoint(resume_from_checkpoint, model)
        self.references.load(Path(resume_from_checkpoint) / "references")
