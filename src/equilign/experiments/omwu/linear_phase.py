r"""The linear phase of OMWU's last iterate: fitted, and compared with the linearised dynamics.

Near an equilibrium ``x`` the step is linear in the logits. With ``i w_k`` the eigenvalues of
``diag(sqrt x) A diag(sqrt x)`` on the support, the single-call step multiplies mode k by the larger
root of ``r^2 - (1 + 2 i eta w) r + i eta w = 0``; a response outside the support shrinks by
``exp(-eta * what it loses)``. The largest modulus is the rate to expect, and it is 1 for
``eta w > 1/sqrt(3)``, where the step is too large. No published value enters here.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
from jaxtyping import Float

from equilign.experiments.omwu.contestants import REGULARISED_BETAS
from equilign.experiments.omwu.curves import envelope, lasting_arrival, plain, quantiles
from equilign.experiments.omwu.families import Family, draw_games
from equilign.experiments.omwu.floors import exact_floors
from equilign.experiments.omwu.scales import Scale
from equilign.games import solve
from equilign.play import play

LINEAR = 2
"""Stream of games."""

WINDOW = (1e-4, 1e-10)
"""The fit uses the moments at which the largest gap from then on lies between these two, whatever
happens in between: six decades, the same for every game, chosen before looking."""

_ZERO_MODE = 1e-7
_SUPPORT = 1e-9


def predicted_rate(
    margin: Float[np.ndarray, "n n"], equilibrium: Float[np.ndarray, " n"], eta: float
) -> float:
    """Largest modulus of the linearised single-call step, modes that do not move left out."""
    used = equilibrium > _SUPPORT
    root = np.sqrt(equilibrium[used])
    skew = root[:, None] * margin[np.ix_(used, used)] * root[None, :]
    frequencies = np.abs(np.linalg.eigvalsh(1j * skew))
    moving = frequencies[frequencies > _ZERO_MODE]
    a = 1j * eta * moving
    discriminant = np.sqrt((1.0 + 2.0 * a) ** 2 - 4.0 * a)
    roots = np.abs(np.concatenate([1 + 2 * a + discriminant, 1 + 2 * a - discriminant]) / 2.0)
    losses = -(margin[~used] @ equilibrium)
    return float(max([*roots, *np.exp(-eta * losses)], default=0.0))


def fit_line(
    steps: Float[np.ndarray, " r"], gaps: Float[np.ndarray, " r"]
) -> dict[str, float | None]:
    """Least squares of the logarithm of the largest gap still to come, within `WINDOW`.

    Returns:
        ``burn_in``, the step at which the window begins; ``end``; ``rate``, the factor per step;
        ``r_squared``; and ``halves``, how much longer the second half of the decades took than
        the first (1 for a straight line, 1000 for a gap that falls as 1/t). All None where the
        gap does not get through the window.
    """
    coming = envelope(gaps[None])[0]
    high, low = WINDOW
    inside = (coming <= high) & (coming >= low)
    empty = dict.fromkeys(("burn_in", "end", "rate", "r_squared", "halves"))
    if not (coming <= low).any() or inside.sum() < 8:
        return empty
    t, y = steps[inside], np.log(coming[inside])
    if np.ptp(t) == 0.0:
        return empty
    slope, level = np.polyfit(t, y, 1)
    rest = y - (slope * t + level)
    start, end = t[0], float(lasting_arrival(steps, gaps[None], low)[0])
    middle = float(lasting_arrival(steps, gaps[None], float(np.sqrt(high * low)))[0])
    return {
        "burn_in": float(start),
        "end": end,
        "rate": float(np.exp(slope)),
        "r_squared": float(1.0 - (rest**2).sum() / ((y - y.mean()) ** 2).sum()),
        "halves": float((end - middle) / max(middle - start, 1.0)),
    }


def study_linear_phase(
    family: Family, scale: Scale, seed: int, eta: float, tell: Callable[[int, int], None]
) -> dict[str, Any]:
    """A long run of OMWU on games of its own.

    Args:
        family: kind of game.
        scale: sizes.
        seed: of the experiment.
        eta: mirror step.
        tell: called with done and total.

    Returns:
        ``fits`` per game (see `fit_line`, with ``predicted`` rate, ``final`` gap,
        the ``floor`` of the smallest KL weight, whether it was still ``falling``, and support), and
        a few ``examples`` of curves.
    """
    game, start = draw_games(family, scale.linear_games, seed, LINEAR)
    steps = scale.linear_steps
    record = np.unique(
        np.concatenate([np.geomspace(1, steps, 2000), np.linspace(0, steps, 4001)]).astype(int)
    )
    played = play(game, "omwu", steps=steps, eta=eta, beta=0.0, start=start, record=record)
    tell(1, 2)
    exact = solve(game, "nash")
    floors = exact_floors(game, min(REGULARISED_BETAS))
    fits = []
    for x, gaps in enumerate(played.duality_gap):
        fit = fit_line(played.steps.astype(float), gaps)
        unique = bool(np.atleast_1d(np.asarray(exact.unique))[x])
        final = np.exp(played.final_log_policy[x])
        equilibrium = exact.policy[x] if unique else final
        fits.append(
            {
                **fit,
                # Where there are many equilibria, the rate is that of the one that is reached.
                "predicted": predicted_rate(game[x].margin, equilibrium, eta)
                if unique or fit["rate"] is not None
                else None,
                "final": plain(float(gaps[-1])),
                "floor": float(floors[x]),
                "falling": _still_falling(played.steps, gaps),
                "unique": unique,
                "support": int((exact.policy[x] > _SUPPORT).sum()),
            }
        )
    tell(2, 2)
    return {
        "title": family.title,
        "games": scale.linear_games,
        "steps": steps,
        "eta": eta,
        "fits": fits,
        "examples": _examples(played.steps, played.duality_gap, fits),
    }


def _still_falling(steps: np.ndarray, gaps: np.ndarray) -> bool:
    """Whether the largest gap of the second half is below 0.9 times that of the first."""
    later = steps > steps[-1] / 2
    gaps = np.where(np.isnan(gaps), np.inf, gaps)
    return bool(gaps[later].max() < 0.9 * gaps[~later].max())


def _examples(
    steps: np.ndarray, gaps: np.ndarray, fits: list[dict[str, Any]]
) -> list[dict[str, Any]]:
    """Curves of the quickest, the middle and the slowest game that got through the window."""
    through = [x for x, fit in enumerate(fits) if fit["end"] is not None]
    ranked = sorted(through, key=lambda x: fits[x]["end"])
    never = [x for x in range(len(fits)) if x not in through]
    picks = [("quickest", ranked[:1]), ("middle", ranked[len(ranked) // 2 :][:1])]
    picks += [("slowest", ranked[-1:]), ("not there yet", never[:1])]
    shown = np.unique(np.linspace(0, len(steps) - 1, 400).astype(int))
    return [
        {
            "name": name,
            "game": x,
            "steps": plain(steps[shown]),
            "gap": plain(np.maximum(gaps[x][shown], 1e-17)),
        }
        for name, chosen in picks
        for x in chosen
    ]


def summarise(study: dict[str, Any]) -> dict[str, Any]:
    """Shares and quantiles over games, for the table and the claims."""
    fits = study["fits"]
    through = [f for f in fits if f["rate"] is not None]
    distance = [1.0 - f["rate"] for f in through]
    ratio = [(1.0 - f["rate"]) / max(1.0 - f["predicted"], 1e-300) for f in through]

    def spread(values: list[float]) -> list[float] | None:
        return plain(quantiles(np.array(values))) if values else None

    return {
        "games": len(fits),
        "through": len(through),
        "burn_in": spread([f["burn_in"] for f in through]),
        "one_minus_rate": spread(distance),
        "r_squared": spread([f["r_squared"] for f in through]),
        "halves": spread([f["halves"] for f in through]),
        "measured_over_predicted": spread(ratio),
        "stalled": sum(
            not f["falling"] and not (f["final"] is not None and f["final"] <= 1e-6) for f in fits
        ),
        "below_floor": sum(f["final"] is not None and f["final"] < f["floor"] for f in fits),
        "below_1e-6": sum(f["final"] is not None and f["final"] <= 1e-6 for f in fits),
        "final": spread([np.inf if f["final"] is None else f["final"] for f in fits]),
    }
