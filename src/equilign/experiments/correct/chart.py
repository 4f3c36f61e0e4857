"""The correction matrix as a picture."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from equilign.files import write_atomically
from equilign.reports.drawing import INK

_LONGEST = 28


def save_matrix(summary: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write ``corrections.svg`` and ``.png``; a pair without a verdict is left white."""
    values = np.array(summary["win_rate"], dtype=float)  # null becomes nan
    paths = []
    for suffix in ("svg", "png"):
        stream = io.BytesIO()
        metadata = {"Date": None, "Creator": None} if suffix == "svg" else {"Software": None}
        options: Any = {
            "text.parse_math": False,
            "svg.fonttype": "none",
            "svg.hashsalt": "equilign",
        }
        with matplotlib.rc_context(options):
            figure = _figure(values, summary["followers"], summary["leaders"])
            FigureCanvasAgg(figure)
            figure.savefig(stream, format=suffix, dpi=150, metadata=metadata, facecolor="white")
        path = folder / f"corrections.{suffix}"
        write_atomically(path, stream.getvalue())
        paths.append(path)
    return paths


def _end(name: str) -> str:
    """Paths differ at their ends."""
    return name if len(name) <= _LONGEST else "…" + name[1 - _LONGEST :]


def _figure(values: np.ndarray, followers: list[str], leaders: list[str]) -> Figure:
    rows, columns = values.shape
    figure = Figure(figsize=(3.5 + 0.9 * columns, 2.5 + 0.6 * rows), layout="constrained")
    axes = figure.add_subplot()
    colours = matplotlib.colormaps["RdBu"].with_extremes(bad="white")
    shown = np.ma.masked_invalid(values)
    image = axes.imshow(shown, cmap=colours, vmin=0.0, vmax=1.0, aspect="auto")
    axes.set_xticks(range(columns), [_end(n) for n in leaders], rotation=30, ha="right")
    axes.set_yticks(range(rows), [_end(n) for n in followers])
    axes.set_xlabel("Leader, whose answer is shown")
    axes.set_ylabel("Follower, who replies")
    axes.set_title("How often the reply beats the answer", fontsize=11, loc="left")
    for i, j in zip(*np.nonzero(~np.isnan(values)), strict=True):
        colour = "white" if abs(values[i, j] - 0.5) > 0.35 else INK
        axes.text(j, i, f"{values[i, j]:.3f}", ha="center", va="center", color=colour)
    figure.colorbar(image, ax=axes, shrink=0.8)
    return figure
