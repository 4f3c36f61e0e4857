"""Training one method of a run to its end, once, and keeping the model it ends with."""

import json
import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, Trainer, set_seed

from equilign.files import sync_folder, write_json
from equilign.trainers.team import Team


def seconds_file(folder: Path, name: str) -> Path:
    """The file that says that a method's model is there, and how long it took."""
    return folder / "models" / f"{name}.json"


def trained_seconds(folder: Path, name: str) -> float | None:
    """Seconds that training method ``name`` took; None if it is not finished."""
    path = seconds_file(folder, name)
    if not path.exists():
        return None
    return float(json.loads(path.read_text(encoding="utf-8"))["seconds"])


def train_once(
    folder: Path,
    name: str,
    seed: int,
    make_trainer: Callable[[], Trainer],
    write_card: Callable[[Path, float], None],
    team: Team,
) -> float:
    """Train from the newest checkpoint to the end and save ``models/NAME``, unless it is there.

    Args:
        folder: the run directory.
        name: the method.
        seed: of everything random in making the trainer (a new adapter, say).
        make_trainer: called if there is something left to train.
        write_card: puts the model card into a folder; told the seconds.
        team: the processes.

    Returns:
        Seconds of this call, or those on record.
    """
    known = trained_seconds(folder, name)
    if known is not None:
        return known
    began = time.perf_counter()
    set_seed(seed)
    trainer: Any = make_trainer()
    trainer.remove_callback(PrinterCallback)  # prints to stdout, which belongs to the result
    trainer.train(resume_from_checkpoint=True)
    target = folder / "models" / name
    aside = target.with_name(f".{name}.partial")
    if team.is_main:
        shutil.rmtree(aside, ignore_errors=True)
    team.wait()
    trainer.save_model(str(aside))
    team.wait()
    seconds = time.perf_counter() - began

    def finish() -> None:
        if team.is_main:
            write_card(aside, seconds)
            shutil.rmtree(target, ignore_errors=True)
            aside.rename(target)
            sync_folder(target.parent)
            write_json(seconds_file(folder, name), {"seconds": seconds})

    team.together(finish)
    return seconds
