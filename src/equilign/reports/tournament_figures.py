"""Figures of a tournament: rankings, the graph of majorities, the table of win rates."""

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from equilign.files import write_atomically
from equilign.reports.drawing import INK, OKABE_ITO, short
from equilign.reports.figures import CSS_COLOURS, NARROW, WIDE
from equilign.reports.game_figures import (
    MOST_IN_TABLE,
    Picture,
    _drawing,
    draw_graph,
    draw_table,
)
from equilign.reports.svg import inline_svg

MOST_RANKED = 40
_POINTS_PER_INCH = 72.0
_LEVEL = 0.05
_COLOURS = CSS_COLOURS | {"#ffffff": "var(--page)"}

Draw = Callable[[bool], Figure]


@dataclass(frozen=True)
class TournamentFigure:
    """One figure.

    Attributes:
        key: file name and identifier.
        title: accessible name.
        caption: what to see in it, in words.
        draw: makes it, wide or narrow.
        in_page: whether the page shows it; its table there says the same otherwise.
    """

    key: str
    title: str
    caption: str
    draw: Draw
    in_page: bool = True


def _array(rows: Sequence[Sequence[float | None]]) -> np.ndarray:
    return np.array([[np.nan if v is None else v for v in row] for row in rows], dtype=float)


def _picture(results: Mapping[str, Any]) -> Picture:
    names = tuple(results["players"])
    rates, p_values = _array(results["win_rate"]), _array(results["cycles"]["majority_p"])
    scores = results["bradley_terry"]["scores"]
    return Picture(
        title="Tournament",
        names=names,
        prefs=np.where(np.isnan(rates), 0.5, rates),
        policy=np.array([results["lottery"][n] for n in names]),
        policy_title="Maximal lottery",
        order=np.array([scores[n] for n in names]),
        significant=p_values <= _LEVEL,
        compared=~np.isnan(rates),
    )


def tournament_figures(results: Mapping[str, Any]) -> list[TournamentFigure]:
    """The figures of a tournament's results."""
    picture = _picture(results)
    return [
        TournamentFigure(
            "tournament-ranking",
            "Two rankings of the players",
            "Left: Bradley-Terry scores, which give every player one number; a difference of 1 nat "
            "is a win rate of 73 %. Bars are 95 % bootstrap intervals over prompts. Right: the "
            "maximal lottery, the mixture of players that no player beats on average.",
            lambda narrow: _ranking(results, narrow),
        ),
        TournamentFigure(
            "tournament-graph",
            "Who beats whom",
            "An arrow goes from the winner to the loser; the thicker, the clearer. Dashed arrows "
            "may be noise: whether one player is preferred on more prompts is tested over prompts, "
            "adjusted for the number of pairs.",
            lambda narrow: _graph(picture, narrow),
        ),
        TournamentFigure(
            "tournament-matrix",
            "Win rate of the row against the column, in percent",
            "",
            lambda narrow: _matrix(picture),
            in_page=False,
        ),
    ]


def _ranking(results: Mapping[str, Any], narrow: bool) -> Figure:
    fit = results["bradley_terry"]
    names = fit["ranking"][:MOST_RANKED]
    height = 46.0 + 24.0 * max(len(names), 3)
    rows, columns = (2, 1) if narrow else (1, 2)
    size = (NARROW, 2 * height + 30) if narrow else (WIDE, height + 20)
    figure = Figure(
        figsize=(size[0] / _POINTS_PER_INCH, size[1] / _POINTS_PER_INCH),
        dpi=_POINTS_PER_INCH,
        layout="constrained",
    )
    left, right = figure.subplots(rows, columns)
    places = np.arange(len(names))
    scores = np.array([fit["scores"][n] for n in names])
    low = scores - np.array([fit["low"][n] for n in names])
    high = np.array([fit["high"][n] for n in names]) - scores
    errors = np.maximum(np.stack([low, high]), 0.0)
    left.errorbar(
        scores, places, xerr=errors, fmt="o", color=OKABE_ITO[0], capsize=4, elinewidth=1.4
    )
    left.axvline(0.0, color=INK, linewidth=1.0, linestyle=(0, (4, 3)), zorder=1.5)
    left.set_xlabel("Bradley-Terry score (nats)")
    right.barh(places, [results["lottery"][n] for n in names], color=OKABE_ITO[2], height=0.6)
    for place, name in zip(places, names, strict=True):
        value = results["lottery"][name]
        right.annotate(
            f"{value:.2f}", (value, place), (4, 0), textcoords="offset points", va="center"
        )
    right.set_xlim(0.0, 1.18)
    right.set_xlabel("Maximal lottery (probability)")
    _name_rows(left, places, names, 16 if narrow else 24)
    _name_rows(right, places, names if narrow else [""] * len(names), 16)
    return figure


def _name_rows(axes: Axes, places: np.ndarray, names: Sequence[str], most: int) -> None:
    axes.set_yticks(places, [short(name, most) for name in names])
    axes.set_ylim(max(len(names), 3) - 0.4, -0.6)
    axes.tick_params(axis="y", length=0)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)


def _graph(picture: Picture, narrow: bool) -> Figure:
    width = NARROW if narrow else 1.2 * NARROW
    side = width / _POINTS_PER_INCH
    figure = Figure(figsize=(side, 0.72 * side), dpi=_POINTS_PER_INCH, layout="constrained")
    draw_graph(figure.add_subplot(), picture)
    return figure


def _matrix(picture: Picture) -> Figure:
    order = np.argsort(-picture.order, kind="stable")[:MOST_IN_TABLE]
    side = float(np.clip(3.0 + 0.33 * len(order), 4.6, 11.0))
    figure = Figure(figsize=(side + 1.0, side), layout="constrained")
    compared = None if picture.compared is None else picture.compared[np.ix_(order, order)]
    draw_table(
        figure.add_subplot(),
        picture.prefs[np.ix_(order, order)],
        [picture.names[i] for i in order],
        "Win rate (%) of the row against the column",
        compared,
    )
    return figure


def _save(figure: TournamentFigure, narrow: bool, **options: Any) -> bytes:  # noqa: ANN401
    stream = io.BytesIO()
    with _drawing(), matplotlib.rc_context({"font.size": 10.5 if narrow else 11.5}):
        drawn = figure.draw(narrow)
        FigureCanvasAgg(drawn)
        drawn.savefig(stream, **options)
    return stream.getvalue()


def _svg(figure: TournamentFigure, narrow: bool, background: str) -> bytes:
    metadata = {"Date": None, "Creator": None}
    return _save(figure, narrow, format="svg", metadata=metadata, facecolor=background)


def inline_figure(figure: TournamentFigure) -> dict[str, str]:
    """The figure as inline SVG in the page's two widths."""
    return {
        name: inline_svg(
            _svg(figure, narrow, "none"), f"{figure.key}-{name}", figure.title, _COLOURS
        )
        for name, narrow in (("wide", False), ("narrow", True))
    }


def save_figure(figure: TournamentFigure, folder: Path) -> list[Path]:
    """Write the figure as an SVG and a PNG file on white."""
    options: dict[str, Any] = {"format": "png", "dpi": 150, "metadata": {"Software": None}}
    png = _save(figure, False, facecolor="white", **options)
    paths = []
    for suffix, content in ((".svg", _svg(figure, False, "white")), (".png", png)):
        path = folder / f"{figure.key}{suffix}"
        write_atomically(path, content)
        paths.append(path)
    return paths
