"""The figures: which series they hold."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from equilign.experiments.omwu.judging import amount
from equilign.reports.reproduction_figures import Line, LineChart
from equilign.reports.tables import Table

Results = dict[str, Any]

_LAST = ("omwu", "mwu", "omd", "nash-md", "egpo", "mpo", "comal", "ogda")
_CALLS = "Oracle calls"
_GAP = "Duality gap, original game"


def _curve(found: Mapping[str, Any], key: str, *, label: str = "", wide: bool = False) -> Line:
    row = found["contestants"][key]
    curve = row["curve"]
    x = curve.get("calls", curve.get("steps"))
    band = (curve["low"], curve["high"]) if wide else (None, None)
    return Line(label or row["title"], x, curve["median"], *band)


def _numbers(lines: Sequence[Line], caption: str, x: str) -> Table:
    """Each series at up to ten moments, evenly among those recorded."""
    rows = []
    for line in lines:
        picks = np.unique(np.linspace(0, len(line.x) - 1, 10).astype(int))
        rows += [(line.label, amount(line.x[i]), amount(line.y[i])) for i in picks]
    return Table(caption, ("Series", x, "Median gap"), rows, 2)


def _gap_chart(
    key: str,
    title: str,
    caption: str,
    lines: Sequence[Line],
    x_label: str,
    levels: Mapping[str, float] | None = None,
) -> LineChart:
    return LineChart(
        key,
        title,
        caption,
        x_label,
        _GAP,
        lines,
        x_log=True,
        y_log=True,
        table=_numbers(lines, title, x_label),
        levels=levels or {},
    )


def _matrices(results: Results) -> list[LineChart]:
    drawn = []
    for name, found in results["tabular"].items():
        lines = [_curve(found, found["chosen"][method], wide=method == "omwu") for method in _LAST]
        drawn.append(
            _gap_chart(
                f"last-{name}",
                f"Last iterates, {found['title']}",
                f"{found['title']}: median gap of the last policy over {found['games']} games, "
                "each method at its best step and KL weight; OMWU with quartiles.",
                lines,
                _CALLS,
            )
        )
    return drawn


def _average(results: Results) -> list[LineChart]:
    name, found = next(iter(results["tabular"].items()))
    lines = [
        _curve(found, found["chosen"][method])
        for base in ("omwu", "mwu", "omd")
        for method in (base, f"{base}-average")
    ]
    return [
        _gap_chart(
            f"average-{name}",
            f"Last and average, {found['title']}",
            f"{found['title']}: median gap of the last policy and of the mean of all policies, "
            "each at the step that is best for it.",
            lines,
            _CALLS,
        )
    ]


def _linear(results: Results) -> list[LineChart]:
    name, study = next(iter(results["linear"].items()))
    lines = []
    for example in study["examples"]:
        end = study["fits"][example["game"]]["end"]
        scale = end if end is not None else study["steps"]
        keep = [i for i, step in enumerate(example["steps"]) if step <= 1.5 * scale]
        label = f"{example['name']}: 1e-10 after {end:,.0f}" if end else example["name"]
        lines.append(
            Line(
                label,
                [example["steps"][i] / scale for i in keep],
                [example["gap"][i] for i in keep],
            )
        )
    curves = LineChart(
        f"linear-{name}",
        f"Gap of single games, {study['title']}",
        f"{study['title']}, OMWU with eta {study['eta']:g}: single games, each on its own clock "
        "(1 is where its gap gets to 1e-10, or the end of the run).",
        "Steps, as a share of the game’s own time",
        _GAP,
        lines,
        y_log=True,
    )
    points = [
        Line(
            s["title"],
            [1.0 - f["predicted"] for f in s["fits"] if f["rate"] is not None],
            [1.0 - f["rate"] for f in s["fits"] if f["rate"] is not None],
            points=True,
        )
        for s in results["linear"].values()
    ]
    points = [line for line in points if line.x]
    if not points:
        return [curves]
    rates = LineChart(
        "rates",
        "Measured against predicted rate",
        "One dot per game that got through the window: the fitted rate against that of the step "
        "linearised at the exact equilibrium. On the dashed line they agree.",
        "1 - rate, predicted",
        "1 - rate, measured",
        points,
        x_log=True,
        y_log=True,
        diagonal=True,
    )
    return [curves, rates]


def _floors(results: Results) -> list[LineChart]:
    name, found = next(iter(results["tabular"].items()))
    rows = [r for r in results["floors"][name] if r["method"] == "egpo"]
    lines = [_curve(found, found["chosen"]["omwu"])]
    lines += [_curve(found, f"egpo:{r['beta']:g}", label=f"EGPO, beta {r['beta']:g}") for r in rows]
    levels = {f"exact, beta {r['beta']:g}": r["exact_quantiles"][1] for r in rows}
    return [
        _gap_chart(
            f"floors-{name}",
            f"Bias floors, {found['title']}",
            f"{found['title']}: EGPO at several KL weights. Dashed: the exact original gap at the "
            "regularised equilibrium (medians).",
            lines,
            _CALLS,
            levels=levels,
        )
    ]


def _regrowth(results: Results) -> list[LineChart]:
    study = results["regrowth"]
    powers = sorted({run["power"] for run in study["runs"]})
    shown = max(p for p in powers if p <= 30)
    paths = [
        Line(run["title"], run["steps"], run["log10_probability"])
        for run in study["runs"]
        if run["power"] == shown
    ]
    curve = LineChart(
        "regrowth",
        "Probability of a rarely played response",
        f"Decimal logarithm of the probability of a response that starts at 1e-{shown}.",
        "Steps",
        "log10 probability",
        paths,
        x_log=True,
        levels={"equilibrium": float(np.log10(study["equilibrium_probability"]))},
    )
    times = [
        Line(
            title,
            [r["power"] for r in own],
            [r["regrown_at"] for r in own],
            points=True,
        )
        for title in dict.fromkeys(run["title"] for run in study["runs"])
        if (own := [r for r in study["runs"] if r["title"] == title and r["regrown_at"]])
    ]
    if not times:
        return [curve]
    return [
        curve,
        LineChart(
            "regrowth-times",
            "Steps to regrow",
            "Steps until the response has half its equilibrium probability, against the decades "
            "that it has to climb. A method without dots never got there.",
            "Decades below 1",
            "Steps",
            times,
            height=260.0,
        ),
    ]


def _networks(results: Results) -> list[LineChart]:
    drawn = []
    for name, found in results["neural"].items():
        lines = [
            _curve(found, key)
            for key, row in found["contestants"].items()
            if row["iterate"] == "last"
        ]
        drawn.append(
            _gap_chart(
                f"networks-{name}",
                f"Networks, {found['title']}",
                f"{found['title']}: median gap of the last policy, each method at its best "
                "learning rate.",
                lines,
                "Gradient steps",
            )
        )
    return drawn


def _steps(results: Results) -> list[LineChart]:
    name, found = next(iter(results["tabular"].items()))
    lines = []
    for method in _LAST:
        best: dict[float, float] = {}
        for row in found["sweep"]:
            final = row["final_gap"][1]
            if row["contestant"].split(":")[0] == method and final is not None:
                best[row["eta"]] = min(final, best.get(row["eta"], np.inf))
        title = found["contestants"][found["chosen"][method]]["title"]
        lines.append(Line(title, list(best), list(best.values())))
    return [
        LineChart(
            f"steps-{name}",
            f"Final gap by mirror step, {found['title']}",
            f"{found['title']}: median final gap of the last policy.",
            "Mirror step eta (nats per unit of win probability)",
            _GAP,
            lines,
            x_log=True,
            y_log=True,
        )
    ]


def charts(results: Results) -> dict[str, list[LineChart]]:
    """Figures by section of the page."""
    return {
        "matrices": _matrices(results),
        "average": _average(results),
        "linear": _linear(results),
        "floors": _floors(results),
        "regrowth": _regrowth(results),
        "networks": _networks(results),
        "steps": _steps(results),
    }
