"""The figures: which series they hold."""

from collections.abc import Mapping

import numpy as np

from equilign.evaluation.spread import RATE, Interval, spread
from equilign.experiments.slhf.contestants import SLHF
from equilign.experiments.slhf.pieces import START
from equilign.experiments.slhf.playing import LEADER
from equilign.experiments.slhf.results import TITLES, Results
from equilign.reports.reproduction_figures import Line, LineChart
from equilign.reports.tables import Table

MEASURES: Mapping[str, tuple[str, str]] = {
    "win_rate": (
        "Win rate of the best of N",
        "Chosen and judged by the training oracle against different answers of the start model.",
    ),
    "reward": (
        "Mean reward of the best of N",
        "Chosen by win rate; mean over voters of scores in standard deviations of the start "
        "model’s.",
    ),
    "personal": (
        "What one voter gets from N answers",
        "Each voter of the panel chooses for themselves and judges by their own scores; mean over "
        "voters.",
    ),
}


def _line(label: str, values: np.ndarray, bounds: Interval = RATE) -> Line:
    """``(seeds, prompts, N)`` against N = 1, 2, ..."""
    found = [spread(values[..., n], bounds) for n in range(values.shape[-1])]
    x = [float(n + 1) for n in range(len(found))]
    low, high = ([s.both[end] for s in found] for end in (0, 1))
    return Line(label, x, [s.value for s in found], low, high)


def _numbers(lines: list[Line], caption: str, x: str) -> Table:
    rows = [
        (
            line.label,
            f"{line.x[i]:g}",
            *(f"{side[i]:.3f}" for side in (line.y, line.low or (), line.high or ())),
        )
        for line in lines
        for i in range(len(line.x))
    ]
    return Table(caption, ("Series", x, "Mean", "low", "high"), rows, 4)


def _name(curve: str) -> str:
    kind, _, who = curve.partition(", ")
    return f"{kind}, {TITLES[who]}"


def sample_charts(results: Results) -> list[LineChart]:
    """Win rate, reward and personal win rate against the number of answers."""
    charts = []
    for measure, (title, words) in MEASURES.items():
        bounds = (-np.inf, np.inf) if measure == "reward" else RATE
        lines = [_line(_name(c), m[measure], bounds) for c, m in results.curves.items()]
        charts.append(
            LineChart(
                f"samples-{measure}",
                title,
                f"{words} Bands are 95 % intervals over seeds and prompts. A refinement’s first "
                "answer is its Leader’s.",
                "Number of answers N",
                title.partition(" of ")[0] if measure != "personal" else "Own win rate",
                lines,
                x_whole=True,
                levels={} if measure == "reward" else {"": 0.5},
                table=_numbers(lines, title, "N"),
            )
        )
    return charts


def refinement_charts(results: Results) -> list[LineChart]:
    """The answer that stands after each round."""
    lines = []
    for who in (START, LEADER):
        values = results.curves[f"refinement, {who}"]["last_win_rate"]
        line = _line(f"begun by {TITLES[who]}", values)
        lines.append(
            Line(line.label, [float(x or 0.0) - 1.0 for x in line.x], line.y, line.low, line.high)
        )
    title = "Refinement round by round"
    return [
        LineChart(
            "refinement",
            title,
            "Win rate of the answer that stands, nobody choosing, over answers of the start model; "
            "bands are 95 % intervals over seeds and prompts.",
            "Rounds of refinement",
            "Win rate over the start model",
            lines,
            x_whole=True,
            levels={"": 0.5},
            table=_numbers(lines, title, "Round"),
        )
    ]


def kappa_charts(results: Results) -> list[LineChart]:
    """Leader and Follower against kappa; nothing where the scale has no sweep."""
    if not results.sweep:
        return []
    x = [s.kappa for s in results.sweep]
    lines = []
    for label, values in (
        ("Leader over start", [spread(s.leader(), RATE) for s in results.sweep]),
        ("Follower over start", [spread(s.follower(), RATE) for s in results.sweep]),
        ("Follower over its Leader", [spread(s.ahead(), RATE) for s in results.sweep]),
    ):
        low, high = ([s.told[end] for s in values] for end in (0, 1))
        lines.append(Line(label, x, [s.value for s in values], low, high))
    title = "Win rates against kappa"
    of = "prompts; one seed" if len(results.sweep[0].seeds) == 1 else "seeds and prompts"
    return [
        LineChart(
            "kappa",
            title,
            "One model plays both; kappa is the weight of the Follower’s loss against the "
            f"Leader’s. Bands are 95 % intervals over {of}.",
            "kappa",
            "Win rate",
            lines,
            x_log=True,
            levels={"": 0.5},
            table=_numbers(lines, title, "kappa"),
        )
    ]


def training_charts(results: Results) -> list[LineChart]:
    """How the Follower's win rate over its Leader went during training, a line per seed."""
    lines = []
    for seed, piece in zip(results.seeds, results.pieces[SLHF], strict=True):
        values = np.array(piece["curve"]["follower_win_rate"])
        size = max(1, len(values) // 20)
        parts = [values[i : i + size] for i in range(0, len(values), size)]
        x = [float(min(len(values), (n + 1) * size)) for n in range(len(parts))]
        lines.append(Line(f"seed {seed}", x, [float(p.mean()) for p in parts]))
    return [
        LineChart(
            "training",
            "The Follower’s win rate during training",
            "Over the very answers that it was shown, on the training prompts of each round; means "
            "of neighbouring rounds.",
            "Round",
            "Win rate over its Leader",
            lines,
            x_whole=True,
            levels={"": 0.5},
        )
    ]


def hit_charts(results: Results) -> list[LineChart]:
    """A random annotator's favourite."""
    hits = results.tabular["hits"]
    count = len(hits["refinement"]["exact"])
    x = [float(n) for n in range(1, count + 1)]
    lines = [
        Line("refinement", x, hits["refinement"]["exact"]),
        Line("independent answers of the Nash policy", x, hits["independent"]["exact"]),
    ]
    title = "A random annotator is shown their favourite"
    rows = [
        (line.label, f"{a:g}", f"{b:.3f}") for line in lines for a, b in zip(x, line.y, strict=True)
    ]
    return [
        LineChart(
            "favourite",
            title,
            "Condorcet’s paradox, exactly: how probably N answers contain the favourite of an "
            "annotator drawn at random.",
            "Number of answers N",
            "Probability",
            lines,
            x_whole=True,
            table=Table(title, ("Answers", "N", "Probability"), rows, 2),
        )
    ]
