"""Prompt files: JSON lines with a ``prompt``, TRL's prompt-only format."""

import json
from collections.abc import Callable
from importlib import resources
from pathlib import Path

from equilign.errors import ConfigError, DataError
from equilign.rollout.types import Prompt, prompt_text
from equilign.tasks.restaurants import parse_attributes


def _check(value: object) -> Prompt:
    if isinstance(value, str):
        if not value.strip():
            raise ValueError('"prompt" is empty')
        return value
    if not isinstance(value, list) or not value:
        raise ValueError('"prompt" must be text or a list of chat messages')
    for message in value:
        keys = {"role", "content"}
        if not isinstance(message, dict) or not keys <= message.keys():
            raise ValueError('every chat message needs "role" and "content"')
        if not all(isinstance(message[k], str) for k in keys):
            raise ValueError('"role" and "content" of a chat message must be text')
    return value


def as_chat(prompt: Prompt) -> Prompt:
    """A text prompt as one user message; messages stay."""
    return [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt


def check_attribute_list(prompt: Prompt) -> None:
    """Raise ValueError unless the prompt is one that `parse_attributes` reads."""
    parse_attributes(prompt_text(prompt))


def _parse(line: str) -> object:
    try:
        return json.loads(line)
    except ValueError as error:
        raise ValueError(
            f'not JSON ({error}); write one JSON object per line, such as {{"prompt": "..."}}'
        ) from error


def load_prompts(path: Path, check: Callable[[Prompt], None] = lambda prompt: None) -> list[Prompt]:
    """Prompts of a file, one JSON object with a ``prompt`` per line.

    Args:
        path: the file.
        check: raises ValueError for a prompt that the task cannot use.

    Raises:
        DataError: unreadable or empty file, or a bad line; names file, line, and what is wrong.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"cannot read the prompts file {path}: {error}") from error
    prompts: list[Prompt] = []
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = _parse(line)
            if not isinstance(row, dict) or "prompt" not in row:
                raise ValueError('each line must be a JSON object with a "prompt"')
            prompt = _check(row["prompt"])
            check(prompt)
        except ValueError as error:
            raise DataError(f"{path}, line {number}: {error}") from error
        prompts.append(prompt)
    if not prompts:
        raise DataError(
            f'{path} has no prompts; write one JSON object per line, such as {{"prompt": "..."}}'
        )
    return prompts


def restaurant_prompts(split: str) -> list[Prompt]:
    """Attribute lists of the E2E data that the shipped model has never seen.

    Args:
        split: ``"align"`` (to train on) or ``"evaluate"``.

    Raises:
        ConfigError: another split.
    """
    if split not in ("align", "evaluate"):
        raise ConfigError(f"no split {split!r}; there are 'align' and 'evaluate'")
    text = (resources.files("equilign") / "assets" / "prompts" / "restaurants.jsonl").read_text(
        encoding="utf-8"
    )
    rows = [json.loads(line) for line in text.splitlines()]
    return [as_chat(row["prompt"]) for row in rows if row["split"] == split]
