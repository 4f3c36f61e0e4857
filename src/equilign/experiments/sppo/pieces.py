"""One method trained with one seed: its answers after every iteration, and what they cost.

A piece is finished when its file is there. What a stop leaves unfinished goes on from the last
iteration's checkpoint, with the answers that are already in their files.
"""

import json
import shutil
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from transformers import (
    Trainer,
    TrainerCallback,
    TrainerControl,
    TrainerState,
    TrainingArguments,
    set_seed,
)

from equilign.evaluation.callback import kl_nats
from equilign.experiments.held_out import KL_PROMPTS, HeldOut, Tell, quiet, start_logps
from equilign.experiments.piece_training import train_on
from equilign.experiments.sppo.contestants import COMMON, OWN
from equilign.experiments.sppo.scales import Scale
from equilign.files import read_jsonl, write_json
from equilign.methods import get_method
from equilign.models import SHIPPED, load_model, load_tokenizer
from equilign.rollout import pad_token
from equilign.runs import peak_memory_mb
from equilign.tasks.restaurant_panel import restaurant_panel

START = "start"
DRAWN_AGAIN = "start-again"
"""More answers of the start model: the best of its answers must not play those it was best of."""


class Setting(HeldOut[Scale]):
    """What all pieces of a run share."""


def player(method: str, number: int) -> str:
    """Name of a method's policy after iteration ``number``."""
    return f"{method}-{number}"


def answer_start(setting: Setting, seed: int, *, tell: Tell) -> None:
    """The start model's answers for one seed, two independent sets of them."""
    quiet()
    model, tokenizer = load_model(SHIPPED), load_tokenizer(SHIPPED)
    for number, name in enumerate((START, DRAWN_AGAIN)):
        setting.sample_answers(name, seed, model, tokenizer, setting.scale.best_of)
        tell(number + 1, 2)


def train_piece(
    setting: Setting, name: str, method: str, options: Mapping[str, float], seed: int, *, tell: Tell
) -> None:
    """Train one method with one seed and keep its answers after every iteration.

    Args:
        setting: what all pieces share.
        name: of the piece.
        method: in `equilign.methods`.
        options: strength and learning rate.
        seed: of prompts, answers and order.
        tell: called with finished iterations.
    """
    path = setting.piece_file(name, seed)
    if path.exists():
        return
    quiet()
    began = time.perf_counter()
    set_seed(seed)
    watcher = _Answers(setting, name, seed, tell)
    trainer = _trainer(setting, name, method, options, seed, watcher)
    folder = train_on(trainer)
    rounds = range(1, setting.scale.rounds + 1)
    write_json(
        path,
        {
            "name": name,
            "method": method,
            "options": dict(options),
            "seed": seed,
            "rounds": [_round(folder, method, number) for number in rounds],
            "kl_nats": [watcher.kl(number) for number in rounds],
            "seconds": time.perf_counter() - began,
            "peak_memory_mb": peak_memory_mb(),
        },
    )
    # Weights, optimiser states and references of 15 runs are gigabytes.
    shutil.rmtree(folder, ignore_errors=True)


def _trainer(
    setting: Setting,
    name: str,
    method: str,
    options: Mapping[str, float],
    seed: int,
    watcher: "_Answers",
) -> Trainer:
    scale = setting.scale
    trainer_class, config_class = get_method(method).load()
    args = config_class(
        output_dir=str(setting.folder / "training" / f"{name}-seed-{seed}"),
        num_rounds=scale.rounds,
        prompts_per_round=scale.prompts_per_round,
        num_generations=scale.generations,
        epochs_per_round=scale.epochs,
        max_completion_length=scale.max_tokens,
        per_device_train_batch_size=scale.batch_prompts,
        generation_batch_size=160,
        save_total_limit=1,
        logging_steps=1,
        seed=seed,
        disable_tqdm=True,
        use_cpu=True,
        **COMMON,
        **OWN[method],
        **options,
    )
    trainer: Trainer = trainer_class(
        load_model(SHIPPED),
        args,
        [{"prompt": p} for p in setting.train],
        restaurant_panel(),
        load_tokenizer(SHIPPED),
        callbacks=[watcher],
    )
    return trainer


class _Answers(TrainerCallback):
    """After every iteration: answers to the held-out prompts, and the distance from the start."""

    def __init__(self, setting: Setting, name: str, seed: int, tell: Tell) -> None:
        self.setting, self.name, self.seed, self.tell = setting, name, seed, tell

    def on_epoch_end(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        **kwargs: Any,  # noqa: ANN401 - signature of transformers
    ) -> None:
        """Sample and keep, unless that is done."""
        number = round(state.epoch or 0)
        scale, who = self.setting.scale, player(self.name, number)
        model, tokenizer = kwargs["model"], kwargs["processing_class"]
        count = scale.best_of if number == scale.rounds else scale.samples
        self.setting.sample_answers(who, self.seed, model, tokenizer, count)
        path = self._kl_file(number)
        if not path.exists():
            groups = self.setting.load_answers(who, self.seed, 1)[:KL_PROMPTS]
            pad = pad_token(tokenizer)
            found = kl_nats(model, start_logps(pad), groups, pad_id=pad, temperature=1.0)
            write_json(path, found.value)
        self.tell(number, scale.rounds)

    def kl(self, number: int) -> float:
        """KL to the start model after an iteration, nats per answer."""
        return float(json.loads(self._kl_file(number).read_text(encoding="utf-8")))

    def _kl_file(self, number: int) -> Path:
        answers = self.setting.answers_file(player(self.name, number), self.seed)
        return answers.with_suffix(".kl.json")


def _round(folder: Path, method: str, number: int) -> dict[str, Any]:
    """What an iteration played and cost, read from its file."""
    rows = read_jsonl(folder / "rounds" / f"{method}-{number:03d}.jsonl")
    distinct = [len(set(row["completions"])) for row in rows]
    metrics = read_jsonl(folder / "metrics.jsonl")
    losses = [m["loss"] for m in metrics if m["kind"] == "step" and m["round"] == number]
    cyclic = [m for m in metrics if m["kind"] == "round" and m["round"] == number]
    return {
        "prompts": len(rows),
        "samples": sum(len(row["completions"]) for row in rows),
        # Equal texts tie without being asked about.
        "verdicts": sum(d * (d - 1) for d in distinct),
        "trained_answers": sum(_trained(row) for row in rows),
        "steps": len(losses),
        "loss": float(np.mean(losses)),
        "tokens": float(np.mean([len(ids) for r in rows for ids in r["completion_ids"]])),
        "cyclic_prompts_share": cyclic[-1]["cyclic_prompts_share"],
    }


def _trained(row: Mapping[str, Any]) -> int:
    if "pairs" in row:
        return len({k for pair in row["pairs"] for k in pair})
    weights = row["loss_weights"]
    return sum(weights[k] > 0.0 for k in row["trained"])
