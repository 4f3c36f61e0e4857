"""Charts of a reproduction: curves and points on linear or logarithmic axes.

Drawn with the report's own settings, inline for the page in two widths, or saved as files.
"""

import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import LogLocator, MaxNLocator, NullLocator

from equilign.files import write_atomically
from equilign.reports.drawing import INK, short, style
from equilign.reports.figures import CSS_COLOURS, NARROW, WIDE, _drawing
from equilign.reports.svg import inline_svg
from equilign.reports.tables import Table

LEAST = 1e-17
"""Logarithmic axes of gaps end here; smaller values are rounding."""

_POINTS_PER_INCH = 72.0
_MARKS = 8

Numbers = Sequence[float | None]


@dataclass(frozen=True)
class Line:
    """One series.

    Attributes:
        label: in the legend.
        x: values, None where there is none.
        y: values.
        low: lower edge of a band around it, if any.
        high: upper edge.
        points: dots in place of a line.
    """

    label: str
    x: Numbers
    y: Numbers
    low: Numbers | None = None
    high: Numbers | None = None
    points: bool = False


@dataclass(frozen=True)
class LineChart:
    """One figure.

    Attributes:
        key: file name and identifier.
        title: accessible name.
        caption: what to see in it, in words.
        x_label: with unit.
        y_label: with unit.
        lines: in the order of the legend.
        x_log: whether the axis is logarithmic.
        y_log: likewise; values are then raised to `LEAST`.
        levels: name -> height of dashed lines across.
        diagonal: whether to draw the line of equality.
        x_whole: whether the axis counts: marks at whole numbers only.
        table: the numbers behind it.
        height: points.
    """

    key: str
    title: str
    caption: str
    x_label: str
    y_label: str
    lines: Sequence[Line]
    x_log: bool = False
    y_log: bool = False
    levels: Mapping[str, float] = field(default_factory=dict)
    diagonal: bool = False
    x_whole: bool = False
    table: Table | None = None
    height: float = 340.0


def _numbers(values: Numbers, log: bool) -> np.ndarray:
    found = np.array([np.nan if v is None else v for v in values], dtype=float)
    return np.where(found < LEAST, LEAST, found) if log else found


def _look(index: int) -> dict[str, Any]:
    """The first series in the colour of the text, so that six colours serve seven series."""
    return style(0) | {"color": INK, "marker": "*"} if index == 0 else style(index - 1)


def _draw_line(axes: Axes, chart: LineChart, line: Line, index: int) -> None:
    x, y = _numbers(line.x, False), _numbers(line.y, chart.y_log)
    if chart.x_log:
        x = np.where(x > 0.0, x, np.nan)
    look = _look(index)
    if line.points:
        axes.plot(x, y, **(look | {"linestyle": "none"}), alpha=0.8)
        return
    every = max(1, len(x) // _MARKS)
    # Shifted, so that the marks of different methods do not cover each other.
    axes.plot(x, y, markevery=(index * every // 8, every), **look)
    if line.low is not None and line.high is not None:
        low, high = (_numbers(v, chart.y_log) for v in (line.low, line.high))
        axes.fill_between(x, low, high, color=look["color"], alpha=0.15, linewidth=0.0)


def _draw(axes: Axes, chart: LineChart) -> None:
    if chart.x_log:
        axes.set_xscale("log")
    if chart.y_log:
        axes.set_yscale("log")
    for index, line in enumerate(chart.lines):
        _draw_line(axes, chart, line, index)
    for name, height in chart.levels.items():
        axes.axhline(height, color=INK, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1.5)
        axes.annotate(
            name,
            (0.0, height),
            (3, 2),
            xycoords=("axes fraction", "data"),
            textcoords="offset points",
            ha="left",
            va="bottom",
        )
    if chart.diagonal:
        low = max(min(axes.get_xlim()[0], axes.get_ylim()[0]), 1e-300)
        high = max(axes.get_xlim()[1], axes.get_ylim()[1])
        axes.plot([low, high], [low, high], color=INK, linewidth=1.0, linestyle=(0, (4, 3)))
    if chart.x_whole:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    for axis, log in ((axes.xaxis, chart.x_log), (axes.yaxis, chart.y_log)):
        if log:
            axis.set_major_locator(LogLocator(numticks=7))
            axis.set_minor_locator(NullLocator())
    axes.set_xlabel(chart.x_label)
    axes.set_ylabel(chart.y_label)


def _legend(figure: Figure, chart: LineChart, columns: int) -> None:
    if len(chart.lines) < 2:
        return
    handles = [
        Line2D([], [], **(_look(i) | ({"linestyle": "none"} if line.points else {})))
        for i, line in enumerate(chart.lines)
    ]
    legend = figure.legend(handles, ["m"] * len(handles), loc="outside lower center", ncols=columns)
    for label, line in zip(legend.get_texts(), chart.lines, strict=True):
        label.set_text(short(line.label, 36))


def _figure(chart: LineChart, narrow: bool) -> Figure:
    width = NARROW if narrow else WIDE
    longest = max((len(line.label) for line in chart.lines), default=0)
    columns = (1 if longest > 18 else 2) if narrow else (2 if longest > 26 else 3)
    columns = min(columns, max(1, len(chart.lines)))
    rows = -(-len(chart.lines) // columns) if len(chart.lines) > 1 else 0
    figure = Figure(
        figsize=(width / _POINTS_PER_INCH, (chart.height + 22 * rows) / _POINTS_PER_INCH),
        dpi=_POINTS_PER_INCH,
        layout="constrained",
    )
    _draw(figure.add_subplot(), chart)
    _legend(figure, chart, columns)
    return figure


def _save(chart: LineChart, narrow: bool, **options: Any) -> bytes:  # noqa: ANN401 - savefig's
    stream = io.BytesIO()
    with _drawing(), matplotlib.rc_context({"font.size": 11.5 if narrow else 12.5}):
        # Powers of ten are formulas; every other text here is our own.
        matplotlib.rcParams.update({"text.parse_math": True, "lines.markersize": 5.5})
        figure = _figure(chart, narrow)
        FigureCanvasAgg(figure)
        figure.savefig(stream, **options)
    return stream.getvalue()


def chart_svg(chart: LineChart, narrow: bool = False, background: str = "white") -> bytes:
    """The chart as an SVG document; the same chart gives the same bytes."""
    metadata = {"Date": None, "Creator": None}
    return _save(chart, narrow, format="svg", metadata=metadata, facecolor=background)


def inline_chart(chart: LineChart) -> dict[str, str]:
    """The chart as inline SVG in the page's two widths."""
    return {
        name: inline_svg(
            chart_svg(chart, narrow, "none"), f"{chart.key}-{name}", chart.title, CSS_COLOURS
        )
        for name, narrow in (("wide", False), ("narrow", True))
    }


def save_chart(chart: LineChart, folder: Path) -> list[Path]:
    """Write the chart as an SVG and a PNG file on white."""
    png = _save(chart, False, format="png", dpi=150, metadata={"Software": None}, facecolor="white")
    paths = []
    for suffix, content in ((".svg", chart_svg(chart)), (".png", png)):
        path = Path(folder) / f"{chart.key}{suffix}"
        write_atomically(path, content)
        paths.append(path)
    return paths
