"""What the page says, section by section, as plain values for the template."""

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from markupsafe import escape

from equilign.reports.run import Example, Method, Run
from equilign.reports.tables import Table
from equilign.reports.words import (
    DASH,
    MISSING,
    NBSP,
    cycle_summary,
    duration,
    interval,
    judge_note,
    method_summary,
    percent,
    plural,
    share,
)
from equilign.text import visible

MOST_CHARACTERS = 20_000
"""The longest text shown whole."""
MOST_ROWS = 300
_DEEPEST = 6
_ARXIV = re.compile(r"arxiv:\s*(\d{4}\.\d{4,5}(?:v\d+)?)", re.IGNORECASE)
_HEADLINES = {"better": "Better", "worse": "Worse", "equal": "Equal", "unknown": "Not judged"}


def clip(text: str, most: int = MOST_CHARACTERS) -> str:
    """Shorten a text that would swamp the page, and say so."""
    if len(text) <= most:
        return text
    return f"{text[:most]}… ({len(text) - most:,} more characters)"


def _tiles(method: Method, run: Run) -> list[dict[str, str]]:
    tiles = []
    if method.win.value is not None:
        bounds = interval(method.win)
        tiles.append(
            ("Preferred to the start", percent(method.win.value), bounds and f"95 %: {bounds}")
        )
    if method.kl is not None:
        tiles.append(("Distance moved", f"{method.kl:.{1 if abs(method.kl) >= 1 else 2}f}", "nats"))
    if method.tokens is not None:
        before = "" if run.start_tokens is None else f"{run.start_tokens:.1f} at the start"
        tiles.append(("Tokens per answer", f"{method.tokens:.1f}", before))
    if method.seconds is not None:
        tiles.append(("Training time", duration(method.seconds), ""))
    return [{"name": name, "value": value, "note": note} for name, value, note in tiles]


def method_parts(run: Run) -> list[dict[str, Any]]:
    """Return the summary's words, key figures and citation for each method."""
    parts = []
    for method in run.methods:
        cited = _ARXIV.fullmatch(method.paper.strip())
        parts.append(
            {
                "title": method.title,
                "words": method_summary(method, run),
                "tiles": _tiles(method, run),
                "paper": method.paper,
                "link": f"https://arxiv.org/abs/{cited[1]}" if cited else "",
            }
        )
    return parts


def verdict_of(example: Example) -> str:
    """Classify an example by the judge's probability."""
    if example.probability is None:
        return "unknown"
    # A vote of several attributes may miss one half by a rounding error.
    if abs(example.probability - 0.5) < 1e-9:
        return "equal"
    return "better" if example.probability > 0.5 else "worse"


def _scores(attributes: Mapping[str, float]) -> str:
    groups = (
        ("Better on", [name for name, score in attributes.items() if score > 0.5]),
        ("Equal on", [name for name, score in attributes.items() if score == 0.5]),
        ("Worse on", [name for name, score in attributes.items() if score < 0.5]),
    )
    said = [f"{lead} {', '.join(names)}." for lead, names in groups if names]
    return clip(" ".join(said))


def _answer(example: Example, method: int, title: str) -> dict[str, str]:
    verdict = verdict_of(example)
    note = "" if example.probability is None else f"win probability {percent(example.probability)}"
    return {
        "verdict": verdict,
        "headline": _HEADLINES[verdict],
        "note": " · ".join(item for item in (note, title) if item),
        "method": str(method),
        "prompt": clip(example.prompt),
        "before": clip(example.before),
        "after": clip(example.after),
        "scores": _scores(example.attributes),
    }


def _page_size(answer: Mapping[str, str]) -> int:
    return 500 + sum(len(escape(visible(text)).encode()) for text in answer.values())


def answers(run: Run, budget: int) -> list[dict[str, str]]:
    """Return the answers to show, each method's first ones within its part of a byte budget."""
    shown: list[dict[str, str]] = []
    several = len(run.methods) > 1
    for i, method in enumerate(run.methods):
        left = budget // len(run.methods)
        for example in method.examples:
            answer = _answer(example, i, method.title if several else "")
            left -= _page_size(answer)
            if left < 0:
                break
            shown.append(answer)
    return shown


def answer_parts(run: Run, budget: int) -> dict[str, Any]:
    """Return the answers with the sentence and the filters above them."""
    shown = answers(run, budget)
    total = sum(len(method.examples) for method in run.methods)
    verdicts = [answer["verdict"] for answer in shown]
    words = (
        "The same prompt, answered by the start model and by the trained model. "
        "The win probability is how likely the judge is to prefer the trained model’s answer."
    )
    if len(shown) < total:
        words += (
            f" To keep the page small it holds {len(shown):,} of {plural(total, 'answer')}; "
            "the run’s JSON summary holds all of them."
        )
    return {
        "answers": shown,
        "answer_words": words,
        "answer_methods": [(i, m.title) for i, m in enumerate(run.methods) if m.examples],
        "choices": [
            ("all", "All", len(shown)),
            ("better", "Better", verdicts.count("better")),
            ("worse", "Worse", verdicts.count("worse")),
        ],
    }


def judges_table(run: Run) -> Table:
    """Return the oracle's attributes with how far each can be trusted."""
    rows = []
    for judge in run.judges:
        unknown = "rule, not fitted" if judge.kind == "rule" else DASH
        accuracy = unknown if judge.accuracy.value is None else share(judge.accuracy)
        rows.append((judge.name, clip(judge.description, 2000), judge.kind or DASH, accuracy))
    caption = f"Attributes of the oracle “{run.oracle}”" if run.oracle else "Attributes"
    header = ("Attribute", "What it looks at", "Kind", "Held-out accuracy")
    return Table(caption, header, rows, 1)


def _flat(value: object, name: str, depth: int) -> Iterator[tuple[str, str]]:
    if isinstance(value, Mapping) and value and depth < _DEEPEST:
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else str(key), depth + 1)
    elif isinstance(value, str):
        yield name, clip(value, 1000)
    else:
        yield name, clip(json.dumps(value, ensure_ascii=False, default=str, skipkeys=True), 1000)


def flat_rows(values: Mapping[str, Any]) -> Sequence[tuple[str, str]]:
    """Return nested values as rows of dotted name and value."""
    rows = [(clip(name, 300), value) for name, value in _flat(values, "", 0)] if values else []
    if len(rows) > MOST_ROWS:
        rows = [*rows[:MOST_ROWS], ("…", f"{len(rows) - MOST_ROWS:,} more values")]
    return rows


def facts(run: Run) -> list[tuple[str, str]]:
    """Return what the run took and worked on."""

    def counted(value: int | None) -> str:
        return MISSING if value is None else f"{value:,}"

    memory = MISSING if run.memory is None else f"{run.memory:,.0f}{NBSP}MB"
    return [
        ("Whole run", duration(run.seconds)),
        *((m.title, duration(m.seconds)) for m in run.methods),
        ("Peak memory", memory),
        ("Prompts for training", counted(run.train)),
        ("Prompts for evaluation", counted(run.evaluation)),
        ("Samples per prompt", counted(run.samples)),
        ("Start model", run.model or MISSING),
        ("Seed", run.seed or MISSING),
        ("Output folder", clip(run.output, 1000) or MISSING),
    ]


def heading(run: Run) -> dict[str, str]:
    """Return the page's title and the line above it."""
    names = ", ".join(method.title for method in run.methods[:4])
    more = f" and {len(run.methods) - 4} more" if len(run.methods) > 4 else ""
    command = f"equilign {run.command}" if run.command else "equilign"
    parts = [command, run.model, f"seed {run.seed}" if run.seed else ""]
    return {
        "title": f"Training report: {names}{more}" if names else "Training report",
        "kicker": " · ".join(part for part in parts if part),
    }


def page_content(run: Run, budget: int) -> dict[str, Any]:
    """Return everything the template shows except figures, styles and scripts."""
    return {
        **heading(run),
        "methods": method_parts(run),
        "judge_note": judge_note(run),
        "cycle_words": [words for m in run.methods if (words := cycle_summary(m, run))],
        **answer_parts(run, budget),
        "judges": judges_table(run),
        "facts": facts(run),
        "config": flat_rows(run.config),
        "environment": flat_rows(run.environment),
    }
