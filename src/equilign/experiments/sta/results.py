"""The measured numbers of all tasks, methods and seeds together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from equilign.evaluation.spread import Spread, spread
from equilign.experiments.sta.contestants import CG, CONTESTANTS, DPO
from equilign.experiments.sta.pareto import heights_over
from equilign.experiments.sta.pieces import Setting, piece_name
from equilign.experiments.sta.scales import Scale
from equilign.experiments.sta.tasks import TASKS
from equilign.experiments.sta.watching import START

Piece = Mapping[str, Any]


@dataclass(frozen=True, eq=False)
class Course:
    """A method on a task: the start model and every evaluated policy.

    Attributes:
        examples: prompts seen, ``(points,)``; 0 first.
        reward: ground truth on held-out prompts, ``(seeds, points, prompts)``.
        kl: distance from the start, nats per answer, ``(seeds, points)``.
        tokens: mean length, ``(seeds, points)``.
    """

    examples: Sequence[int]
    reward: np.ndarray
    kl: np.ndarray
    tokens: np.ndarray

    @property
    def last(self) -> np.ndarray:
        """Reward after all examples, ``(seeds, prompts)``."""
        found: np.ndarray = self.reward[:, -1]
        return found

    @property
    def gain(self) -> np.ndarray:
        """The same above the start model's."""
        found: np.ndarray = self.reward[:, -1] - self.reward[:, 0]
        return found


@dataclass(frozen=True, eq=False)
class Results:
    """Everything that claims, tables and figures are made of.

    Attributes:
        scale: sizes.
        seeds: of the runs.
        courses: task -> method -> what was measured on the way.
        pieces: task -> method -> what each seed recorded; conjugate gradients included.
        starts: what each seed's start piece recorded.
    """

    scale: Scale
    seeds: Sequence[int]
    courses: Mapping[str, Mapping[str, Course]]
    pieces: Mapping[str, Mapping[str, Sequence[Piece]]]
    starts: Sequence[Piece]

    def ahead(self, task: str, a: str, b: str) -> Spread:
        """How much more reward one has than another at the end."""
        found = self.courses[task]
        return spread(found[a].last - found[b].last)

    def above(self, task: str, a: str, b: str) -> tuple[Spread, Spread]:
        """How far one's front of distance and reward lies above another's points.

        Over all of them, and over the one where it is lowest.
        """
        mine, other = self.courses[task][a], self.courses[task][b]
        found = heights_over(mine.kl, mine.reward, other.kl, other.reward)
        lowest = int(found.mean(axis=(1, 2)).argmin())
        return spread(found.mean(axis=0)), spread(found[lowest])

    def batch_time(self, method: str) -> np.ndarray:
        """Processor seconds per batch of prompts, ``(seeds, tasks)``; DPO's with its pairs."""
        return np.array(
            [
                [self._per_batch(task.name, method, n) for task in TASKS]
                for n in range(len(self.seeds))
            ]
        )

    def _per_batch(self, task: str, method: str, number: int) -> float:
        piece = self.pieces[task][method][number]
        if method == CG:
            return float(np.mean(piece["cpu_per_round"]))
        extra = self.starts[number]["cpu_seconds"] if method == DPO else 0.0
        return float((piece["cpu_seconds"] + extra) / self.scale.rounds)

    def ratio(self, a: str, b: str) -> Spread:
        """Logarithm of how much longer one takes than another, over seeds and tasks."""
        return spread(np.log(self.batch_time(a)) - np.log(self.batch_time(b)))


def _course(pieces: Sequence[Piece]) -> Course:
    each = [p["evaluations"] for p in pieces]

    def of(key: str) -> np.ndarray:
        return np.array([[e[key] for e in found] for found in each], dtype=np.float64)

    return Course([int(e["examples"]) for e in each[0]], of("reward"), of("kl_nats"), of("tokens"))


def read_results(setting: Setting, seeds: Sequence[int]) -> Results:
    """Put the finished pieces together.

    Raises:
        RunDirectoryError: a piece cannot be read; names it and the cure.
    """
    pieces = {
        task.name: {
            name: [setting.read_piece(piece_name(task.name, name), seed) for seed in seeds]
            for name in (*(c.name for c in CONTESTANTS), CG)
        }
        for task in TASKS
    }
    courses = {
        task: {name: _course(found[name]) for name in found if name != CG}
        for task, found in pieces.items()
    }
    starts = [setting.read_piece(START, seed) for seed in seeds]
    return Results(setting.scale, list(seeds), courses, pieces, starts)
