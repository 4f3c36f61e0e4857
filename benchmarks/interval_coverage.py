"""How often intervals hold the true mean; prints the tables of docs/explanation/intervals.md.

python benchmarks/interval_coverage.py [FOLDER FOR THE FIGURE]
"""

import sys
from pathlib import Path

import numpy as np
from scipy import stats

from equilign.evaluation import Estimate, clustered_mean, wilson
from equilign.evaluation.coverage import Design, Interval, coverage
from equilign.evaluation.spread import RATE, spread
from equilign.reports.reproduction_figures import Line, LineChart, save_chart

RUNS = 4000
SHAPES = ((1.0, 1.0), (4.0, 4.0), (0.5, 0.5), (2.0, 8.0), (0.5, 4.5), (0.2, 3.8))
SEEN = (
    ("seen exactly", None, 0.0),
    ("one comparison", (1, 1), 0.0),
    ("1 to 7 comparisons", (1, 7), 0.0),
    ("1 to 7, 30 % ties", (1, 7), 0.3),
)


def student(values: np.ndarray) -> Estimate:
    """Student's t interval, cut to the range."""
    half = stats.t.ppf(0.975, len(values) - 1) * values.std(ddof=1) / len(values) ** 0.5
    mean = float(values.mean())
    return Estimate(mean, max(0.0, mean - half), min(1.0, mean + half), len(values))


def table() -> None:
    """Both intervals by design."""
    print("| prompts | rates | mean | each prompt | Student | clustered |")
    print("|---:|---|---:|---|---:|---:|")
    for prompts in (5, 20, 100):
        for a, b in SHAPES:
            for name, count, ties in SEEN:
                design = Design(prompts, a, b, count, ties)
                found = [coverage(i, design, RUNS).share for i in (student, clustered_mean)]
                shares = " | ".join(f"{100 * s:.1f}" for s in found)
                row = f"{prompts} | Beta({a:g}, {b:g}) | {design.truth:.2f} | {name}"
                print(f"| {row} | {shares} |", flush=True)


def shares_of_prompts() -> None:
    """Wilson's interval over the binomial law: exact, no simulation."""
    print("| prompts | lowest | mean | highest |")
    print("|---:|---:|---:|---:|")
    for trials in (5, 20, 100, 500):
        held = []
        ends = [wilson(k, trials) for k in range(trials + 1)]
        for share in np.linspace(0.02, 0.98, 193):
            law = stats.binom.pmf(np.arange(trials + 1), trials, share)
            held.append(sum(p for p, e in zip(law, ends, strict=True) if e.low <= share <= e.high))
        cells = (min(held), float(np.mean(held)), max(held))
        print(f"| {trials} | " + " | ".join(f"{100 * c:.1f}" for c in cells) + " |")


def seeds_and_prompts() -> None:
    """The interval over seeds and prompts; both drawn anew each time, four comparisons each."""
    print("| mean | spread of seeds | both | prompts alone | seeds alone |")
    print("|---:|---:|---:|---:|---:|")
    rng = np.random.default_rng(0)
    for mean, of_seeds in ((0.6, 0.0), (0.6, 0.05), (0.9, 0.0), (0.9, 0.03)):
        hits = {"both": 0, "prompts": 0, "seeds": 0}
        for _ in range(1500):
            rates = rng.beta(4 * mean, 4 * (1 - mean), (1, 96))
            rates = (rates + rng.normal(0, of_seeds, (5, 1))).clip(0, 1)
            found = spread(rng.binomial(4, rates) / 4, RATE)
            for name in hits:
                low, high = getattr(found, name)
                hits[name] += low <= mean <= high
        cells = " | ".join(f"{100 * h / 1500:.1f}" for h in hits.values())
        print(f"| {mean} | {of_seeds} | {cells} |", flush=True)


def figure(folder: Path) -> None:
    """Coverage by the true mean."""
    means = (0.02, 0.05, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5)
    ways: dict[str, Interval] = {"Student’s t": student, "equilign": clustered_mean}
    lines = []
    for name, interval in ways.items():
        for prompts in (5, 20, 100):
            designs = [Design(prompts, 5 * m, 5 * (1 - m)) for m in means]
            held = [coverage(interval, d, 1500).share for d in designs]
            lines.append(Line(f"{name}, {prompts} prompts", means, held))
    chart = LineChart(
        "interval-coverage",
        "How often a 95 % interval holds the true win rate",
        "Prompts' own win rates from a beta distribution, one to seven comparisons on each.",
        "True win rate (1 minus it gives the same)",
        "Share of intervals that hold it",
        lines,
        levels={"95 %": 0.95},
    )
    for path in save_chart(chart, folder):
        print(path)


if __name__ == "__main__":
    table()
    shares_of_prompts()
    seeds_and_prompts()
    if len(sys.argv) > 1:
        figure(Path(sys.argv[1]))
