"""The figures: which series they hold."""

from collections.abc import Callable

import numpy as np

from equilign.evaluation.spread import spread
from equilign.experiments.sppo.contestants import CONTESTANTS
from equilign.experiments.sppo.judging import HELD_OUT, TRAINING
from equilign.experiments.sppo.pieces import START, player
from equilign.experiments.sppo.results import Results
from equilign.reports.reproduction_figures import Line, LineChart
from equilign.reports.tables import Table

_ORACLES = {TRAINING: "training oracle", HELD_OUT: "held-out oracle"}


def _lines(results: Results, values: Callable[[str], np.ndarray]) -> list[Line]:
    """One line per method, from the start model on, with its interval over seeds and prompts."""
    lines = []
    for c in CONTESTANTS:
        names = [START, *(player(c.method, n) for n in results.rounds)]
        found = [spread(values(name)) for name in names]
        x = [float(n) for n in range(len(names))]
        low, high = ([s.both[end] for s in found] for end in (0, 1))
        lines.append(Line(c.title, x, [s.value for s in found], low, high))
    return lines


def _numbers(lines: list[Line], caption: str, digits: int) -> Table:
    rows = [
        (line.label, f"{line.x[i]:.0f}", *(f"{side[i]:.{digits}f}" for side in _sides(line)))
        for line in lines
        for i in range(len(line.x))
    ]
    return Table(caption, ("Method", "Iteration", "Mean", "low", "high"), rows, 4)


def _sides(line: Line) -> list[list[float]]:
    assert line.low is not None  # noqa: S101 - `_lines` sets both
    assert line.high is not None  # noqa: S101
    return [[float(v or 0.0) for v in side] for side in (line.y, line.low, line.high)]


def _chart(key: str, title: str, caption: str, y: str, lines: list[Line], digits: int) -> LineChart:
    return LineChart(
        key,
        title,
        caption,
        "Iteration (0: start model)",
        y,
        lines,
        x_whole=True,
        levels={"": 0.5} if digits > 1 else {},
        table=_numbers(lines, title, digits),
    )


def win_rate_charts(results: Results) -> list[LineChart]:
    """Win rates over the start model by both oracles."""
    return [
        _chart(
            f"win-rate-{name}",
            f"Win rate over the start model, {words}",
            f"By the {words}: mean over seeds and held-out prompts; bands are 95 % intervals over "
            "both.",
            "Win rate over the start model",
            _lines(results, lambda who, name=name: results.over(name, who)),  # type: ignore[misc]
            3,
        )
        for name, words in _ORACLES.items()
    ]


def controlled_charts(results: Results) -> list[LineChart]:
    """The same at equal length."""
    return [
        _chart(
            f"controlled-{name}",
            f"Length-controlled win rate, {words}",
            f"By the {words}, with the part that goes with length taken out; bands are 95 % "
            "intervals over seeds and prompts.",
            "Win rate at equal length",
            _lines(results, lambda who, name=name: results.controlled(name, who)),  # type: ignore[misc]
            3,
        )
        for name, words in _ORACLES.items()
    ]


def length_charts(results: Results) -> list[LineChart]:
    """Length of the answers."""
    return [
        _chart(
            "length",
            "Length of the answers",
            "Tokens per answer, end token included; bands are 95 % intervals over seeds and "
            "prompts.",
            "Tokens",
            _lines(results, lambda who: results.tokens[who]),
            1,
        )
    ]
