"""How each figure is drawn on a matplotlib axes.

Colours are Okabe and Ito's, distinguishable with any common colour vision deficiency; methods
also differ in marker and line style.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.axis import Axis
from matplotlib.ticker import FuncFormatter, MaxNLocator

from equilign.reports.run import Estimate, Method, Round
from equilign.text import visible

INK, GRID = "#1f2328", "#d5dae0"
OKABE_ITO = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9")
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "p")
DASHES: tuple[Any, ...] = ("solid", (0, (6, 2)), (0, (2, 1.5)), (0, (6, 2, 1, 2)), (0, (3, 1)))
MOST_ATTRIBUTES = 24
"""The attribute figure stops here; its table goes on."""
MOST_ROUNDS = 60
"""A figure shows at most this many rounds of a method, evenly spaced."""

_ERROR_BARS: dict[str, Any] = {"capsize": 4, "elinewidth": 1.4, "capthick": 1.4}


def style(index: int) -> dict[str, Any]:
    """Return the colour, marker and line style of the method at a position."""
    return {
        "color": OKABE_ITO[index % len(OKABE_ITO)],
        "marker": MARKERS[index % len(MARKERS)],
        "linestyle": DASHES[index % len(DASHES)],
    }


def short(name: str, most: int) -> str:
    """Return a name on one line with at most `most` characters."""
    line = visible(name, newlines=False)
    return line if len(line) <= most else line[: most - 1] + "…"


def attribute_names(methods: Sequence[Method]) -> list[str]:
    """Return the attributes that some method has a win rate for, in order of appearance."""
    found = (
        name
        for method in methods
        for name, item in method.attributes.items()
        if item.value is not None
    )
    return list(dict.fromkeys(found))[:MOST_ATTRIBUTES]


def _percent_axis(axis: Axis, values: Sequence[float]) -> tuple[float, float]:
    """Label an axis in percent and return limits that hold the values with room around them."""
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{100 * value:.0f} %"))
    axis.set_major_locator(MaxNLocator(nbins=7, steps=[1, 2, 5, 10]))
    low, high = min(values), max(values)
    room = max(0.03, 0.08 * (high - low), (0.2 - (high - low)) / 2)
    return max(min(-0.01, low), low - room), min(max(1.01, high), high + room)


def _extent(estimates: Iterable[Estimate]) -> list[float]:
    return [x for e in estimates for x in (e.value, e.low, e.high) if x is not None]


def _values(estimates: Iterable[Estimate]) -> list[float]:
    return [item.value for item in estimates if item.value is not None]


def _errors(estimates: Iterable[Estimate]) -> list[list[float]]:
    """Return distances from value to bounds, 0 where there is no bound on that side."""
    below, above = [], []
    for item in estimates:
        value = item.value or 0.0
        below.append(0.0 if item.low is None else max(0.0, value - item.low))
        above.append(0.0 if item.high is None else max(0.0, item.high - value))
    return [below, above]


def _thin(rounds: Sequence[Round]) -> list[Round]:
    """Keep at most `MOST_ROUNDS` rounds, evenly spaced, the last one included."""
    step = -(-len(rounds) // MOST_ROUNDS) or 1
    return list(rounds[::-1][::step][::-1])


def _per_round(
    axes: Axes, methods: Sequence[Method], pick: Callable[[Round], Estimate]
) -> list[float]:
    """Draw one line per method over the rounds and return every value drawn."""
    drawn: list[float] = []
    numbers: list[int] = []
    for i, method in enumerate(methods):
        rounds = _thin([item for item in method.rounds if pick(item).value is not None])
        estimates = [pick(item) for item in rounds]
        shift = 0.04 * (i - (len(methods) - 1) / 2)
        if rounds:
            axes.errorbar(
                [item.number + shift for item in rounds],
                _values(estimates),
                yerr=_errors(estimates),
                **_ERROR_BARS,
                **style(i),
            )
        drawn += _extent(estimates)
        numbers += [item.number for item in rounds]
    axes.set_xlim(min(numbers) - 0.4, max(numbers) + 0.4)
    axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
    axes.set_xlabel("Round")
    axes.grid(False, axis="x")
    return drawn


def _half_line(axes: Axes, vertical: bool = False) -> None:
    line = axes.axvline if vertical else axes.axhline
    line(0.5, color=INK, linewidth=1.2, linestyle=(0, (4, 3)), zorder=1.5)


def draw_win_rate(axes: Axes, methods: Sequence[Method], narrow: bool) -> None:
    """Win rate per round with its interval."""
    drawn = _per_round(axes, methods, lambda item: item.win)
    axes.set_ylim(*_percent_axis(axes.yaxis, [*drawn, 0.5]))
    _half_line(axes)
    axes.set_ylabel("Preferred to the start model")


def draw_front(axes: Axes, methods: Sequence[Method], narrow: bool) -> None:
    """Win rate against distance, one path per method from the start model outwards."""
    xs, ys = [0.0], [0.5]
    for i, method in enumerate(methods):
        points = [
            (item.kl, item.win.value, item.number)
            for item in _thin(method.rounds)
            if item.kl is not None and item.win.value is not None
        ]
        xs += (path_x := [x for x, _, _ in points])
        ys += (path_y := [y for _, y, _ in points])
        if points:
            axes.plot([0.0, *path_x], [0.5, *path_y], markevery=slice(1, None), **style(i))
        for x, y, number in points:
            axes.annotate(str(number), (x, y), (0, 9), textcoords="offset points", ha="center")
    axes.plot([0.0], [0.5], marker="o", color=INK, linestyle="none", zorder=3)
    axes.annotate("start", (0.0, 0.5), (0, -17), textcoords="offset points", ha="center")
    room = max(0.05, 0.08 * (max(xs) - min(xs)))
    axes.set_xlim(min(xs) - room, max(xs) + room)
    axes.set_ylim(*_percent_axis(axes.yaxis, ys))
    _half_line(axes)
    axes.set_xlabel("Distance from the start model (nats)")
    axes.set_ylabel("Preferred to the start model")


def draw_attributes(axes: Axes, methods: Sequence[Method], narrow: bool) -> None:
    """Win rate by each attribute alone, one row per attribute."""
    names = attribute_names(methods)
    values = [0.5]
    spread = min(0.6, 0.32 * (len(methods) - 1))
    for i, method in enumerate(methods):
        shift = spread * (i / max(1, len(methods) - 1) - 0.5)
        found = {name: item for name, item in method.attributes.items() if item.value is not None}
        rows = [row for row, name in enumerate(names) if name in found]
        estimates = [found[names[row]] for row in rows]
        axes.errorbar(
            _values(estimates),
            [row + shift for row in rows],
            xerr=_errors(estimates),
            **_ERROR_BARS,
            **(style(i) | {"linestyle": "none"}),
        )
        values += _extent(estimates)
    axes.set_yticks(range(len(names)), [short(name, 16 if narrow else 32) for name in names])
    axes.set_ylim(len(names) - 0.4, -0.6)
    axes.set_xlim(*_percent_axis(axes.xaxis, values))
    axes.grid(False, axis="y")
    _half_line(axes, vertical=True)
    axes.set_xlabel("Trained answer scores higher")


def draw_cycles(axes: Axes, methods: Sequence[Method], narrow: bool) -> None:
    """Share of prompts with a cycle, per round."""
    drawn = _per_round(axes, methods, lambda item: item.cycles.share)
    _, top = _percent_axis(axes.yaxis, [*drawn, 0.0])
    axes.set_ylim(0.0, top)
    axes.set_ylabel("Prompts with a cycle")
