"""Fitting one judge: train, keep the best epoch, set the scale, save what `load_judge` reads."""

import math
import shutil
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from equilign.errors import ModelError
from equilign.files import explain_disk_full
from equilign.fitting.bases import ScratchSize, last_layer, make_base, with_adapter
from equilign.fitting.config import SCRATCH, FitConfig
from equilign.fitting.measures import best_factor
from equilign.fitting.split import Split
from equilign.fitting.trainer import (
    LOSSES,
    JudgeTrainer,
    PairCollator,
    PairDataset,
    Progress,
    callbacks,
    last_whole_checkpoint,
    training_arguments,
)
from equilign.formats import PreferencePair
from equilign.oracles.general_preference import JUDGES, load_judge
from equilign.oracles.judge_models import JudgeModel, length_limit, padding_id
from equilign.oracles.judge_text import (
    CONFIG_NAME,
    JudgeConfig,
    JudgeText,
    save_judge_config,
)
from equilign.trainers.metrics import MetricsFile

SCRATCH_LENGTH = 512
START = 0.1
"""Root mean square of the margins that a new judge starts from, in logits."""


@dataclass(frozen=True)
class Places:
    """Where a fit writes.

    Attributes:
        judge: the finished judge.
        checkpoints: while it trains.
        metrics: ``metrics.jsonl``.
    """

    judge: Path
    checkpoints: Path
    metrics: Path


def fit_judge(
    config: FitConfig,
    kind: str,
    split: Split,
    places: Places,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    size: ScratchSize | None = None,
) -> JudgeModel:
    """A judge fitted to ``split.train``; ``split.held_out`` is not looked at.

    A finished judge in ``places.judge`` is loaded and not fitted again; a broken-off training goes
    on from its last checkpoint when ``resume``.

    Args:
        config: the options; `FitConfig.kind` is not used, ``kind`` is.
        kind: of judge.
        split: pairs to fit on, and to stop and set the scale on.
        places: where to write.
        resume: whether to go on from a checkpoint.
        progress: told about every optimiser step.
        size: of a model from scratch.

    Raises:
        ModelError: the base model cannot be loaded, or does not fit the options.
        DiskFullError: no space left.
    """
    if not (places.judge / CONFIG_NAME).is_file():
        with explain_disk_full(places.judge.parent):
            _fit(config, kind, split, places, resume, progress, size or ScratchSize())
    return load_judge(places.judge)


def _fit(
    config: FitConfig,
    kind: str,
    split: Split,
    places: Places,
    resume: bool,
    progress: Progress | None,
    size: ScratchSize,
) -> None:
    base = make_base(config, kind, split.train, size)
    model, tokenizer = base.model, base.tokenizer
    wanted = config.max_length or (SCRATCH_LENGTH if config.base == SCRATCH else None)
    judge_config = JudgeConfig(kind, config.prompt_format, max_length=wanted)
    limit = length_limit(model, tokenizer, wanted)
    text = JudgeText(tokenizer, judge_config, limit)
    judge_config = replace(judge_config, prompt_format=text.prompt_format, max_length=limit)
    metrics = MetricsFile(places.metrics, kind)
    train = PairDataset(split.train, text, kind)
    collate = PairCollator(padding_id(tokenizer))
    args = training_arguments(config, places.checkpoints, math.ceil(len(train) / config.batch_size))
    if base.new_head:
        model.to(args.device)  # type: ignore[arg-type]
        quieten(model, kind, config.outputs(kind), collate([train[i] for i in _some(len(train))]))
    trainer = JudgeTrainer(
        kind,
        model=with_adapter(model, config) if config.lora else model,
        args=args,
        data_collator=collate,
        train_dataset=train,
        eval_dataset=PairDataset(split.validation, text, kind),
        callbacks=callbacks(config, metrics, kind, progress),
    )
    start = last_whole_checkpoint(places.checkpoints) if resume else None
    if start is None:
        shutil.rmtree(places.checkpoints, ignore_errors=True)
    step = 0 if start is None else int(start.name.rpartition("-")[2])
    metrics.rewind(step)
    trainer.train(resume_from_checkpoint=None if start is None else str(start))
    _check_finite(trainer)
    if trainer.is_world_process_zero():
        trained = trainer.accelerator.unwrap_model(trainer.model)
        _save(config, trained, tokenizer, judge_config, split.validation, places.judge)
        shutil.rmtree(places.checkpoints, ignore_errors=True)
    trainer.accelerator.wait_for_everyone()


def _some(number: int, most: int = 16) -> range:
    """At most ``most`` places, evenly spaced."""
    return range(0, number, max(1, -(-number // most)))


@torch.no_grad()
def quieten(model: PreTrainedModel, kind: str, outputs: int, batch: dict[str, Tensor]) -> None:
    """Shrink a random last layer until the margins that it gives are small, `START` on average.

    What a random head says about an answer is noise, and where the data say nothing, training
    would never remove it. Not to zero: there a general judge has no gradient.

    Args:
        model: to be changed.
        kind: of judge.
        outputs: of its last layer.
        batch: pairs to measure the margins on.
    """
    model.eval()  # type: ignore[no-untyped-call]
    labels = batch["labels"].to(model.device)
    texts = {k: v.to(model.device) for k, v in batch.items() if k != "labels"}
    values = model(**texts).logits.float()
    _, margins = LOSSES[kind](values[: len(labels)], values[len(labels) :], labels)
    size = float(margins.square().mean().sqrt())
    if size > START:
        power = 0.5 if kind == "general" else 1.0  # of a general judge margins are products
        for parameter in last_layer(model, outputs).parameters():
            parameter.mul_((START / size) ** power)


def _check_finite(trainer: JudgeTrainer) -> None:
    losses = [row["eval_log_loss"] for row in trainer.state.log_history if "eval_log_loss" in row]
    if not losses or not np.isfinite(losses).any():
        raise ModelError(
            "training diverged: the validation loss is not a number. Use a smaller --learning-rate"
        )


def _save(
    config: FitConfig,
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    judge_config: JudgeConfig,
    validation: tuple[PreferencePair, ...],
    folder: Path,
) -> None:
    if config.lora:
        model = model.merge_and_unload()  # type: ignore[operator]
    if config.dtype == "bfloat16":
        model = model.bfloat16()
    judge = JUDGES[judge_config.kind](model, tokenizer, judge_config)
    margins = pair_margins(judge, validation)
    factor = best_factor(margins, np.array([p.chosen_prob for p in validation]))
    scale = 1.0 / factor if judge_config.kind == "general" else factor
    folder.mkdir(parents=True, exist_ok=True)
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    save_judge_config(folder, replace(judge_config, scale=scale))  # last: it says "finished"


def pair_margins(judge: JudgeModel, pairs: tuple[PreferencePair, ...]) -> np.ndarray:
    """Logit of Pr(chosen beats rejected) of each pair."""
    return judge.margins(
        [p.prompt for p in pairs], [p.chosen for p in pairs], [p.rejected for p in pairs]
    )
