"""Who is compared: three methods, each with a strength and a learning rate from one small grid.

All three sample K answers per prompt, have each play each, train on the best and the worst of them
(as the paper does for itself and for both baselines) for the same number of steps with the same
optimiser, and take the iteration's start as reference.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any


@dataclass(frozen=True)
class Contestant:
    """One method.

    Attributes:
        method: name in `equilign.methods`.
        title: as in prose.
        strength: the option that says how far an iteration aims.
        grid: its values that were tried.
    """

    method: str
    title: str
    strength: str
    grid: tuple[float, ...]

    @property
    def named(self) -> str:
        """The title within a sentence."""
        return self.title.replace("Iterated", "iterated")


CONTESTANTS = (
    Contestant("sppo", "SPPO", "eta", (5.0, 20.0)),
    Contestant("iterated-dpo", "Iterated DPO", "beta", (0.5, 0.1)),
    Contestant("iterated-ipo", "Iterated IPO", "beta", (0.2, 0.05)),
)
"""In the order of tables and figures."""

LEARNING_RATES = (4e-5, 1e-4)

COMMON: Mapping[str, Any] = {
    "lr_scheduler_type": "linear",
    "optim": "adamw_torch",
    "warmup_steps": 0.1,
}
"""Optimiser options of every method."""

OWN: Mapping[str, Mapping[str, Any]] = {
    "sppo": {"responses": "best_worst"},
    "iterated-dpo": {"pair_selection": "best_worst", "labels": "hard"},
    "iterated-ipo": {"pair_selection": "best_worst", "labels": "hard"},
}
"""What makes the methods see the same pairs."""

SELECTION = "selection.json"


def contestant(method: str) -> Contestant:
    """The contestant with that method."""
    return next(c for c in CONTESTANTS if c.method == method)


@cache
def selection() -> dict[str, Any]:
    """The grid and its outcomes, as ``recipes/sppo_grid/run.py`` wrote them."""
    text = (resources.files("equilign.experiments.sppo") / SELECTION).read_text(encoding="utf-8")
    found: dict[str, Any] = json.loads(text)
    return found


def chosen_options(method: str) -> dict[str, float]:
    """Strength and learning rate that the grid chose."""
    found: dict[str, float] = selection()["chosen"][method]
    return dict(found)
