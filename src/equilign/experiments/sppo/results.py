"""The measured numbers of all seeds together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from equilign.evaluation.spread import Spread, spread
from equilign.experiments.sppo.contestants import CONTESTANTS
from equilign.experiments.sppo.judging import best_name
from equilign.experiments.sppo.pieces import START, Setting, player
from equilign.experiments.sppo.scales import Scale


@dataclass(frozen=True, eq=False)
class Judged:
    """One oracle's verdicts.

    Attributes:
        wins: ``(seeds, prompts, players, players)``, row beats column.
        controlled: player -> length-controlled win rate over the start, ``(seeds, prompts)``.
        attributes: last policies -> voter -> win rate of each seed.
    """

    wins: np.ndarray
    controlled: Mapping[str, np.ndarray]
    attributes: Mapping[str, Mapping[str, Sequence[float]]]


@dataclass(frozen=True, eq=False)
class Results:
    """Everything that claims, tables and figures are made of.

    Attributes:
        scale: sizes.
        seeds: of the runs.
        players: names, in the order of the matrices.
        oracles: by name.
        tokens: player -> mean length, ``(seeds, prompts)``.
        pieces: method -> what each seed's training recorded.
    """

    scale: Scale
    seeds: Sequence[int]
    players: Sequence[str]
    oracles: Mapping[str, Judged]
    tokens: Mapping[str, np.ndarray]
    pieces: Mapping[str, Sequence[Mapping[str, Any]]]

    @property
    def rounds(self) -> range:
        """Iterations, from 1."""
        return range(1, self.scale.rounds + 1)

    def last(self, method: str) -> str:
        """A method's policy after its last iteration."""
        return player(method, self.scale.rounds)

    def over(self, oracle: str, a: str, b: str = START) -> np.ndarray:
        """Win rates of one player over another, ``(seeds, prompts)``."""
        i, j = self.players.index(a), self.players.index(b)
        found: np.ndarray = self.oracles[oracle].wins[:, :, i, j]
        return found

    def win_rate(self, oracle: str, a: str, b: str = START) -> Spread:
        """`over` with its intervals."""
        return spread(self.over(oracle, a, b))

    def controlled(self, oracle: str, a: str) -> np.ndarray:
        """Length-controlled win rates over the start model, ``(seeds, prompts)``."""
        if a == START:
            return np.full_like(self.over(oracle, START), 0.5)
        return self.oracles[oracle].controlled[a]


def read_results(setting: Setting, seeds: Sequence[int]) -> Results:
    """Put the finished pieces together.

    Raises:
        RunDirectoryError: a piece cannot be read; names it and the cure.
    """
    judged = [setting.read_piece("judged", seed) for seed in seeds]
    first = judged[0]
    oracles = {}
    for name, known in first["oracles"].items():
        parts = [j["oracles"][name] for j in judged]
        oracles[name] = Judged(
            np.array([p["wins"] for p in parts]),
            {k: np.array([p["controlled"][k] for p in parts]) for k in known["controlled"]},
            {
                policy: {v: [p["attributes"][policy][v] for p in parts] for v in votes}
                for policy, votes in known["attributes"].items()
            },
        )
    return Results(
        setting.scale,
        list(seeds),
        first["players"],
        oracles,
        {p: np.array([j["tokens"][p] for j in judged]) for p in first["players"]},
        {c.method: [setting.read_piece(c.method, seed) for seed in seeds] for c in CONTESTANTS},
    )


def title_of(name: str) -> str:
    """A player's name for people: "SPPO 3", "start, best"."""
    best = name.endswith(best_name(""))
    base = name.removesuffix(best_name(""))
    method, _, number = base.rpartition("-")
    titles = {c.method: c.title for c in CONTESTANTS}
    said = f"{titles[method]} {number}" if method in titles else base
    return f"{said}, best" if best else said
