"""The report's figures, inline for the page or saved as SVG and PNG files.

Drawing uses matplotlib's object interface, without pyplot, so no window system and no global list
of figures is involved. The same run gives the same bytes.
"""

import io
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D

from equilign.files import write_atomically
from equilign.reports import tables
from equilign.reports.drawing import (
    GRID,
    INK,
    OKABE_ITO,
    attribute_names,
    draw_attributes,
    draw_cycles,
    draw_front,
    draw_win_rate,
    short,
    style,
)
from equilign.reports.run import Method, Run, read_run
from equilign.reports.svg import inline_svg

WIDE, NARROW = 680.0, 330.0
"""Widths in points; inline, a point is a CSS pixel, so that text keeps its size."""

CSS_COLOURS = {INK: "currentColor", GRID: "var(--grid)"} | {
    colour: f"var(--series-{i})" for i, colour in enumerate(OKABE_ITO, 1)
}
_POINTS_PER_INCH = 72.0
_SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "equilign",
    "font.family": "DejaVu Sans",
    # A label is a name, never a formula.
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": INK,
    "axes.labelcolor": INK,
    "axes.facecolor": "none",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.grid": True,
    "axes.axisbelow": True,
    "axes.labelpad": 8,
    "grid.color": GRID,
    "xtick.color": INK,
    "ytick.color": INK,
    "xtick.major.size": 0,
    "ytick.major.size": 0,
    "xtick.major.pad": 6,
    "ytick.major.pad": 6,
    "legend.frameon": False,
    "legend.handlelength": 2.6,
    "lines.linewidth": 2,
    "lines.markersize": 7,
}


@dataclass(frozen=True)
class Chart:
    """One figure: its name, what it shows, how it is drawn and the numbers behind it."""

    key: str
    title: str
    draw: Callable[[Axes, Sequence[Method], bool], None]
    height: float
    methods: Sequence[Method]
    table: tables.Table


@contextmanager
def _drawing() -> Iterator[None]:
    """Draw with fixed settings, whatever the user's matplotlibrc says."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        # A name in a script that the font lacks is still there: the text stays text.
        warnings.filterwarnings("ignore", message=r"(?s).*[Gg]lyph .*missing from")
        warnings.filterwarnings("ignore", message=r"(?s).*currently does not support")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        yield


def _legend(figure: Figure, methods: Sequence[Method], narrow: bool) -> None:
    """Name the methods under the axes; a single method needs no legend."""
    if len(methods) < 2:
        return
    handles = [Line2D([], [], **style(i)) for i in range(len(methods))]
    names = [short(method.title, 20) for method in methods]
    columns = min(len(methods), 2 if narrow else 4)
    # Labels that start with an underscore would be left out, so the names are set afterwards.
    legend = figure.legend(handles, ["m"] * len(names), loc="outside lower center", ncols=columns)
    for label, name in zip(legend.get_texts(), names, strict=True):
        label.set_text(name)


def _figure(chart: Chart, narrow: bool) -> Figure:
    width = NARROW if narrow else WIDE
    rows = -(-len(chart.methods) // (2 if narrow else 4)) if len(chart.methods) > 1 else 0
    height = chart.height + 22 * rows
    figure = Figure(
        figsize=(width / _POINTS_PER_INCH, height / _POINTS_PER_INCH),
        dpi=_POINTS_PER_INCH,
        layout="constrained",
    )
    axes = figure.add_subplot()
    chart.draw(axes, chart.methods, narrow)
    _legend(figure, chart.methods, narrow)
    return figure


def _svg(chart: Chart, narrow: bool, background: str) -> bytes:
    stream = io.BytesIO()
    with _drawing(), matplotlib.rc_context({"font.size": 11.5 if narrow else 12.5}):
        metadata = {"Date": None, "Creator": None}
        _figure(chart, narrow).savefig(
            stream, format="svg", metadata=metadata, facecolor=background
        )
    return stream.getvalue()


def _png(chart: Chart) -> bytes:
    stream = io.BytesIO()
    with _drawing(), matplotlib.rc_context({"font.size": 12.5}):
        figure = _figure(chart, narrow=False)
        FigureCanvasAgg(figure)
        figure.savefig(
            stream, format="png", dpi=150, metadata={"Software": None}, facecolor="white"
        )
    return stream.getvalue()


def charts(run: Run) -> dict[str, Chart]:
    """Return the figures that the run has numbers for, by key."""
    methods = run.methods
    rounds = [item for method in methods for item in method.rounds]
    names = attribute_names(methods)
    found = []
    if any(item.win.value is not None for item in rounds):
        table = tables.rounds_table(methods)
        found.append(Chart("win-rate", table.caption, draw_win_rate, 330, methods, table))
    table = tables.front_table(methods)
    if table.rows:
        found.append(Chart("front", table.caption, draw_front, 330, methods, table))
    if names:
        height = 80 + len(names) * max(34, 14 + 16 * len(methods))
        table = tables.attributes_table(methods)
        found.append(Chart("attributes", table.caption, draw_attributes, height, methods, table))
    table = tables.cycles_table(methods)
    if table.rows:
        found.append(Chart("cycles", table.caption, draw_cycles, 240, methods, table))
    return {chart.key: chart for chart in found}


def inline(chart: Chart) -> Mapping[str, str]:
    """Return the figure as inline SVG in the two widths that the page switches between."""
    return {
        name: inline_svg(
            _svg(chart, narrow, "none"), f"{chart.key}-{name}", chart.title, CSS_COLOURS
        )
        for name, narrow in (("wide", False), ("narrow", True))
    }


def save_figures(summary: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write every figure of the report as an SVG and a PNG file on white.

    Args:
        summary: A run summary, see `equilign.reports.schema`.
        folder: Where to write; made if missing.

    Returns:
        The paths written. Figures without numbers are left out.
    """
    written = []
    for key, chart in charts(read_run(summary)).items():
        for suffix, content in ((".svg", _svg(chart, False, "white")), (".png", _png(chart))):
            path = Path(folder) / f"{key}{suffix}"
            write_atomically(path, content)
            written.append(path)
    return written
