"""What a game trainer derives from its options before it starts."""

import dataclasses
import json
from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from torch import nn
from transformers import PreTrainedModel, TrainingArguments

from equilign.errors import ConfigError, RunDirectoryError
from equilign.files import write_json
from equilign.rollout import Prompt, SamplingConfig
from equilign.trainers.config import GameConfig
from equilign.trainers.rounds import RoundPlan, Row


def sampling_config(args: GameConfig) -> SamplingConfig:
    """The sampling options of a trainer's configuration."""
    return SamplingConfig(
        max_new_tokens=args.max_completion_length,
        temperature=args.temperature,
        top_p=args.top_p,
        batch_size=args.generation_batch_size,
        max_prompt_tokens=args.max_prompt_length,
    )


def make_plan(num_prompts: int, args: GameConfig) -> RoundPlan:
    """The rounds of a data set of ``num_prompts``.

    Raises:
        ConfigError: too few prompts.
    """
    if num_prompts == 0:
        raise ConfigError("train_dataset has no prompts")
    per_round = args.prompts_per_round or num_prompts // args.num_rounds
    if per_round == 0:
        raise ConfigError(
            f"{num_prompts} prompts cannot be shared among {args.num_rounds} rounds; "
            "set prompts_per_round, or give more prompts"
        )
    return RoundPlan(num_prompts, per_round, args.epochs_per_round, args.seed)


def keep_rows(rows: list[Row]) -> dict[str, list[Row]]:
    """A batch is its rows: they are padded when they are scored."""
    return {"rows": rows}


def remove_dropout(model: nn.Module) -> None:
    """Set every dropout rate to zero, those that attention keeps for itself included."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    config = model.config if isinstance(model, PreTrainedModel) else None
    if config is not None and "attention_dropout" in config.to_dict():
        for module in model.modules():  # attention reads its own copy of the rate
            if isinstance(vars(module).get("attention_dropout"), float):
                module.attention_dropout = 0.0  # type: ignore[assignment]


_DECIDING = (
    "seed",
    "per_device_train_batch_size",
    "gradient_accumulation_steps",
    "learning_rate",
    "lr_scheduler_type",
    "optim",
    "weight_decay",
    "max_grad_norm",
    "warmup_steps",
)


def deciding_options(args: GameConfig, prompts: Sequence[Prompt]) -> dict[str, Any]:
    """The options that decide what is played and trained, as plain values."""
    inherited = {f.name for f in dataclasses.fields(TrainingArguments)}
    ours = [f.name for f in dataclasses.fields(args) if f.name not in inherited]
    digest = blake2b(json.dumps(list(prompts)).encode(), digest_size=8).hexdigest()
    values = {name: vars(args)[name] for name in (*ours, *_DECIDING)}
    plain = {k: v if isinstance(v, int | float | None) else str(v) for k, v in values.items()}
    return {**plain, "prompts": f"{len(prompts)} prompts, {digest}"}


def claim(path: Path, options: dict[str, Any], rounds: Path, *, resume: bool) -> None:
    """Make sure that rounds on disk are this run's: stale ones would be trained on.

    Args:
        path: where the options of the run are kept.
        options: of this run.
        rounds: the file of its first round.
        resume: whether to go on with what is there.

    Raises:
        RunDirectoryError: another run is there, or this one's options have changed.
    """
    if path.exists():
        held = json.loads(path.read_text(encoding="utf-8"))
        if not resume:
            raise RunDirectoryError(
                f"{path.parent} already holds a run; train(resume_from_checkpoint=True) goes on "
                "with it, another output_dir starts a new one"
            )
        keys = [k for k in {**held, **options} if held.get(k) != options.get(k)]
        if keys:
            changed = "; ".join(f"{k}: {held.get(k)!r} there, {options.get(k)!r} now" for k in keys)
            raise RunDirectoryError(
                f"{path.parent} holds a run with other options ({changed}); "
                "give the same ones, or another output_dir"
            )
    elif rounds.exists():
        raise RunDirectoryError(
            f"{rounds} is of a run that is not this one's; choose another output_dir"
        )
    else:
        write_json(path, options)
