"""The page of a fitted judge: what it is worth on held-out prompts, and how it came about."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from equilign.reports.reproduction import ReproductionPage, Section, render_reproduction
from equilign.reports.reproduction_figures import Line, LineChart
from equilign.reports.tables import Table
from equilign.reports.words import duration

_NAMES = {"reward": "reward model", "pairwise": "pairwise judge", "general": "general judge"}


def render_judge_report(summary: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write ``report.html`` and the figures of a summary of `equilign.fitting.run_fit_oracle`.

    Returns:
        The figures' paths.
    """
    return render_reproduction(judge_page(summary), folder)


def judge_page(summary: Mapping[str, Any]) -> ReproductionPage:
    """The content of the page."""
    h, kind = summary["held_out"], summary["kind"]
    return ReproductionPage(
        title=f"A {_NAMES[kind]} fitted to preferences",
        kicker=f"equilign fit-oracle {kind} · {summary['base']} · seed {summary['seed']}",
        paper=summary["paper"],
        lead=_lead(summary),
        claims=summary["claims"],
        sections=[
            Section(
                "reliability",
                "Are its probabilities right?",
                [
                    "Each point is a group of held-out verdicts of similar confidence. On the "
                    "diagonal, a confidence of 80 % is right in 80 % of the cases; below it the "
                    "judge is overconfident. The band is a 95 % interval over prompts.",
                    f"Calibration error {h['calibration_error']:.3f} "
                    f"({h['calibration_low']:.3f} to {h['calibration_high']:.3f}): the root mean "
                    f"square distance from the diagonal over {h['calibration_bins']} bins of equal "
                    "size, corrected for noise. The mean absolute distance (expected calibration "
                    f"error), which noise enlarges, is {h['expected_calibration_error']:.3f}.",
                ],
                [_reliability(h["bins"])],
            ),
            Section("numbers", "Against what needs no judge", (), (), [_numbers(summary)]),
            *_comparison(summary),
            Section(
                "learning",
                "How it learned",
                [
                    "The epoch with the smallest validation loss was kept. Validation losses are "
                    "those after scaling, as the finished judge’s margins are scaled."
                ],
                [_curve(summary["curves"])],
            ),
        ],
        facts=_facts(summary),
        config=summary["config"],
        environment=summary["environment"],
    )


def _lead(summary: Mapping[str, Any]) -> list[str]:
    h = summary["held_out"]
    words = {True: "better than chance", False: "worse than chance"}.get(
        summary["claims"][0]["holds"], "not distinguishable from chance"
    )
    lead = [
        f"On {h['prompts']} prompts that it has not seen, the judge agrees with the majority on "
        f"{100 * h['accuracy']:.1f} % of the pairs (95 %: {100 * h['low']:.1f} to "
        f"{100 * h['high']:.1f} %): {words}. Its log-loss is {h['log_loss']:.3f} nats "
        f"({h['log_loss_low']:.3f} to {h['log_loss_high']:.3f}); always saying one half costs "
        f"0.693, and disagreement among the labels themselves {h['label_entropy']:.3f}."
    ]
    if summary["comparison"] is not None:
        lead.append(f"Does intransitivity buy anything here? {summary['comparison']['words']}")
    return lead


def _reliability(bins: Sequence[Mapping[str, Any]]) -> LineChart:
    x = [b["confidence"] for b in bins]
    rows = [
        (
            f"{b['low']:.2f} to {b['high']:.2f}",
            str(b["pairs"]),
            f"{b['confidence']:.3f}",
            f"{b['right']:.3f}",
            f"{b['right_low']:.3f} to {b['right_high']:.3f}",
        )
        for b in bins
    ]
    header = ("confidence", "pairs", "mean confidence", "right", "95 % interval")
    return LineChart(
        key="reliability",
        title="Share of right verdicts by confidence",
        caption="Share of right verdicts against confidence, by bin.",
        x_label="confidence of the verdict",
        y_label="share of right verdicts",
        lines=[
            Line(
                "judge",
                x,
                [b["right"] for b in bins],
                [b["right_low"] for b in bins],
                [b["right_high"] for b in bins],
            )
        ],
        diagonal=True,
        table=Table("Bins of confidence", header, rows, 4),
    )


def _curve(curves: Mapping[str, Mapping[str, Sequence[Sequence[float]]]]) -> LineChart:
    lines, rows = [], []
    for kind, curve in curves.items():
        for part in ("train", "validation"):
            points = curve[part]
            lines.append(Line(f"{_NAMES[kind]}, {part}", *_columns(points)))
        accuracy = {epoch: value for epoch, value in curve["validation_accuracy"]}
        rows += [
            (_NAMES[kind], f"{epoch:g}", f"{loss:.4f}", f"{accuracy[epoch]:.3f}")
            for epoch, loss in curve["validation"]
        ]
    header = ("judge", "epoch", "validation log-loss", "validation accuracy")
    return LineChart(
        key="learning-curve",
        title="Loss by epoch",
        caption="Training and validation loss by epoch. Where the validation loss rises while the "
        "training loss falls, the judge learns its pairs by heart.",
        x_label="epoch",
        y_label="log-loss (nats per pair)",
        lines=lines,
        levels={"one half": 0.6931471805599453},
        table=Table("Validation after each epoch", header, rows, 3),
    )


def _columns(points: Sequence[Sequence[float]]) -> tuple[list[float], list[float]]:
    return [p[0] for p in points], [p[1] for p in points]


def _numbers(summary: Mapping[str, Any]) -> Table:
    h, b = summary["held_out"], summary["baselines"]
    longer, fitted = b["longer_wins"], b["length_judge"]
    rows = [
        (_NAMES[summary["kind"]], _percents(h), f"{h['log_loss']:.3f}"),
        ("the longer answer wins", _percents(longer), "–"),
        (
            f"length, fitted (weight {fitted['weight']:+.2f})",
            f"{100 * fitted['accuracy']:.1f} %",
            f"{fitted['log_loss']:.3f}",
        ),
        ("one half, always", "50.0 %", "0.693"),
        ("disagreement of the labels", "–", f"{h['label_entropy']:.3f}"),
    ]
    header = ("judge", "accuracy", "log-loss (nats)")
    return Table("Held-out accuracy and log-loss", header, rows, 2)


def _percents(values: Mapping[str, Any]) -> str:
    value, low, high = (100 * values[name] for name in ("accuracy", "low", "high"))
    return f"{value:.1f} % ({low:.1f} to {high:.1f} %)"


def _comparison(summary: Mapping[str, Any]) -> list[Section]:
    found = summary["comparison"]
    if found is None:
        return []
    several = summary["data"]["prompts_with_three_answers"]
    paragraphs = [
        found["words"],
        "Both judges had the same data, start and budget; the interval is over prompts, of the "
        "difference on the same held-out pairs. "
        f"{several:,} prompts of the data have three answers or more: only there can a cycle "
        "among the answers to one prompt show.",
    ]
    rows = [
        (
            _NAMES[found[side]["kind"]],
            _percents(found[side]),
            f"{found[side]['log_loss']:.3f} ({found[side]['log_loss_low']:.3f} to "
            f"{found[side]['log_loss_high']:.3f})",
        )
        for side in ("transitive", "other")
    ]
    table = Table("Held-out, both judges", ("judge", "accuracy", "log-loss (nats)"), rows, 2)
    return [Section("intransitivity", "Does intransitivity buy anything?", paragraphs, (), [table])]


def _facts(summary: Mapping[str, Any]) -> list[tuple[str, str]]:
    data = summary["data"]
    facts = [("Time", duration(summary["seconds"]))]
    facts += [("Peak memory", f"{summary['peak_memory_mb']:,.0f} MB")]
    facts += [("Parameters", f"{summary['parameters']:,}")]
    for part in ("train", "validation", "held_out"):
        name = part.replace("_", "-")
        facts.append(
            (f"Pairs, {name}", f"{data['pairs'][part]:,} on {data['prompts'][part]:,} prompts")
        )
    facts += [
        ("Ties among the labels", f"{100 * data['ties']:.1f} %"),
        ("Soft labels", f"{100 * data['soft_labels']:.1f} %"),
        ("Scale, set on validation", f"{summary['scale']:.3g}"),
        ("Prompts cut at the length limit", f"{summary['cut_prompts']:,}"),
        ("Answers cut at the length limit", f"{summary['cut_answers']:,}"),
        ("Judge", summary["judge"]),
    ]
    return facts
