"""Distances from the start model as a picture, with the lengths beside them."""

import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from equilign.files import write_atomically
from equilign.reports.drawing import short, style
from equilign.reports.figures import _drawing

_LONGEST = 32
_FILES: Mapping[str, Mapping[str, Any]] = {
    "svg": {"metadata": {"Date": None, "Creator": None}},
    "png": {"metadata": {"Software": None}, "dpi": 150},
}


def save_distances(players: Sequence[Mapping[str, Any]], folder: Path) -> list[Path]:
    """Write ``distances.svg`` and ``.png``.

    Args:
        players: rows of the results.
        folder: where to.
    """
    paths = []
    for suffix, options in _FILES.items():
        stream = io.BytesIO()
        with _drawing():
            figure = _figure(players)
            FigureCanvasAgg(figure)
            figure.savefig(stream, format=suffix, facecolor="white", **options)
        paths.append(folder / f"distances.{suffix}")
        write_atomically(paths[-1], stream.getvalue())
    return paths


def _figure(players: Sequence[Mapping[str, Any]]) -> Figure:
    figure = Figure(figsize=(9.0, 1.5 + 0.42 * len(players)), layout="constrained")
    left, right = figure.subplots(1, 2, sharey=True, width_ratios=(3, 2))
    _draw(left, [p["kl"] for p in players], "nats")
    _draw(right, [p["tokens"] for p in players], "mean")
    left.set_yticks(range(len(players)), [short(p["name"], _LONGEST) for p in players])
    left.set_ylim(len(players) - 0.5, -0.5)
    left.set_xlabel("KL from the start model (nats per answer, 95 % interval)")
    right.set_xlabel("Length (tokens)")
    return figure


def _draw(axes: Axes, estimates: Sequence[Mapping[str, float | None]], name: str) -> None:
    """A point with its interval for each player; an end without a bound is left out."""
    for row, found in enumerate(estimates):
        value = found[name]
        if value is None:
            continue
        ends = [value if (end := found[k]) is None else end for k in ("low", "high")]
        look = style(row) | {"linestyle": "none"}
        error = [[abs(end - value)] for end in ends]
        axes.errorbar([value], [row], xerr=error, capsize=4, **look)
    axes.set_xlim(left=0.0 if axes.get_xlim()[0] > 0.0 else None)
    axes.grid(False, axis="y")
