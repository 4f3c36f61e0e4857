"""Training one judge on `transformers.Trainer`."""

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.data import Dataset
from transformers import (
    EarlyStoppingCallback,
    EvalPrediction,
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from equilign.fitting.config import FitConfig
from equilign.fitting.measures import best_factor, log_losses, right_answers
from equilign.formats import PreferencePair
from equilign.losses.judges import both_orders_loss, preference_loss, skew_margin
from equilign.oracles.judge_models import padded
from equilign.oracles.judge_text import Encoded, JudgeText
from equilign.trainers.metrics import MetricsFile

Progress = Callable[[str, int, int, int], None]
"""``progress(stage, number, done, total)``."""

Loss = Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]
"""Outputs for the chosen, for the rejected answers, and labels -> losses and margins per pair."""


def reward_loss(chosen: Tensor, rejected: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Of `equilign.oracles.judge_models.RewardModel`."""
    margin = chosen[:, 0] - rejected[:, 0]
    return preference_loss(margin, labels), margin


def pairwise_loss(chosen: Tensor, rejected: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Of `equilign.oracles.judge_models.PairwiseModel`; the sides are the two orders."""
    forward, backward = chosen[:, 0], rejected[:, 0]
    return both_orders_loss(forward, backward, labels), (forward - backward) / 2.0


def general_loss(chosen: Tensor, rejected: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Of `equilign.oracles.general_preference.GeneralPreferenceModel`."""
    margin = skew_margin(chosen, rejected)
    return preference_loss(margin, labels), margin


LOSSES: dict[str, Loss] = {
    "reward": reward_loss,
    "pairwise": pairwise_loss,
    "general": general_loss,
}
"""Kind of judge -> its loss."""


@dataclass(frozen=True)
class EncodedPair:
    """One pair as the model reads it.

    Attributes:
        chosen: the prompt with the chosen answer; with (chosen, rejected) for a pairwise judge.
        rejected: with the rejected one; with (rejected, chosen) for a pairwise judge.
        label: Pr(chosen beats rejected).
    """

    chosen: Encoded
    rejected: Encoded
    label: float


class PairDataset(Dataset[EncodedPair]):
    """Pairs, tokenised once."""

    def __init__(self, pairs: Sequence[PreferencePair], text: JudgeText, kind: str) -> None:
        prompts = [p.prompt for p in pairs]
        first: list[tuple[str, ...]] = [(p.chosen,) for p in pairs]
        second: list[tuple[str, ...]] = [(p.rejected,) for p in pairs]
        if kind == "pairwise":
            first = [(p.chosen, p.rejected) for p in pairs]
            second = [(p.rejected, p.chosen) for p in pairs]
        sides = zip(text.encode(prompts, first), text.encode(prompts, second), pairs, strict=True)
        self._rows = [EncodedPair(a, b, p.chosen_prob) for a, b, p in sides]

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: int) -> EncodedPair:
        return self._rows[index]


@dataclass(frozen=True)
class PairCollator:
    """Both sides of all pairs as one padded batch: the chosen ones, then the rejected ones."""

    pad_id: int

    def __call__(self, rows: Sequence[EncodedPair]) -> dict[str, Tensor]:
        """``input_ids`` and so on of ``2 n`` texts, and ``labels`` of ``n`` pairs."""
        texts = [*(row.chosen for row in rows), *(row.rejected for row in rows)]
        labels = torch.tensor([row.label for row in rows], dtype=torch.float32)
        return {**padded(texts, self.pad_id), "labels": labels}


class JudgeTrainer(Trainer):
    """`transformers.Trainer` on pairs; evaluation reports log-loss and accuracy.

    Args:
        kind: of judge.
        options: of `transformers.Trainer`.
    """

    # The loss is a mean over the pairs of a micro-batch; transformers divides it further.
    loss_is_scaled_for_ga = False

    def __init__(self, kind: str, **options: Any) -> None:  # noqa: ANN401
        super().__init__(compute_metrics=_metrics, **options)
        self._loss = LOSSES[kind]
        self.model_accepts_loss_kwargs = False
        self.can_return_loss = True
        self.remove_callback(PrinterCallback)  # stdout is for the result

    def _losses(self, model: nn.Module, inputs: Mapping[str, Tensor]) -> tuple[Tensor, Tensor]:
        texts = {k: v for k, v in inputs.items() if k != "labels"}
        labels = inputs["labels"]
        outputs = model(**texts).logits.float()
        return self._loss(outputs[: len(labels)], outputs[len(labels) :], labels)

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Any:  # noqa: ANN401 - a loss, or a loss with margins
        """Mean over the pairs of the batch, nats."""
        losses, margins = self._losses(model, inputs)
        return (losses.mean(), {"margins": margins}) if return_outputs else losses.mean()

    def prediction_step(
        self,
        model: nn.Module,
        inputs: dict[str, Any],
        prediction_loss_only: bool,
        ignore_keys: list[str] | None = None,
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        """Loss, margins and labels of a batch of pairs."""
        inputs = self._prepare_inputs(inputs)
        with torch.no_grad():
            losses, margins = self._losses(model, inputs)
        return losses.mean(), margins, inputs["labels"]

    def floating_point_ops(self, inputs: dict[str, Any]) -> int:
        """Not estimated: a batch has twice as many texts as labels."""
        return 0


def _metrics(found: EvalPrediction) -> dict[str, float]:
    margins, labels = np.asarray(found.predictions), np.asarray(found.label_ids)
    if not np.isfinite(margins).all():
        return {"log_loss": np.inf, "scaled_log_loss": np.inf, "accuracy": 0.5}
    right = right_answers(margins, labels)
    decided = np.isfinite(right)
    scaled = best_factor(margins, labels) * margins
    return {
        # Over all pairs, where transformers' own loss is a mean of batch means.
        "log_loss": float(log_losses(margins, labels).mean()),
        # What the finished judge would have: its scale is set at the end, see `fit`.
        "scaled_log_loss": float(log_losses(scaled, labels).mean()),
        "accuracy": float(right[decided].mean()) if decided.any() else 0.5,
    }


class _Report(TrainerCallback):
    """Rows of metrics.jsonl, and progress."""

    def __init__(self, metrics: MetricsFile, kind: str, progress: Progress | None) -> None:
        self._metrics, self._kind, self._progress = metrics, kind, progress

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, Any] | None = None,
        **_: Any,  # noqa: ANN401 - as transformers calls it
    ) -> None:
        if not state.is_world_process_zero or logs is None:
            return
        kind = "validation" if "eval_log_loss" in logs else "step" if "loss" in logs else None
        if kind is not None:
            values = {k.removeprefix("eval_"): v for k, v in logs.items()}
            self._metrics.add(kind, round(state.epoch or 0), state.global_step, values)

    def on_step_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **_: Any,  # noqa: ANN401 - as transformers calls it
    ) -> None:
        if self._progress is not None:
            self._progress(f"fitting {self._kind}", 0, state.global_step, state.max_steps)


def training_arguments(config: FitConfig, folder: Path, steps_per_epoch: int) -> TrainingArguments:
    """Options for `transformers.Trainer`; one evaluation and one checkpoint per epoch."""
    epochs, rate, decay = config.schedule()
    micro = config.micro_batch_size or config.batch_size
    return TrainingArguments(
        output_dir=str(folder),
        num_train_epochs=epochs,
        learning_rate=rate,
        weight_decay=decay,
        per_device_train_batch_size=micro,
        per_device_eval_batch_size=micro,
        gradient_accumulation_steps=config.batch_size // micro,
        warmup_steps=epochs * steps_per_epoch // 20,
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=2,
        load_best_model_at_end=True,
        metric_for_best_model="scaled_log_loss",
        greater_is_better=False,
        restore_callback_states_from_checkpoint=True,
        logging_steps=max(1, steps_per_epoch // 4),
        label_names=["labels"],
        remove_unused_columns=False,
        bf16=config.dtype == "bfloat16",
        seed=config.seed,
        report_to=[],
        disable_tqdm=True,
        dataloader_pin_memory=torch.cuda.is_available(),
    )


def last_whole_checkpoint(folder: Path) -> Path | None:
    """The newest checkpoint that was written to its end; torn ones are removed."""
    whole = []
    for found in folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"):
        try:  # the state is what transformers writes last
            json.loads((found / "trainer_state.json").read_text(encoding="utf-8"))
            whole.append(found)
        except (OSError, ValueError):
            shutil.rmtree(found, ignore_errors=True)
    return max(whole, key=lambda path: int(path.name.rpartition("-")[2]), default=None)


def callbacks(
    config: FitConfig, metrics: MetricsFile, kind: str, progress: Progress | None
) -> list[TrainerCallback]:
    """Early stopping, metrics and progress."""
    return [EarlyStoppingCallback(config.patience), _Report(metrics, kind, progress)]
