"""Who is compared: RLOO, Nash-MD and SLHF, all on-policy, one optimiser step per round.

All see the same prompts and sample the same number of answers to each: RLOO K of its own, Nash-MD
half of them and half of its opponent's, the mixture with the start model; SLHF its Leader's and
its Follower's. Each pair of answers that a method looks at is judged in both orders; RLOO and
Nash-MD look at more pairs than SLHF does.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

from equilign.experiments.slhf.scales import Scale

RLOO, NASH, SLHF = "rloo", "nash-md-pg", "slhf"
SHARED = "slhf-shared"
"""Of the grid: SLHF with one model for both players."""

KAPPAS = (1.0, 5.0, 10.0)
"""The paper's: the weight of the Follower's loss where one model plays both."""

LEARNING_RATES = (5e-5, 1e-4)
STEPS = ((7e-5, 1.5), (7e-5, 2.5), (1e-4, 1.5))
"""Learning rates and kappas of SLHF with two models that were tried."""

COMMON: Mapping[str, Any] = {
    "lr_scheduler_type": "constant",
    "optim": "adamw_torch",
    "warmup_steps": 0,
    "reset_optimizer_each_round": False,
}
"""Optimiser options of every method."""

BETA = 0.01
"""KL weight to the start model, of every player; win probability per nat."""

FOLLOWER_INSTRUCTION = "Improve your answer."
"""Short, because every request is new to the shipped model: it was trained on lists of attributes
alone, and the longer the request, the worse what it replies before any training."""

SELECTION = "selection.json"


@dataclass(frozen=True)
class Contestant:
    """One training.

    Attributes:
        name: of its pieces.
        method: in `equilign.methods`.
        title: as in prose.
        kappa: the Follower's step relative to the Leader's; None for the others.
        players: of SLHF: two models (``separate``), or one that plays both (``shared``).
    """

    name: str
    method: str
    title: str
    kappa: float | None = None
    players: str = "separate"

    def options(self, scale: Scale, learning_rate: float) -> dict[str, Any]:
        """Options of its trainer."""
        own: dict[str, dict[str, Any]] = {
            RLOO: {"num_generations": scale.answers, "reward": "win_rate", "beta": BETA},
            NASH: {"num_generations": scale.answers // 2, "mixture": 0.125, "beta": BETA},
            SLHF: {
                "num_generations": scale.leader_answers,
                "num_follower_generations": scale.follower_answers,
                "beta_leader": BETA,
                "beta_follower": BETA,
                "kappa": self.kappa,
                "players": self.players,
                "follower_instruction": FOLLOWER_INSTRUCTION,
            },
        }
        return {**COMMON, **own[self.method], "learning_rate": learning_rate}


def slhf(kappa: float) -> Contestant:
    """SLHF with two models."""
    return Contestant(SLHF, SLHF, "SLHF", kappa)


def shared(kappa: float) -> Contestant:
    """SLHF with one model that plays both, as in the paper: told apart by what it is shown."""
    title = f"SLHF, one model, kappa {kappa:g}"
    return Contestant(f"{SLHF}-shared-{kappa:g}", SLHF, title, kappa, "shared")


BASELINES = (
    Contestant(RLOO, RLOO, "RLOO"),
    Contestant(NASH, NASH, "Nash-MD"),
)


@cache
def selection() -> dict[str, Any]:
    """The grid and its outcomes, as ``recipes/slhf_grid/run.py`` wrote them."""
    text = (resources.files("equilign.experiments.slhf") / SELECTION).read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def main_kappa() -> float:
    """Of the Leader and the Follower that everything but the sweep is about."""
    return float(selection()["chosen"][SLHF]["kappa"])


def main_slhf() -> Contestant:
    """SLHF as the grid chose it."""
    return slhf(main_kappa())


def sweep() -> list[Contestant]:
    """One model for both players, at each of the paper's kappas."""
    return [shared(kappa) for kappa in KAPPAS]


def rate_of(contestant: Contestant) -> float:
    """The learning rate of a contestant: what the grid chose for it."""
    chosen = selection()["chosen"]
    key = SHARED if contestant.players == "shared" else contestant.method
    return float(chosen[key]["learning_rate"])
