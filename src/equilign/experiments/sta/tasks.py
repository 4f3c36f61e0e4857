"""The paper's three tasks: what an answer is worth."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np

from equilign.rollout import Group, prompt_text
from equilign.tasks.unique_nouns import UniqueNouns
from equilign.tasks.utilities import UtilityOracle
from equilign.tasks.word_collector import WordCollector


@dataclass(frozen=True)
class Task:
    """One task.

    Attributes:
        name: of its pieces.
        title: as in prose.
        make: the oracle.
    """

    name: str
    title: str
    make: Callable[[], UtilityOracle]


def _constrained() -> UtilityOracle:
    return WordCollector(constrained=True)


WORDS = Task("word-collector", "Word Collector", WordCollector)
CONSTRAINED = Task("constrained-word-collector", "Constrained Word Collector", _constrained)
NOUNS = Task("unique-nouns", "Unique Nouns", UniqueNouns)
TASKS = (WORDS, CONSTRAINED, NOUNS)
"""In the order of tables and figures."""


def task_named(name: str) -> Task:
    """The task of that name."""
    return next(task for task in TASKS if task.name == name)


def utilities(oracle: UtilityOracle, groups: Sequence[Group]) -> list[np.ndarray]:
    """What each answer of each prompt is worth, ``(K,)`` per prompt."""
    return [
        oracle.score([prompt_text(g.prompt)] * len(g.completions), [c.text for c in g.completions])
        for g in groups
    ]
