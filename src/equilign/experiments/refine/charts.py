"""Pictures of a refinement."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from equilign.evaluation.best_of_n import PLAYERS
from equilign.reports.reproduction_figures import Line, LineChart, save_chart


def charts(summary: Mapping[str, Any]) -> list[LineChart]:
    """Win rate and length by round, and by generated answers where that was compared."""
    rounds = summary["rounds"]
    numbers = [0, *(r["round"] for r in rounds)]
    found = []
    if any(r["win_rate_vs_leader"] is not None for r in rounds):
        win, low, high = (
            [0.5, *(r[k] for r in rounds)] for k in ("win_rate_vs_leader", "low", "high")
        )
        found.append(
            LineChart(
                "refine-win-rate",
                "Win rate over the Leader's own answer, by round",
                "Share of verdicts that prefer the refined answer to the one that its chain began "
                "with; the band is the 95 % interval over prompts.",
                "Rounds of refinement",
                "Win rate over the Leader's answer",
                [Line("Refined answer", numbers, win, low, high)],
                levels={"equal": 0.5},
                x_whole=True,
            )
        )
    tokens = [summary["leader"]["mean_tokens"], *(r["mean_tokens"] for r in rounds)]
    found.append(
        LineChart(
            "refine-length",
            "Length of the answers, by round",
            "Mean length in tokens of the Follower's tokenizer.",
            "Rounds of refinement",
            "Tokens",
            [Line("Refined answer", numbers, tokens)],
            x_whole=True,
        )
    )
    if summary["compare"] is not None:
        found.append(_budgets(summary["compare"]))
    return found


def _budgets(compare: Mapping[str, Any]) -> LineChart:
    lines = [
        Line(p["title"], compare["answers"], p["win_rate"], p["low"], p["high"])
        for p in (compare["players"][name] for name in PLAYERS)
    ]
    return LineChart(
        "refine-budget",
        "Win rate over one answer of the Leader, by generated answers",
        "Everybody plays the same further answers of the Leader.",
        "Generated answers",
        "Win rate over one answer of the Leader",
        lines,
        levels={"equal": 0.5},
        x_whole=True,
    )


def save_charts(summary: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write every picture as SVG and PNG into ``figures/`` of the folder."""
    return [path for chart in charts(summary) for path in save_chart(chart, folder / "figures")]
