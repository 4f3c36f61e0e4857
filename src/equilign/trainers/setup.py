"""What a game trainer derives from its options before it starts."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from hashlib import blake2b
from pathlib import Path
from typing import Any

from peft import PeftConfig, PeftModel, get_peft_model
from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase, TrainingArguments

from equilign.errors import ConfigError, ModelError, RunDirectoryError
from equilign.files import write_json
from equilign.models import load_model, load_tokenizer
from equilign.rollout import SamplingConfig
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


def tokenizer_of(
    model: str | nn.Module, tokenizer: PreTrainedTokenizerBase | None
) -> PreTrainedTokenizerBase:
    """The tokenizer given, or that of the model's folder or name.

    Raises:
        ConfigError: neither.
    """
    if tokenizer is not None:
        return tokenizer
    if isinstance(model, str):
        return load_tokenizer(model, allow_download=True)
    raise ConfigError("processing_class is missing: which tokenizer goes with the model?")


def prepare_policy(
    model: str | nn.Module, args: GameConfig, peft_config: PeftConfig | None
) -> nn.Module:
    """The module to train: loaded, wrapped into PEFT, and without dropout, as asked for.

    Raises:
        ConfigError: a PEFT configuration for a model that is wrapped already.
        ModelError: nothing to train, or weights that are partitioned.
    """
    policy: nn.Module = load_model(model, allow_download=True) if isinstance(model, str) else model
    if peft_config is not None:
        if isinstance(policy, PeftModel):
            raise ConfigError("the model is a PeftModel already: leave peft_config out")
        policy = get_peft_model(policy, peft_config)
    if not any(p.requires_grad for p in policy.parameters()):
        raise ModelError("the policy has no trainable weights: training would do nothing")
    if args.disable_dropout:
        remove_dropout(policy)
    return policy


def keep_rows(rows: list[Row]) -> dict[str, list[Row]]:
    """A batch is its rows: they are padded when they are scored."""
    return {"rows": rows}


def remove_dropout(model: nn.Module) -> None:
    """Set every dropout rate to zero, those that attention keeps for itself included."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0
    inner = model.get_base_model() if isinstance(model, PeftModel) else model
    config = inner.config if isinstance(inner, PreTrainedModel) else None
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


def deciding_options(args: GameConfig, examples: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """The options that decide what is played and trained, as plain values."""
    inherited = {f.name for f in dataclasses.fields(TrainingArguments)}
    ours = [f.name for f in dataclasses.fields(args) if f.name not in inherited]
    rows = json.dumps([dict(row) for row in examples], sort_keys=True, default=str)
    digest = blake2b(rows.encode(), digest_size=8).hexdigest()
    values = {name: vars(args)[name] for name in (*ours, *_DECIDING)}
    plain = {k: v if isinstance(v, int | float | None) else str(v) for k, v in values.items()}
    return {**plain, "data": f"{len(examples)} rows, {digest}"}


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
