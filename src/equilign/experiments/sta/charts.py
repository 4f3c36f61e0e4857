"""The figures: which series they hold."""

from collections.abc import Sequence

import numpy as np

from equilign.experiments.sta.contestants import CONTESTANTS, TITLES
from equilign.experiments.sta.pareto import front
from equilign.experiments.sta.results import Course, Results
from equilign.experiments.sta.tasks import TASKS, Task
from equilign.reports.reproduction_figures import Line, LineChart
from equilign.reports.tables import Table


def deviation(by_seed: np.ndarray) -> np.ndarray:
    """Standard deviation over seeds, the first axis; 0 with one seed."""
    found: np.ndarray = by_seed.std(axis=0, ddof=1) if len(by_seed) > 1 else 0.0 * by_seed[0]
    return found


def _banded(label: str, x: Sequence[float], by_seed: np.ndarray) -> Line:
    mean, off = by_seed.mean(axis=0), deviation(by_seed)
    return Line(label, list(x), mean.tolist(), (mean - off).tolist(), (mean + off).tolist())


def _numbers(lines: Sequence[Line], caption: str, x: str, y: str) -> Table:
    rows = [
        (
            line.label,
            f"{line.x[i]:.2f}",
            *(f"{side[i]:.3f}" for side in (line.y, line.low or (), line.high or ()) if side),
        )
        for line in lines
        for i in range(len(line.x))
    ]
    sides = ("– deviation", "+ deviation") if lines and lines[0].low is not None else ()
    return Table(caption, ("Method", x, y, *sides), rows, 2 + len(sides))


def reward_chart(results: Results, task: Task) -> LineChart:
    """Reward on held-out prompts against examples seen."""
    lines = [
        _banded(TITLES[name], [float(n) for n in c.examples], c.reward.mean(axis=2))
        for name, c in results.courses[task.name].items()
    ]
    title = f"Reward against examples seen, {task.title}"
    return LineChart(
        f"reward-{task.name}",
        title,
        f"{title}: mean over held-out prompts; bands are one standard deviation over seeds.",
        "Prompts seen",
        "Ground-truth reward",
        lines,
        x_whole=True,
        table=_numbers(lines, title, "Prompts seen", "Reward"),
    )


def _front(label: str, course: Course) -> Line:
    kl = np.maximum(course.kl.mean(axis=0), 0.0)
    reward = course.reward.mean(axis=(0, 2))
    kept = front(kl.tolist(), reward.tolist())
    return Line(label, [float(kl[i]) for i in kept], [float(reward[i]) for i in kept])


def front_chart(results: Results, task: Task) -> LineChart:
    """Reward against distance, dominated points removed."""
    lines = [_front(TITLES[name], c) for name, c in results.courses[task.name].items()]
    title = f"Reward against KL divergence, {task.title}"
    return LineChart(
        f"front-{task.name}",
        title,
        f"{title}: the same held-out prompts for all, means over seeds; policies that another one "
        "of the same method dominates are left out.",
        "KL divergence to the start model (nats per answer)",
        "Ground-truth reward",
        lines,
        table=_numbers(lines, title, "KL (nats)", "Reward"),
    )


def running_mean(values: np.ndarray) -> np.ndarray:
    """Mean of all values so far, along the last axis."""
    found: np.ndarray = np.cumsum(values, axis=-1) / np.arange(1, values.shape[-1] + 1)
    return found


def _curves(results: Results, task: Task, part: str, key: str, x: str, step: float) -> list[Line]:
    lines = []
    for c in CONTESTANTS:
        found = [p[part] for p in results.pieces[task.name][c.name]]
        if not all(f.get(key) for f in found):
            continue
        # A resumed piece may lack rounds that were not kept.
        size = min(len(f[key]) for f in found)
        by_seed = running_mean(np.array([f[key][:size] for f in found], dtype=np.float64))
        lines.append(_banded(c.title, [step * float(v) for v in found[0][x][:size]], by_seed))
    return lines


def convergence_charts(results: Results, task: Task) -> list[LineChart]:
    """The reward model's loss and the policy's reward while they learn, cumulative averages."""
    charts = []
    batch = float(results.scale.batch)
    for key, (part, name, x, step, title, y) in {
        "loss": ("learning", "reward_loss", "round", batch, "Loss of the reward model", "Nats"),
        "played": ("played", "reward", "examples", 1.0, "Reward of what was sampled", "Reward"),
    }.items():
        lines = _curves(results, task, part, name, x, step)
        charts.append(
            LineChart(
                f"{key}-{task.name}",
                f"{title}, {task.title}",
                f"{title} while learning, {task.title}: mean of all values so far; bands are one "
                "standard deviation over seeds.",
                "Prompts seen",
                y,
                lines,
                table=_numbers(lines, title, "Prompts seen", y),
            )
        )
    return charts


def charts(results: Results) -> dict[str, list[LineChart]]:
    """All of them, by section."""
    return {
        "reward": [reward_chart(results, task) for task in TASKS],
        "fronts": [front_chart(results, task) for task in TASKS],
        "convergence": [c for task in TASKS for c in convergence_charts(results, task)],
    }
