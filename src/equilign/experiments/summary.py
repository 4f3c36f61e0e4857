"""The summary of a run: summary.json, the page, and what `--json` prints."""

import json
from pathlib import Path
from typing import Any

from equilign.evaluation.callback import load_groups
from equilign.files import read_jsonl, write_json
from equilign.methods import get_method
from equilign.oracles import Panel, compare_symmetric
from equilign.reports import render_report, save_figures
from equilign.rollout import prompt_text


def describe_panel(panel: Panel) -> dict[str, Any]:
    """Who judged, with what is known about each voter."""
    attributes = []
    for a in panel.attributes:
        accuracy, low, high = a.held_out or (None, None, None)
        attributes.append(
            {
                "name": a.name,
                "description": a.description,
                "kind": a.kind,
                "held_out_accuracy": accuracy,
                "low": low,
                "high": high,
            }
        )
    return {"name": "restaurant panel", "attributes": attributes}


def examples(folder: Path, panel: Panel, name: str, number: int) -> list[dict[str, Any]]:
    """First answers to every evaluation prompt, before and after, with the judge's verdict."""
    start = load_groups(folder / "evaluation" / "start.answers.jsonl")
    policy = load_groups(folder / "evaluation" / f"{name}-{number:03d}.answers.jsonl")
    prompts = [prompt_text(g.prompt) for g in start]
    before = [g.completions[0].text for g in start]
    after = [g.completions[0].text for g in policy]
    verdicts = compare_symmetric(panel, prompts, after, before)
    votes = panel.votes(prompts, after, before)
    names = [a.name for a in panel.attributes]
    return [
        {
            "prompt": prompts[i],
            "before": before[i],
            "after": after[i],
            "win_prob": float(verdicts[i]),
            "attributes": {n: float(v) for n, v in zip(names, votes[:, i], strict=True)},
        }
        for i in range(len(prompts))
    ]


def _training_means(folder: Path, name: str) -> dict[int, dict[str, float]]:
    """Per round, the mean training loss and what was measured on the round's own samples."""
    found: dict[int, dict[str, float]] = {}
    losses: dict[int, list[float]] = {}
    for row in read_jsonl(folder / "metrics.jsonl"):
        if row["method"] != name:
            continue
        if row["kind"] == "step":
            losses.setdefault(row["round"], []).append(row["loss"])
        elif row["kind"] == "round":
            found[row["round"]] = {
                "train_cyclic_prompts_share": row["cyclic_prompts_share"],
                "train_finished_share": row["finished_share"],
            }
    for number, values in losses.items():
        found.setdefault(number, {})["loss"] = sum(values) / len(values)
    return found


def _method_summary(
    folder: Path, panel: Panel, name: str, rounds: list[dict[str, Any]], seconds: float
) -> dict[str, Any]:
    training = _training_means(folder, name)
    public = [
        {k: v for k, v in r.items() if k != "per_prompt"} | training.get(r["round"], {})
        for r in rounds
    ]
    method = get_method(name)
    return {
        "title": method.title,
        "paper": method.paper,
        "rounds": public,
        "final": {k: v for k, v in public[-1].items() if k not in ("round", "loss")},
        "examples": examples(folder, panel, name, rounds[-1]["round"]),
        "seconds": seconds,
    }


def write_summary(
    folder: Path,
    settings: dict[str, Any],
    panel: Panel,
    counts: dict[str, Any],
    rounds: dict[str, list[dict[str, Any]]],
    seconds: dict[str, float],
    measured: dict[str, float],
) -> dict[str, Any]:
    """Put the summary together and write summary.json, report.html and the figures.

    Args:
        folder: the run directory.
        settings: resolved options.
        panel: the judge.
        counts: ``train`` and ``evaluation`` prompts, ``start_mean_tokens``.
        rounds: per method, its rounds' results in order.
        seconds: per method.
        measured: ``seconds`` and ``peak_memory_mb`` of this process.
    """
    environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    model = settings["model"]
    summary = {
        "command": "demo",
        "seed": settings["seed"],
        "model": "the shipped chat model" if model == "shipped" else model,
        "output_dir": str(folder),
        **measured,
        "prompts": {"train": counts["train"], "evaluation": counts["evaluation"]},
        "samples_per_prompt": settings["eval_samples"],
        "start": {"mean_tokens": counts["start_mean_tokens"]},
        "oracle": describe_panel(panel),
        "methods": {
            name: _method_summary(folder, panel, name, rounds[name], seconds[name])
            for name in rounds
        },
        "config": settings,
        "environment": environment,
    }
    write_json(folder / "summary.json", summary)
    render_report(summary, folder / "report.html")
    save_figures(summary, folder / "figures")
    return summary
