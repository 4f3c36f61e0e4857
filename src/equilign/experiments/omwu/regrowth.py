"""Rarely played responses: what happens to a probability that starts exponentially small."""

from collections.abc import Callable
from typing import Any

import numpy as np

from equilign.experiments.omwu.curves import plain
from equilign.experiments.omwu.families import FAMILIES, draw_games
from equilign.experiments.omwu.scales import Scale
from equilign.games import solve
from equilign.play import play

REGROWTH = 3
"""Stream of games."""

PLAYERS: tuple[tuple[str, str], ...] = (
    ("omwu", "OMWU"),
    ("mwu", "MWU = SPPO"),
    ("self-play-pg", "Policy gradient (own pairs)"),
)
"""The last one is the same field of payoffs through the softmax Jacobian: what pairs drawn from
the policy itself give in place of uniform ones."""

ETA = 1.0


def study_regrowth(scale: Scale, seed: int, tell: Callable[[int, int], None]) -> dict[str, Any]:
    """One interior game; its most played response starts at ten to minus k.

    Returns:
        ``runs``: per player and power, the first step from which on the response has half its
        equilibrium probability (None if it never has), the smallest probability after the first
        regrowth, and the curve of log10 probability.
    """
    family = next(f for f in FAMILIES if f.name == "full-odd")
    batch, starts = draw_games(family, 1, seed, REGROWTH)
    game, start = batch[0], starts[0]
    equilibrium = solve(game, "nash").policy
    rare = int(np.argmax(equilibrium))
    runs: list[dict[str, Any]] = []
    total = len(PLAYERS) * len(scale.regrowth_powers)
    for rule, title in PLAYERS:
        for power in scale.regrowth_powers:
            policy = start.copy()
            policy[rare] = 0.0
            policy *= (1.0 - 10.0**-power) / policy.sum()
            policy[rare] = 10.0**-power
            played = play(game, rule, steps=scale.regrowth_steps, eta=ETA, beta=0.0, start=policy)
            assert played.log_policies is not None  # noqa: S101 - one game keeps them
            logs = played.log_policies[:, rare] / np.log(10.0)
            grown = np.flatnonzero(logs >= np.log10(equilibrium[rare] / 2.0))
            first = int(grown[0]) if grown.size else None
            runs.append(
                {
                    "rule": rule,
                    "title": title,
                    "power": power,
                    "regrown_at": None if first is None else int(played.steps[first]),
                    "lowest_after": None if first is None else plain(float(logs[first:].min())),
                    "steps": plain(played.steps),
                    "log10_probability": plain(logs),
                }
            )
            tell(len(runs), total)
    return {
        "n": game.size,
        "eta": ETA,
        "steps": scale.regrowth_steps,
        "response": rare,
        "equilibrium_probability": float(equilibrium[rare]),
        "runs": runs,
    }


def regrowth_line(study: dict[str, Any], rule: str) -> dict[str, float] | None:
    """Straight line of the steps to regrow against the power of ten; None below three points."""
    points = [
        (run["power"], run["regrown_at"])
        for run in study["runs"]
        if run["rule"] == rule and run["regrown_at"] is not None
    ]
    if len(points) < 3:
        return None
    x, y = np.array(points, dtype=float).T
    slope, level = np.polyfit(x, y, 1)
    rest = y - (slope * x + level)
    return {
        "steps_per_decade": float(slope),
        "r_squared": float(1.0 - (rest**2).sum() / ((y - y.mean()) ** 2).sum()),
    }
