"""Pictures of a game: who beats whom, by how much, and what to play."""

import io
import math
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import FancyArrowPatch

from equilign.errors import ConfigError, RunDirectoryError
from equilign.files import explain_disk_full, write_atomically
from equilign.games.solution import Solution
from equilign.reports.drawing import GRID, INK, OKABE_ITO, short

ENDINGS = (".png", ".svg")
MOST_IN_GRAPH = 12
"""Players in the graph of majorities: more arrows than these have cannot be told apart."""
MOST_IN_TABLE = 50
MOST_BARS = 20
_LONGEST_NAME = 22
_OTHER_SCRIPTS = (
    *("Noto Sans CJK SC", "Noto Sans CJK JP", "WenQuanYi Zen Hei", "Noto Sans Devanagari"),
    *("Noto Sans Arabic", "Noto Sans Hebrew", "Noto Sans Thai", "Noto Emoji", "Arial Unicode MS"),
)
"""Fonts for names that DejaVu Sans cannot write, where they are installed."""
_BLUE, _ORANGE, _GREEN = OKABE_ITO[0], OKABE_ITO[1], OKABE_ITO[2]

_SETTINGS: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "equilign",
    "font.size": 10,
    # A label is a name, never a formula.
    "text.parse_math": False,
    "text.color": INK,
    "axes.edgecolor": GRID,
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "xtick.color": INK,
    "ytick.color": INK,
}


@dataclass(frozen=True, eq=False)
class Picture:
    """What a picture of a game shows.

    Attributes:
        title: one line.
        names: players.
        prefs: Pr(i beats j), shape ``(n, n)``.
        policy: what to play, shape ``(n,)``.
        policy_title: what the policy is.
        order: strength of each player, highest first in every part, shape ``(n,)``.
        significant: majorities that are more than noise, shape ``(n, n)``; all where None.
        compared: pairs with data, shape ``(n, n)``; all where None.
    """

    title: str
    names: tuple[str, ...]
    prefs: np.ndarray
    policy: np.ndarray
    policy_title: str
    order: np.ndarray
    significant: np.ndarray | None = None
    compared: np.ndarray | None = None


def check_plot_path(path: Path) -> None:
    """Raise before any work if a picture cannot be written there.

    Raises:
        ConfigError: another ending than .png and .svg.
        RunDirectoryError: a folder of that name, or no folder to write it in.
    """
    if path.suffix.lower() not in ENDINGS:
        raise ConfigError(f"--plot {path}: a picture ends in {' or '.join(ENDINGS)}")
    if path.is_dir():
        raise RunDirectoryError(f"--plot {path} is a folder; name a file in it")
    if path.parent.exists() and not path.parent.is_dir():
        raise RunDirectoryError(f"--plot {path}: {path.parent} is no folder")


def save_picture(picture: Picture, path: Path) -> None:
    """Write the graph of majorities, the table of win rates and the policy as one picture.

    Raises:
        ConfigError, RunDirectoryError: as `check_plot_path`, or the file cannot be written.
    """
    _save(lambda: _whole(picture), path)


def save_solution(solution: Solution, path: Path) -> None:
    """Write a solution as bars; with a follower, also as a table of its answers.

    Raises:
        ConfigError, RunDirectoryError: as `check_plot_path`, or the file cannot be written.
    """
    _save(lambda: _solution(solution), path)


def _save(draw: Callable[[], Figure], path: Path) -> None:
    check_plot_path(path)
    stream = io.BytesIO()
    kind = path.suffix.lower()[1:]
    with _drawing():
        figure = draw()
        FigureCanvasAgg(figure)
        metadata = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        figure.savefig(stream, format=kind, dpi=120, facecolor="white", metadata=metadata)
    try:
        with explain_disk_full(path.parent):
            write_atomically(path, stream.getvalue())
    except OSError as error:
        if isinstance(error, FileNotFoundError | PermissionError | NotADirectoryError):
            raise RunDirectoryError(f"cannot write {path}: {error.strerror}") from None
        raise


@contextmanager
def _drawing() -> Iterator[None]:
    """Draw with fixed settings, whatever the user's matplotlibrc says."""
    with matplotlib.rc_context(), warnings.catch_warnings():
        # A name in a script that the font lacks is still there in an SVG, as text.
        warnings.filterwarnings("ignore", message=r"(?s).*[Gg]lyph .*missing from")
        warnings.filterwarnings("ignore", message=r"(?s).*currently does not support")
        matplotlib.rcdefaults()
        matplotlib.rcParams.update(_SETTINGS)
        installed = {font.name for font in font_manager.fontManager.ttflist}
        more = [name for name in _OTHER_SCRIPTS if name in installed]
        matplotlib.rcParams["font.family"] = ["DejaVu Sans", *more]
        yield


# -- whole pictures ------------------------------------------------------------------------


def _whole(picture: Picture) -> Figure:
    ranked = np.argsort(-picture.order, kind="stable")
    table = ranked[:MOST_IN_TABLE]
    side = _side(len(table))
    bars = _bar_order(picture.policy)
    lower = 1.3 + 0.3 * max(len(bars), 4)
    height = max(side, 4.6 + lower)
    figure = Figure(figsize=(side + 1.0 + 5.6, height + 0.5), layout="constrained")
    figure.suptitle(short(picture.title, 90), fontsize=13)
    columns: Any = figure.subfigures(1, 2, width_ratios=[side + 1.0, 5.6])
    left, right = columns
    upper, under = right.subfigures(2, 1, height_ratios=[height - lower, lower])
    draw_graph(upper.subplots(), picture)
    draw_policy(under.subplots(), picture.names, picture.policy, bars, picture.policy_title)
    left_out = len(ranked) - len(table)
    draw_table(
        left.subplots(),
        picture.prefs[np.ix_(table, table)],
        [picture.names[i] for i in table],
        "Win rate (%) of the row against the column"
        + (f", {left_out} weakest left out" if left_out else ""),
        None if picture.compared is None else picture.compared[np.ix_(table, table)],
    )
    return figure


def _side(players: int) -> float:
    """Inches of a table of that many players."""
    return float(np.clip(3.0 + 0.33 * players, 4.6, 11.0))


def _solution(solution: Solution) -> Figure:
    bars = _bar_order(solution.policy)
    height = 1.6 + 0.32 * len(bars)
    title = f"{solution.concept}: what to play"
    if solution.follower is None:
        figure = Figure(figsize=(7.5, height), layout="constrained")
        draw_policy(figure.add_subplot(), solution.labels, solution.policy, bars, title)
        return figure
    size = min(len(solution.labels), MOST_IN_TABLE)
    side = _side(size)
    figure = Figure(figsize=(max(side + 1.0, 7.5), height + side), layout="constrained")
    upper, lower = figure.subplots(2, 1, height_ratios=[height, side])
    draw_policy(upper, solution.labels, solution.policy, bars, f"{title} (leader)")
    keep = np.argsort(-solution.policy, kind="stable")[:size]
    draw_table(
        lower,
        solution.follower[np.ix_(keep, keep)],
        [solution.labels[i] for i in keep],
        "Probability of the follower's answer (column) to the leader's (row)",
        None,
        middle=None,
    )
    return figure


def _bar_order(policy: np.ndarray) -> np.ndarray:
    order = np.argsort(-policy, kind="stable")
    played = order[policy[order] > 1e-9]
    return (played if len(played) else order)[:MOST_BARS]


# -- parts ---------------------------------------------------------------------------------


def draw_policy(
    axes: Axes, names: Sequence[str], policy: np.ndarray, bars: np.ndarray, title: str
) -> None:
    """Bars of the probabilities of some players, with the numbers."""
    axes.set_title(short(title, 60), fontsize=11, loc="left")
    places = np.arange(len(bars))
    axes.barh(places, policy[bars], color=_BLUE, height=0.7)
    axes.set_yticks(places, [short(names[i], _LONGEST_NAME) for i in bars])
    for place, i in zip(places, bars, strict=True):
        axes.annotate(
            f"{policy[i]:.3f}", (policy[i], place), (4, 0), textcoords="offset points", va="center"
        )
    axes.set_ylim(max(len(bars), 4) - 0.4, -0.6)  # few bars do not become thick ones
    axes.set_xlim(0.0, max(1.15 * float(policy.max(initial=0.0)), 0.05))
    axes.set_xlabel("probability")
    played = int((policy > 1e-9).sum())
    if played > len(bars):
        axes.annotate(
            f"and {played - len(bars)} more",
            (1.0, 0.0),
            (0, 4),
            "axes fraction",
            textcoords="offset points",
            ha="right",
            va="bottom",
        )
    axes.tick_params(axis="y", length=0)


def draw_table(
    axes: Axes,
    values: np.ndarray,
    names: Sequence[str],
    title: str,
    compared: np.ndarray | None,
    middle: float | None = 0.5,
) -> None:
    """A square table as colours, with numbers where there is room; no data is left white."""
    size = len(names)
    axes.set_title(short(title, 100), fontsize=11, loc="left")
    blank = np.eye(size, dtype=bool) if middle is not None else np.zeros((size, size), dtype=bool)
    if compared is not None:
        blank |= ~compared
    colours = matplotlib.colormaps["RdBu" if middle is not None else "Blues"]
    colours = colours.with_extremes(bad="white")
    image = axes.imshow(np.ma.masked_array(values, blank), cmap=colours, vmin=0.0, vmax=1.0)
    shown = [short(name, _LONGEST_NAME) for name in names]
    font = 9 if size <= 20 else 7
    axes.set_xticks(range(size), shown, rotation=90, fontsize=font)
    axes.set_yticks(range(size), shown, fontsize=font)
    axes.tick_params(length=0)
    for side in axes.spines.values():
        side.set_visible(False)
    axes.figure.colorbar(image, ax=axes, shrink=0.7, pad=0.02)
    if size > 20:
        return
    for i, j in zip(*np.nonzero(~blank), strict=True):
        dark = abs(values[i, j] - (0.5 if middle is not None else 0.0)) > (
            0.35 if middle is not None else 0.6
        )
        axes.text(
            j,
            i,
            f"{100 * values[i, j]:.0f}",
            ha="center",
            va="center",
            fontsize=font - 1,
            color="white" if dark else INK,
        )


def draw_graph(axes: Axes, picture: Picture) -> None:
    """Arrows from winners to losers among the players that matter most.

    Players are the most often played and then the strongest ones, in a circle, clockwise by
    strength. Solid arrows are majorities that are more than noise; orange ones lie on a cycle of
    three.
    """
    keep = _important(picture)
    size = len(keep)
    prefs = picture.prefs[np.ix_(keep, keep)]
    sure = np.ones((size, size), dtype=bool)
    if picture.significant is not None:
        sure = picture.significant[np.ix_(keep, keep)]
    beats = prefs > 0.5
    if picture.compared is not None:
        beats &= picture.compared[np.ix_(keep, keep)]
    cyclic = beats & ((beats.T.astype(int) @ beats.T.astype(int)) > 0)
    angles = np.pi / 2.0 - 2.0 * np.pi * np.arange(size) / size
    spots = np.stack([np.cos(angles), np.sin(angles)], axis=1)
    for i, j in zip(*np.nonzero(beats), strict=True):
        strong = bool(sure[i, j])
        axes.add_patch(
            FancyArrowPatch(
                spots[i],
                spots[j],
                arrowstyle="-|>",
                mutation_scale=11,
                shrinkA=9,
                shrinkB=9,
                zorder=2 if cyclic[i, j] else 1,
                linewidth=0.6 + 4.0 * (prefs[i, j] - 0.5) if strong else 0.6,
                linestyle="solid" if strong else (0, (3, 3)),
                color=_ORANGE if cyclic[i, j] else INK,
                alpha=0.9 if strong else 0.35,
            )
        )
    weight = picture.policy[keep]
    axes.scatter(
        spots[:, 0],
        spots[:, 1],
        s=70 + 500 * weight,
        zorder=3,
        edgecolor=INK,
        color=[_GREEN if w > 1e-9 else "white" for w in weight],
    )
    for (x, y), angle, i in zip(spots, angles, keep, strict=True):
        reach = 1.13 + 0.06 * float(picture.policy[i])
        axes.text(
            reach * x,
            reach * y,
            short(picture.names[i], _LONGEST_NAME),
            zorder=4,
            fontsize=9,
            ha="center" if abs(math.cos(angle)) < 0.1 else ("left" if x > 0 else "right"),
            va="center" if abs(math.sin(angle)) < 0.8 else ("bottom" if y > 0 else "top"),
        )
    axes.set_xlim(-2.1, 2.1)
    axes.set_ylim(-1.45, 1.35)
    axes.set_aspect("equal")
    axes.set_axis_off()
    more = len(picture.names) - size
    axes.set_title(
        "Who beats whom" + (f", {size} of {len(picture.names)} players" if more else ""),
        fontsize=11,
        loc="left",
    )
    legend = "green: played    orange: on a cycle"
    if picture.significant is not None:
        legend += "    dashed: may be noise"
    axes.text(-2.1, -1.45, legend, fontsize=9, va="bottom")


def _important(picture: Picture) -> np.ndarray:
    """The players of the graph: played ones first, then strong ones; in order of strength."""
    rank = np.lexsort((-picture.order, -np.where(picture.policy > 1e-9, picture.policy, 0.0)))
    keep = rank[:MOST_IN_GRAPH]
    return np.asarray(keep[np.argsort(-picture.order[keep], kind="stable")])
