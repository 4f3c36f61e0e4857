"""The data of `equilign train`: rows to train on, and held-out prompts to compare on."""

import json
import logging
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from equilign.errors import ConfigError, DataError
from equilign.experiments.train_config import SHIPPED, STORIES, DataConfig, TrainConfig, resolve
from equilign.formats import (
    Prompt,
    Rows,
    as_messages,
    load_rows,
    preference_pairs,
    preference_rows,
    prompts_only,
)
from equilign.tasks.prompts import restaurant_prompts
from equilign.tasks.stories import story_prompts

_SHARE = 0.1
_LOG = logging.getLogger("equilign")

READY_MADE: Mapping[str, Callable[[str], list[Prompt]]] = {
    SHIPPED: restaurant_prompts,
    STORIES: story_prompts,
}
"""Prompts of the package by name; called with ``align`` or ``evaluate``."""


@dataclass(frozen=True)
class TrainData:
    """What a method is trained on and compared on.

    Attributes:
        rows: prompt-only rows, or preference rows in TRL's columns.
        held_out: distinct prompts that are not trained on; empty without evaluation.
        description: where both are from, in words.
    """

    rows: list[dict[str, Any]]
    held_out: list[Prompt]
    description: str


def load_train_data(
    config: TrainConfig, data_format: str, seed: int, *, compare: bool
) -> TrainData:
    """Read the data section.

    Args:
        config: the configuration.
        data_format: ``prompts`` or ``pairs``, what the method learns from.
        seed: decides which prompts are held out, where a share of them is.
        compare: whether there is a judge to compare with the start model.

    Raises:
        DataError: a file is unreadable or malformed, or there are too few prompts.
        ConfigError: held-out prompts are missing.
    """
    data = config.data
    rows = _read(config, data.train, data.split, data_format)
    if data.chat:
        rows = [_chat(row) for row in rows]
    if not compare or config.evaluation.num_samples == 0 or data.eval == 0.0:
        return TrainData(rows, [], _described(data, len(rows), 0))
    rows, held_out = _held_out(config, rows, seed)
    if config.evaluation.max_prompts is not None:
        held_out = held_out[: config.evaluation.max_prompts]
    return TrainData(rows, held_out, _described(data, len(rows), len(held_out)))


def _files(value: str | list[str]) -> list[str]:
    return [value] if isinstance(value, str) else value


def _described(data: DataConfig, rows: int, held_out: int) -> str:
    return f"{', '.join(_files(data.train))}: {rows} rows; {held_out} held-out prompts"


def _read(
    config: TrainConfig, files: str | list[str], split: str, data_format: str
) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = []
    for name in _files(files):
        if name in READY_MADE:
            prompts = [{"prompt": p} for p in READY_MADE[name]("align")]
            raw = Rows(prompts, f"the shipped {'prompts' if name == SHIPPED else name}")
        else:
            raw = load_rows(resolve(config.base_dir, name), split)
        found += (
            preference_rows(preference_pairs(raw)) if data_format == "pairs" else prompts_only(raw)
        )
    return found


def _chat(row: dict[str, Any]) -> dict[str, Any]:
    """Text as chat messages, the answers of a pair included."""
    if not isinstance(row["prompt"], str):
        return row
    if "chosen" in row:
        return preference_rows(preference_pairs([row]), conversational=True)[0]
    return {**row, "prompt": as_messages(row["prompt"])}


def _key(prompt: Prompt) -> str:
    return json.dumps(prompt, sort_keys=True)


def _distinct(prompts: Sequence[Prompt]) -> list[Prompt]:
    return list({_key(p): p for p in prompts}.values())


def _held_out(
    config: TrainConfig, rows: list[dict[str, Any]], seed: int
) -> tuple[list[dict[str, Any]], list[Prompt]]:
    data = config.data
    prompts = _distinct([row["prompt"] for row in rows])
    if data.eval is None and isinstance(data.train, str) and data.train in READY_MADE:
        return rows, READY_MADE[data.train]("evaluate")
    if isinstance(data.eval, str | list):
        found = _eval_prompts(config, data.eval)
        if both := {_key(p) for p in found} & {_key(p) for p in prompts}:
            _LOG.warning(
                "%d of %d evaluation prompts are also trained on: win rates on them say little "
                "about new prompts",
                len(both),
                len(found),
            )
        return rows, found
    share = _SHARE if data.eval is None else data.eval
    count = max(1, round(share * len(prompts)))
    if count >= len(prompts):
        raise DataError(
            f"{', '.join(_files(data.train))}: {len(prompts)} distinct prompts are too few to hold "
            f"a share of {share} out; give data.eval, or evaluation.num_samples: 0"
        )
    order = list(prompts)
    random.Random(f"held out {seed}").shuffle(order)
    chosen = {_key(p) for p in order[:count]}
    return (
        [row for row in rows if _key(row["prompt"]) not in chosen],
        [p for p in prompts if _key(p) in chosen],
    )


def _eval_prompts(config: TrainConfig, files: str | list[str]) -> list[Prompt]:
    found: list[Prompt] = []
    for name in _files(files):
        if name in READY_MADE:
            found += READY_MADE[name]("evaluate")
            continue
        path = resolve(config.base_dir, name)
        rows = load_rows(path, config.data.eval_split)
        found += [row["prompt"] for row in prompts_only(rows)]
    if config.data.chat:
        found = [as_messages(p) for p in found]
    if not found:
        raise ConfigError("data.eval names no file; leave it out, or name one")
    return _distinct(found)
