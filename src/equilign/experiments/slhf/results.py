"""The measured numbers of all seeds together."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from equilign.evaluation.graphs import GraphReport, PromptGraph, graph_report
from equilign.evaluation.spread import RATE, Spread, spread
from equilign.experiments.slhf.contestants import (
    BASELINES,
    Contestant,
    main_kappa,
    main_slhf,
    sweep,
)
from equilign.experiments.slhf.half import HALF
from equilign.experiments.slhf.judging import REFINED_START, TRAINING
from equilign.experiments.slhf.pieces import START, Setting
from equilign.experiments.slhf.playing import FOLLOWER, LEADER, OTHER, PEOPLE
from equilign.experiments.slhf.scales import Scale

TABULAR = "tabular"
TITLES: Mapping[str, str] = {
    START: "start",
    **{c.name: c.title for c in BASELINES},
    LEADER: "Leader",
    FOLLOWER: "Follower",
    REFINED_START: "start, refined",
    OTHER: "Follower of another seed",
    HALF: "model of half the size",
    PEOPLE: "people",
}


@dataclass(frozen=True, eq=False)
class Sweep:
    """One kappa, with one model for both players.

    Attributes:
        kappa: the weight of the Follower's loss relative to the Leader's.
        seeds: of its runs.
        wins: ``(seeds, prompts, players, players)``, players start, Leader, Follower.
        kl: the Leader's distance from the start, nats per answer, one per seed.
    """

    kappa: float
    seeds: Sequence[int]
    wins: np.ndarray
    kl: Sequence[float]

    def leader(self) -> np.ndarray:
        """The Leader's win rates over the start model, ``(seeds, prompts)``."""
        return np.asarray(self.wins[:, :, 1, 0])

    def follower(self) -> np.ndarray:
        """The Follower's."""
        return np.asarray(self.wins[:, :, 2, 0])

    def ahead(self) -> np.ndarray:
        """The Follower's over its own Leader."""
        return np.asarray(self.wins[:, :, 2, 1])


@dataclass(frozen=True, eq=False)
class Results:
    """Everything that claims, tables and figures are made of.

    Attributes:
        scale: sizes.
        seeds: of the runs.
        kappa: of the Leader and the Follower that everything but the sweep is about.
        players: names, in the order of the matrices.
        wins: oracle -> ``(seeds, prompts, players, players)``, row beats column.
        controlled: oracle -> player -> length-controlled win rate over the start.
        attributes: oracle -> player -> voter -> win rate over the start of each seed.
        tokens: player -> mean length, ``(seeds, prompts)``.
        graphs: kind -> graphs of all seeds' prompts.
        corrections: Follower -> Leader -> win rate of the reply over the answer it was shown,
            ``(seeds, prompts)``.
        curves: curve -> measure -> ``(seeds, prompts, N)``.
        sweep: by kappa, smallest first; empty where the scale has none.
        kl: player -> distance from the start in nats per answer, one per seed.
        pieces: training -> what each seed's recorded.
        half: what the distillation of the half-size model recorded, per seed.
        tabular: the matrix games.
    """

    scale: Scale
    seeds: Sequence[int]
    kappa: float
    players: Sequence[str]
    wins: Mapping[str, np.ndarray]
    controlled: Mapping[str, Mapping[str, np.ndarray]]
    attributes: Mapping[str, Mapping[str, Mapping[str, Sequence[float]]]]
    tokens: Mapping[str, np.ndarray]
    graphs: Mapping[str, Sequence[PromptGraph]]
    corrections: Mapping[str, Mapping[str, np.ndarray]]
    curves: Mapping[str, Mapping[str, np.ndarray]]
    sweep: Sequence[Sweep]
    kl: Mapping[str, Sequence[float]]
    pieces: Mapping[str, Sequence[Mapping[str, Any]]]
    half: Sequence[Mapping[str, Any]]
    tabular: Mapping[str, Any]

    def over(self, a: str, b: str = START, oracle: str = TRAINING) -> np.ndarray:
        """Win rates of one player over another, ``(seeds, prompts)``."""
        i, j = self.players.index(a), self.players.index(b)
        return np.asarray(self.wins[oracle][:, :, i, j])

    def win_rate(self, a: str, b: str = START, oracle: str = TRAINING) -> Spread:
        """`over` with its intervals."""
        return spread(self.over(a, b, oracle), RATE)

    def report(self, kind: str) -> GraphReport:
        """The preference graphs of one kind, all seeds' prompts together."""
        return graph_report(self.graphs[kind])


def read_results(setting: Setting, seeds: Sequence[int], kappa_seeds: Sequence[int]) -> Results:
    """Put the finished pieces together.

    Raises:
        RunDirectoryError: a piece cannot be read; names it and the cure.
    """
    judged = [setting.read_piece("judged", seed) for seed in seeds]
    played = [setting.read_piece("played", seed) for seed in seeds]
    main = main_slhf()
    pieces = {
        c.name: [setting.read_piece(c.name, seed) for seed in seeds] for c in (*BASELINES, main)
    }
    oracles = list(judged[0]["oracles"])
    who = judged[0]["players"]

    def each(*keys: str) -> list[Any]:
        return [_at(j, keys) for j in judged]

    def stacked(*keys: str) -> dict[str, np.ndarray]:
        return {k: np.array(each(*keys, k), dtype=float) for k in _at(judged[0], keys)}

    return Results(
        scale=setting.scale,
        seeds=list(seeds),
        kappa=main_kappa(),
        players=who,
        wins={o: np.array(each("oracles", o, "wins")) for o in oracles},
        controlled={o: stacked("oracles", o, "controlled") for o in oracles},
        attributes={
            o: {
                p: {v: each("oracles", o, "attributes", p, v) for v in votes}
                for p, votes in judged[0]["oracles"][o]["attributes"].items()
            }
            for o in oracles
        },
        tokens=stacked("tokens"),
        graphs={
            kind: [PromptGraph(**g) for rows in each("graphs", kind) for g in rows]
            for kind in judged[0]["graphs"]
        },
        corrections={f: stacked("corrections", f) for f in judged[0]["corrections"]},
        curves={c: stacked("curves", c) for c in judged[0]["curves"]},
        sweep=[_sweep(setting, c, kappa_seeds) for c in sweep() if kappa_seeds],
        kl={
            START: [0.0] * len(seeds),
            **{c.name: [p["kl_nats"] for p in pieces[c.name]] for c in BASELINES},
            LEADER: [p["kl_nats"] for p in pieces[main.name]],
            FOLLOWER: [p["kl_nats"] for p in played],
        },
        pieces=pieces,
        half=[setting.read_piece(HALF, seed) for seed in seeds],
        tabular=setting.read_piece(TABULAR, seeds[0]),
    )


def _sweep(setting: Setting, who: Contestant, seeds: Sequence[int]) -> Sweep:
    judged = [setting.read_piece(f"judged-{who.name}", seed) for seed in seeds]
    kl = [setting.read_piece(who.name, seed)["kl_nats"] for seed in seeds]
    assert who.kappa is not None  # noqa: S101 - all of the sweep have one
    return Sweep(who.kappa, list(seeds), np.array([j["wins"] for j in judged]), kl)


def _at(found: Any, keys: Sequence[str]) -> Any:  # noqa: ANN401 - JSON
    for key in keys:
        found = found[key]
    return found
