"""Pictures of rules that were played on a matrix.

Four panels at most: the duality gap of the last policy (solid) and of the average policy
(dashed), where the last policies ended, and, for three responses, their paths on the simplex.
Drawn as the pictures of games are: without pyplot, the same bytes for the same run.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.colors import LinearSegmentedColormap
from matplotlib.figure import Figure
from matplotlib.gridspec import GridSpec
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, MaxNLocator, NullLocator

from equilign.games import Solution
from equilign.play import Trajectory
from equilign.reports.drawing import GRID, INK, MARKERS, OKABE_ITO, short
from equilign.reports.game_figures import _save

WIDTH_INCHES = 10.0
LEAST_GAP = 1e-17
"""Gaps are drawn no lower: rounding ends there, and a logarithm has no zero."""
MOST_GAP = 1e100
"""Gaps above stand for infinity (a response that the reference never gives) and are left out."""
MOST_COLUMNS = 48
"""Responses in the picture of the last policies; the rest is summed up in one column."""
_MOST_NUMBERS = 12
_LOG_STEPS = 100
_SHADES = LinearSegmentedColormap.from_list("shades", ["#ffffff", OKABE_ITO[0]])
_CORNERS = np.array([[0.0, 0.0], [1.0, 0.0], [0.5, np.sqrt(3.0) / 2.0]])

Runs = Sequence[tuple[str, Trajectory]]


def save_play_figure(
    title: str, trajectories: Mapping[str, Trajectory], equilibrium: Solution, path: Path
) -> None:
    """Write the picture of a run.

    Args:
        title: of the game.
        trajectories: name of a rule -> its run; all of one game.
        equilibrium: of that game, drawn beside the last policies.
        path: ends in ``.png`` or ``.svg``.

    Raises:
        ConfigError, RunDirectoryError: as `equilign.reports.game_figures.check_plot_path`, or
            the file cannot be written.
    """
    _save(lambda: _figure(title, list(trajectories.items()), equilibrium), path)


def style(index: int) -> dict[str, Any]:
    """Colour and marker of the rule at a position; 48 positions differ."""
    shift = index // len(OKABE_ITO)
    return {
        "color": OKABE_ITO[index % len(OKABE_ITO)],
        "marker": MARKERS[(index + shift) % len(MARKERS)],
        "markersize": 5,
        "linewidth": 1.6,
    }


def _figure(title: str, runs: Runs, equilibrium: Solution) -> Figure:
    policies = 0.9 + 0.28 * (len(runs) + 1)
    if max(len(name) for name in equilibrium.labels) > 4 and equilibrium.policy.size > 6:
        policies += 1.0  # room for labels that stand upright
    if equilibrium.policy.size == 3:
        policies = max(policies, 3.6)
    legend = 0.25 * (-(-len(runs) // 4))
    height = 0.5 + 3.4 + policies + legend
    figure = Figure(figsize=(WIDTH_INCHES, height), layout="constrained")
    figure.suptitle(short(title, 80))
    grid = GridSpec(2, 2, figure, height_ratios=[3.4, policies])
    last = figure.add_subplot(grid[0, 0])
    mean = figure.add_subplot(grid[0, 1], sharey=last, sharex=last)
    draw_gaps(last, runs, average=False)
    draw_gaps(mean, runs, average=True)
    mean.tick_params(labelleft=False)
    if equilibrium.policy.size == 3:
        draw_policies(figure.add_subplot(grid[1, 0]), runs, equilibrium)
        draw_simplex(figure.add_subplot(grid[1, 1]), runs, equilibrium)
    else:
        draw_policies(figure.add_subplot(grid[1, :]), runs, equilibrium)
    _legend(figure, runs)
    return figure


def _legend(figure: Figure, runs: Runs) -> None:
    handles = [Line2D([], [], **style(i)) for i in range(len(runs))]
    place: Any = {"loc": "outside lower center", "ncols": min(len(runs), 4), "frameon": False}
    legend = figure.legend(handles, ["m"] * len(runs), **place)
    # Labels that start with an underscore would be left out, so the names are set afterwards.
    for label, (name, _) in zip(legend.get_texts(), runs, strict=True):
        label.set_text(short(name, 24))


def draw_gaps(axes: Axes, runs: Runs, average: bool) -> None:
    """Duality gap over the steps: logarithmic, both ways where there are more than 100 steps."""
    longest = max(int(t.steps[-1]) for _, t in runs)
    logarithmic = longest > _LOG_STEPS
    for i, (_, t) in enumerate(runs):
        gaps = _drawable(t.average_duality_gap if average else t.duality_gap)
        shown = t.steps >= 1 if logarithmic and t.steps.size > 1 else t.steps >= 0
        axes.plot(
            t.steps[shown],
            gaps[shown],
            linestyle=(0, (5, 2)) if average else "solid",
            markevery=_marked(int(shown.sum()), i),
            **style(i),
        )
    axes.grid(True, color=GRID)
    axes.set_axisbelow(True)
    every = [gaps for _, t in runs for gaps in (t.duality_gap, t.average_duality_gap)]
    if np.isfinite(_drawable(np.concatenate(every))).any():  # else a logarithm has no range
        axes.set_yscale("log")
        axes.autoscale_view()
        _plain_decades(axes.yaxis)
    if logarithmic:
        axes.set_xscale("log")
        _plain_decades(axes.xaxis)
    else:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("step")
    axes.set_ylabel("" if average else "duality gap (win probability)")
    axes.set_title("average policy (dashed)" if average else "last policy (solid)", fontsize=11)


def _drawable(gaps: Float[np.ndarray, " r"]) -> Float[np.ndarray, " r"]:
    return np.where(gaps > MOST_GAP, np.nan, np.maximum(gaps, LEAST_GAP))


def _plain_decades(axis: Axis) -> None:
    # matplotlib's own labels are formulas, which the settings switch off.
    low, high = axis.get_view_interval()
    parts = (1.0, 2.0, 5.0) if high < 50.0 * low else (1.0,)
    axis.set_major_locator(LogLocator(subs=parts, numticks=8))
    axis.set_minor_locator(NullLocator())
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))


def _marked(points: int, index: int) -> tuple[int, int]:
    every = max(1, points // 6)
    return (index * every // 5) % every, every


def draw_policies(axes: Axes, runs: Runs, equilibrium: Solution) -> None:
    """The last policies as rows of shades, the equilibrium on top; numbers where they fit."""
    table, labels = _columns(
        np.array([equilibrium.policy, *[t.final_policy for _, t in runs]]), equilibrium.labels
    )
    axes.imshow(table, cmap=_SHADES, vmin=0.0, vmax=max(float(table.max()), 1e-9), aspect="auto")
    names = ["equilibrium", *[short(name, 26) for name, _ in runs]]
    axes.set_yticks(range(len(names)), names)
    upright = sum(len(name) for name in labels) > 50
    size = 7 if len(labels) > 24 else 9
    axes.set_xticks(range(len(labels)), labels, rotation=90 if upright else 0, fontsize=size)
    axes.tick_params(length=0)
    axes.axhline(0.5, color=INK, linewidth=0.8)
    if len(labels) <= _MOST_NUMBERS:
        for (row, column), value in np.ndenumerate(table):
            ink = "white" if value > 0.6 * table.max() else INK
            text = f"{value:.2f}" if value >= 0.005 else "0"
            axes.text(column, row, text, color=ink, ha="center", va="center", fontsize=9)
    axes.set_title("last policies", fontsize=11)


def _columns(
    table: Float[np.ndarray, "rows n"], names: Sequence[str]
) -> tuple[Float[np.ndarray, "rows m"], list[str]]:
    """The responses that some row plays most, in the game's order; the rest as one column."""
    labels = [short(name, 14) for name in names]
    if len(labels) <= MOST_COLUMNS:
        return table, labels
    chosen = np.sort(np.argsort(-table.max(axis=0), kind="stable")[:MOST_COLUMNS])
    rest = 1.0 - table[:, chosen].sum(axis=1, keepdims=True)
    others = f"{len(labels) - MOST_COLUMNS} others"
    return np.hstack([table[:, chosen], np.maximum(rest, 0.0)]), [
        *[labels[i] for i in chosen],
        others,
    ]


def draw_simplex(axes: Axes, runs: Runs, equilibrium: Solution) -> None:
    """Paths of the policies over three responses, in barycentric coordinates."""
    edge = _CORNERS[[0, 1, 2, 0]]
    axes.plot(edge[:, 0], edge[:, 1], color=GRID, linewidth=1.2)
    for i, (_, t) in enumerate(runs):
        if t.log_policies is None:
            continue
        path = np.exp(t.log_policies) @ _CORNERS
        look = style(i) | {"linewidth": 1.0, "markersize": 6}
        axes.plot(path[:, 0], path[:, 1], markevery=[len(path) - 1], alpha=0.8, **look)
    first = next((t.log_policies[0] for _, t in runs if t.log_policies is not None), None)
    if first is not None:
        start = np.exp(first) @ _CORNERS
        axes.plot(*start, marker="o", color=INK, markersize=5, linestyle="none")
        axes.annotate("start", start, (6, -10), textcoords="offset points", fontsize=9)
    goal = np.asarray(equilibrium.policy) @ _CORNERS
    axes.plot(*goal, marker="*", color=INK, markersize=12, linestyle="none", zorder=3)
    for corner, name, place in zip(
        _CORNERS, equilibrium.labels, ("top", "top", "bottom"), strict=True
    ):
        shift = -0.03 if place == "top" else 0.03
        axes.text(corner[0], corner[1] + shift, short(name, 16), ha="center", va=place, fontsize=10)
    axes.set_xlim(-0.12, 1.12)
    axes.set_ylim(-0.12, 1.0)
    axes.set_aspect("equal")
    axes.set_axis_off()
    axes.set_title("paths; star: equilibrium", fontsize=11)
