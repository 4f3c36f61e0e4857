"""What all reproductions share: sizes by name, seeds, processes."""

from collections.abc import Mapping
from typing import TypeVar

from equilign.errors import ConfigError

PROCESSES = 2
"""Pieces of work at a time, each in a process with one thread."""

SEEDS_APART = 1000
"""Runs with neighbouring seeds share no training."""

Scale = TypeVar("Scale")


def find_scale(scales: Mapping[str, Scale], name: str) -> Scale:
    """The sizes of that name.

    Raises:
        ConfigError: no such scale.
    """
    if name not in scales:
        raise ConfigError(f"no scale {name!r}; there are: {', '.join(scales)}")
    return scales[name]


def run_seeds(seed: int, count: int) -> list[int]:
    """The seeds of a run's trainings."""
    return [SEEDS_APART * seed + i for i in range(count)]
