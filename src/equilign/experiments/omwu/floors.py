"""Where regularised methods stop: the original game's gap at the regularised equilibrium."""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from equilign.experiments.omwu.contestants import REGULARISED_BETAS
from equilign.experiments.omwu.curves import plain, quantiles
from equilign.experiments.omwu.families import Family, draw_games
from equilign.experiments.omwu.scales import Scale
from equilign.experiments.omwu.tabular import REPORT
from equilign.games import PreferenceGame, duality_gap, solve

AGREEMENT = 0.05
"""A measured floor agrees with the exact one within this relative difference."""


def exact_floors(game: PreferenceGame, beta: float) -> Float[np.ndarray, " x"]:
    """The original gap at every game's regularised equilibrium, with the game's reference."""
    policies = solve(PreferenceGame(game.prefs, game.ref, beta), "nash").policy
    return np.array(
        [
            duality_gap(PreferenceGame(prefs), policy / policy.sum())
            for prefs, policy in zip(game.prefs, policies, strict=True)
        ]
    )


def study_floors(
    family: Family,
    scale: Scale,
    seed: int,
    tabular: dict[str, Any],
    tell: Callable[[int, int], None],
) -> list[dict[str, Any]]:
    """Exact floors, game by game, beside the final gaps that were measured.

    Args:
        family: kind of game.
        scale: sizes.
        seed: of the experiment.
        tabular: what `study_family` found for the family.
        tell: called with done and total.

    Returns:
        One row per KL weight and method: quantiles of both, the share of games that agree, and of
        those that end below and have not moved since a tenth of the budget.
    """
    game, _ = draw_games(family, scale.games, seed, REPORT)
    rows = []
    for number, beta in enumerate(REGULARISED_BETAS):
        exact = exact_floors(game, beta)
        for method in ("omd", "nash-md", "egpo"):
            found = tabular["contestants"][f"{method}:{beta:g}"]
            measured, early = (
                np.array([np.nan if v is None else v for v in found[key]])
                for key in ("final", "early")
            )
            off = np.abs(measured / exact - 1.0)
            rows.append(
                {
                    "beta": beta,
                    "method": method,
                    "title": found["title"],
                    "eta": found["eta"],
                    "exact": plain(exact),
                    "exact_quantiles": plain(quantiles(exact)),
                    "measured_quantiles": plain(quantiles(measured)),
                    "agree": float(np.mean(off <= AGREEMENT)),
                    "settled_below": float(
                        np.mean(
                            (measured < (1.0 - AGREEMENT) * exact)
                            & (np.abs(measured / early - 1.0) < 0.01)
                        )
                    ),
                }
            )
        tell(number + 1, len(REGULARISED_BETAS))
    return rows
