"""What a game trainer derives from its options before it starts."""

from torch import nn
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from equilign.errors import ConfigError
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


def pad_token(tokenizer: PreTrainedTokenizerBase) -> int:
    """A token to pad with; always masked."""
    pad = tokenizer.pad_token_id
    return 0 if pad is None else int(pad)


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
