"""Gaps over oracle calls: running a contestant, and what is read off its curves."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Int

from equilign.experiments.omwu.contestants import Contestant
from equilign.games import PreferenceGame
from equilign.play import play

TARGETS = (1e-3, 1e-6)
"""Gaps whose first lasting arrival is reported."""

_POINTS = 140


@dataclass(frozen=True, eq=False)
class Curves:
    """Gaps of a batch of games in the original, unregularised game.

    Attributes:
        calls: oracle calls at the recorded moments, shape ``(R,)``.
        last: gap of the last policy, ``(X, R)``; nan after a divergence.
        average: gap of the mean of the policies so far, ``(X, R)``.
        final: the last policies, ``(X, n)``.
    """

    calls: Int[np.ndarray, " r"]
    last: Float[np.ndarray, "x r"]
    average: Float[np.ndarray, "x r"]
    final: Float[np.ndarray, "x n"]

    def of(self, iterate: str) -> Float[np.ndarray, "x r"]:
        """The gaps of that iterate."""
        return self.average if iterate == "average" else self.last


def log_steps(steps: int, points: int = _POINTS) -> Int[np.ndarray, " r"]:
    """0, and about ``points`` steps to the last one on a logarithmic scale."""
    spaced = np.geomspace(1, max(steps, 1), points).round().astype(np.int64)
    return np.unique(np.concatenate([[0], spaced, [steps]]))


def run(
    game: PreferenceGame,
    start: Float[np.ndarray, "x n"],
    contestant: Contestant,
    eta: float,
    calls: int,
) -> Curves:
    """Play a contestant on exact expectations for a number of oracle calls."""
    per_step = contestant.calls_per_step(eta)
    steps = max(1, calls // per_step)
    played = play(
        game,
        contestant.mirror_rule,
        steps=steps,
        eta=eta,
        beta=contestant.beta,
        inner_steps=contestant.inner,
        start=start,
        record=log_steps(steps),
    )
    return Curves(
        played.steps * per_step,
        played.duality_gap,
        played.average_duality_gap,
        np.exp(played.final_log_policy),
    )


def envelope(gaps: Float[np.ndarray, "x r"]) -> Float[np.ndarray, "x r"]:
    """The largest gap from each moment on; infinite before a divergence."""
    gaps = np.where(np.isnan(gaps), np.inf, gaps)
    return np.maximum.accumulate(gaps[:, ::-1], axis=1)[:, ::-1]


def lasting_arrival(
    calls: Int[np.ndarray, " r"], gaps: Float[np.ndarray, "x r"], target: float
) -> Float[np.ndarray, " x"]:
    """Calls after which the gap never again exceeds ``target``; infinite if there are none."""
    below = envelope(gaps) <= target
    return np.where(below.any(axis=1), calls[np.argmax(below, axis=1)].astype(float), np.inf)


def plain(value: Any) -> Any:  # noqa: ANN401 - anything numeric, nested
    """Numbers for JSON: floats, with None for what is not finite."""
    if isinstance(value, np.ndarray):
        return [plain(v) for v in value]
    if isinstance(value, dict):
        return {str(k): plain(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [plain(v) for v in value]
    if isinstance(value, bool | np.bool_):
        return bool(value)
    if isinstance(value, int | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        return float(value) if math.isfinite(value) else None
    return value


def quantiles(
    values: Float[np.ndarray, " x"], at: Sequence[float] = (0.1, 0.5, 0.9)
) -> list[float]:
    """Quantiles in which infinite (never) and nan (diverged) count as the largest."""
    ordered = np.sort(np.where(np.isnan(values), np.inf, values))
    places = [min(len(ordered) - 1, round(q * (len(ordered) - 1))) for q in at]
    return [float(ordered[p]) for p in places]


def band(gaps: Float[np.ndarray, "x r"]) -> dict[str, list[float | None]]:
    """Median and quartiles over games at every recorded moment."""
    gaps = np.where(np.isnan(gaps), np.inf, gaps)
    low, middle, high = np.quantile(gaps, [0.25, 0.5, 0.75], axis=0, method="nearest")
    return {"low": plain(low), "median": plain(middle), "high": plain(high)}
