"""Matrices of 10 or 11 responses: hyperparameters chosen on some games, reported on others."""

from collections.abc import Callable
from typing import Any

import numpy as np

from equilign.experiments.omwu.contestants import CONTESTANTS, Contestant, methods
from equilign.experiments.omwu.curves import (
    TARGETS,
    Curves,
    band,
    lasting_arrival,
    plain,
    quantiles,
    run,
)
from equilign.experiments.omwu.families import Family, draw_games
from equilign.experiments.omwu.scales import Scale
from equilign.games import solve

SELECT, REPORT = 0, 1
"""Streams of games: none is in both."""

Tell = Callable[[int, int], None]


def score(contestant: Contestant, curves: Curves) -> tuple[float, float]:
    """What hyperparameters are chosen by: median final gap, then calls to the finest target.

    Gaps below 1e-12 count as equal: they are rounding.
    """
    gaps = curves.of(contestant.iterate)
    final = quantiles(gaps[:, -1], (0.5,))[0]
    arrival = quantiles(lasting_arrival(curves.calls, gaps, TARGETS[-1]), (0.5,))[0]
    return max(final, 1e-12), arrival


def study_family(family: Family, scale: Scale, seed: int, tell: Tell) -> dict[str, Any]:
    """Sweep on one set of games, then play each contestant's best on another set.

    Args:
        family: kind of game.
        scale: sizes.
        seed: of the experiment.
        tell: called with how many of how many contestants are done.

    Returns:
        ``sweep`` (every setting tried), ``contestants`` (each with its chosen eta, final gaps,
        calls to the targets, curves), ``chosen`` (method -> its best contestant) and
        ``equilibrium`` (support sizes and uniqueness of the games reported on).
    """
    select = draw_games(family, scale.select_games, seed, SELECT)
    report = draw_games(family, scale.games, seed, REPORT)
    sweep: list[dict[str, Any]] = []
    found: dict[str, dict[str, Any]] = {}
    for number, contestant in enumerate(CONTESTANTS):
        eta, best = _choose(select, contestant, scale, sweep)
        curves = run(*report, contestant, eta, scale.calls)
        found[contestant.key] = {**_results(contestant, curves), "eta": eta, "score": plain(best)}
        tell(number + 1, len(CONTESTANTS))
    chosen = {}
    for method in methods():
        own = [c.key for c in CONTESTANTS if c.method == method]
        chosen[method] = min(own, key=lambda key: _sortable(found[key]["score"]))
    return {
        "title": family.title,
        "n": family.n,
        "assumption": family.assumption,
        "games": scale.games,
        "calls": scale.calls,
        "sweep": sweep,
        "contestants": found,
        "chosen": chosen,
        "equilibrium": _equilibria(report[0]),
    }


def _choose(
    select: tuple[Any, Any], contestant: Contestant, scale: Scale, sweep: list[dict[str, Any]]
) -> tuple[float, tuple[float, float]]:
    tried = {}
    for eta in scale.etas:
        if contestant.beta * eta > 1.0:
            continue  # the pull to the reference would overshoot it
        curves = run(*select, contestant, eta, scale.select_calls)
        gaps = curves.of(contestant.iterate)
        tried[eta] = score(contestant, curves)
        sweep.append(
            {
                "contestant": contestant.key,
                "eta": eta,
                "final_gap": plain(quantiles(gaps[:, -1])),
                "calls": {
                    f"{t:g}": plain(quantiles(lasting_arrival(curves.calls, gaps, t)))
                    for t in TARGETS
                },
            }
        )
    eta = min(tried, key=lambda e: tried[e])
    return eta, tried[eta]


def _sortable(pair: list[float | None]) -> tuple[float, float]:
    final, arrival = (np.inf if value is None else value for value in pair)
    return final, arrival


def _results(contestant: Contestant, curves: Curves) -> dict[str, Any]:
    gaps = curves.of(contestant.iterate)
    arrivals = {t: lasting_arrival(curves.calls, gaps, t) for t in TARGETS}
    return {
        "method": contestant.method,
        "title": contestant.title,
        "kind": contestant.kind,
        "beta": contestant.beta,
        "iterate": contestant.iterate,
        "final": plain(gaps[:, -1]),
        "final_quantiles": plain(quantiles(gaps[:, -1])),
        "early": plain(gaps[:, int(np.searchsorted(curves.calls, curves.calls[-1] / 10))]),
        "arrival": {f"{t:g}": plain(a) for t, a in arrivals.items()},
        "arrival_quantiles": {f"{t:g}": plain(quantiles(a)) for t, a in arrivals.items()},
        "reached": {f"{t:g}": int(np.isfinite(a).sum()) for t, a in arrivals.items()},
        "curve": {"calls": plain(curves.calls), **band(gaps)},
    }


def _equilibria(game: Any) -> dict[str, Any]:  # noqa: ANN401 - a batch
    solution = solve(game, "nash")
    sizes = (solution.policy > 1e-9).sum(axis=1)
    return {
        "support": plain(sizes),
        "full_support": int((sizes == game.size).sum()),
        "unique": int(np.atleast_1d(np.asarray(solution.unique)).sum()),
        "largest_gap": float(np.max(solution.gap)),
    }
