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
KAPPAS = (1.0, 5.0, 10.0)
"""The paper's; the Follower's step relative to the Leader's."""

LEARNING_RATES = (5e-5, 1e-4, 2e-4)

COMMON: Mapping[str, Any] = {
    "lr_scheduler_type": "constant",
    "optim": "adamw_torch",
    "warmup_steps": 0,
    "reset_optimizer_each_round": False,
}
"""Optimiser options of every method."""

BETA = 0.01
"""KL weight to the start model, of every player; win probability per nat."""

PLAYERS = "shared"
"""One model plays both, told apart by what it is shown, as in the paper."""

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
        kappa: of SLHF; None for the others.
    """

    name: str
    method: str
    title: str
    kappa: float | None = None

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
                "players": PLAYERS,
                "follower_instruction": FOLLOWER_INSTRUCTION,
            },
        }
        return {**COMMON, **own[self.method], "learning_rate": learning_rate}


def slhf(kappa: float) -> Contestant:
    """SLHF with that kappa."""
    return Contestant(f"{SLHF}-{kappa:g}", SLHF, f"SLHF, kappa {kappa:g}", kappa)


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


def learning_rate(method: str) -> float:
    """What the grid chose for a method."""
    return float(selection()["chosen"][method]["learning_rate"])


def main_kappa() -> float:
    """The kappa of the Leader and the Follower that everything but the sweep is about."""
    return float(selection()["chosen"][SLHF]["kappa"])


def main_slhf() -> Contestant:
    """SLHF with the chosen kappa."""
    return slhf(main_kappa())
