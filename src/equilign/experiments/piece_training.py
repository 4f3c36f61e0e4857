"""Training a piece: how far it is, and weights that are whole or not there."""

import shutil
from pathlib import Path
from typing import Any

from transformers import (
    PrinterCallback,
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
)

from equilign.experiments.held_out import Tell


class RoundTeller(TrainerCallback):
    """Says after every round how far it is.

    Args:
        rounds: of the training.
        tell: whom.
    """

    def __init__(self, rounds: int, tell: Tell) -> None:
        self.rounds, self.tell = rounds, tell

    def on_epoch_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ANN401 - signature of transformers
    ) -> None:
        """Say it."""
        self.tell(round(state.epoch or 0), self.rounds)


def train_on(trainer: Trainer) -> Path:
    """Train from the last checkpoint on; returns the folder of rounds, metrics, checkpoints."""
    trainer.remove_callback(PrinterCallback)  # prints to stdout, which belongs to the result
    trainer.train(resume_from_checkpoint=True)
    return Path(str(trainer.args.output_dir))


def save_whole(trainer: Trainer, folder: Path) -> None:
    """The weights, whole or not there."""
    partial = folder.with_name(f"{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    trainer.save_model(str(partial))
    shutil.rmtree(folder, ignore_errors=True)
    partial.rename(folder)
