"""Beginnings of stories that the shipped model can continue."""

from importlib import resources
from pathlib import Path

from equilign.errors import ConfigError
from equilign.rollout.types import Prompt
from equilign.tasks.prompts import load_prompts


def story_prompts(split: str) -> list[Prompt]:
    """Passages of public-domain stories that the shipped model has never seen, to be continued.

    Args:
        split: ``"align"`` (272, to train on) or ``"evaluate"`` (128).

    Raises:
        ConfigError: another split.
    """
    if split not in ("align", "evaluate"):
        raise ConfigError(f"no split {split!r}; there are 'align' and 'evaluate'")
    path = resources.files("equilign") / "assets" / "stories" / f"{split}.jsonl"
    return load_prompts(Path(str(path)))
