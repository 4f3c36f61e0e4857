"""The summary of a run: summary.json, the page, and what `--json` prints."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from equilign.evaluation.callback import load_groups
from equilign.experiments.evaluating import Contest
from equilign.experiments.judges import describe_oracle
from equilign.files import read_jsonl, write_json
from equilign.methods import get_method
from equilign.oracles import Oracle, Panel, compare_symmetric
from equilign.reports import render_report, save_figures
from equilign.rollout import prompt_text

_MEASURED = {
    "cyclic_prompts_share": "train_cyclic_prompts_share",
    "finished_share": "train_finished_share",
}


@dataclass(frozen=True)
class Facts:
    """What a summary says about the run as a whole.

    Attributes:
        command: which command it was.
        seed: of everything.
        model: the start model, in words or as a path.
        settings: resolved options.
        oracle: the judge; None where nobody judged.
        oracle_name: in words.
        prompts: ``train`` and ``evaluation``, how many.
        samples_per_prompt: answers per evaluation prompt and side.
        start_tokens: mean length of the start model's answers; None without evaluation.
        extra: further keys.
    """

    command: str
    seed: int
    model: str
    settings: Mapping[str, Any]
    oracle: Oracle | None
    oracle_name: str
    prompts: Mapping[str, int]
    samples_per_prompt: int
    start_tokens: float | None
    extra: Mapping[str, Any] = field(default_factory=dict)


def examples(contest: Contest, name: str, number: int) -> list[dict[str, Any]]:
    """First answers to every evaluation prompt, before and after, with the judge's verdict."""
    oracle = contest.evaluation.oracle
    policy = load_groups(contest.answers_file(name, number))
    prompts = [prompt_text(g.prompt) for g in policy]
    before = [g.completions[0].text for g in contest.start]
    after = [g.completions[0].text for g in policy]
    verdicts = compare_symmetric(oracle, prompts, after, before)
    rows: list[dict[str, Any]] = [
        {
            "prompt": prompts[i],
            "before": before[i],
            "after": after[i],
            "win_prob": None if verdicts[i] != verdicts[i] else float(verdicts[i]),
        }
        for i in range(len(prompts))
    ]
    if isinstance(oracle, Panel):
        votes = oracle.votes(prompts, after, before)
        for i, row in enumerate(rows):
            row["attributes"] = {
                a.name: float(v) for a, v in zip(oracle.attributes, votes[:, i], strict=True)
            }
    return rows


def training_means(folder: Path, name: str, rounds_per_step: int) -> dict[int, dict[str, float]]:
    """Per step, the mean training loss and what was measured on its rounds' own samples."""
    found: dict[int, dict[str, float]] = {}
    losses: dict[int, list[float]] = {}
    path = folder / "metrics.jsonl"
    for row in read_jsonl(path) if path.exists() else []:
        if row["method"] != name:
            continue
        step = -(-row["round"] // rounds_per_step)
        if row["kind"] == "step":
            losses.setdefault(step, []).append(row["loss"])
        elif row["kind"] == "round":
            found[step] = {new: row[old] for old, new in _MEASURED.items() if old in row}
    for number, values in losses.items():
        found.setdefault(number, {})["loss"] = sum(values) / len(values)
    return found


def method_summary(
    folder: Path,
    name: str,
    contest: Contest | None,
    count: int,
    seconds: float,
    rounds_per_step: int = 1,
) -> dict[str, Any]:
    """One method's part of the summary.

    Args:
        folder: the run directory.
        name: the method.
        contest: what it was compared on; None where nothing was compared.
        count: steps (rounds, unless a step takes several).
        seconds: of its training.
        rounds_per_step: how many rounds of the trainer count as one.
    """
    training = training_means(folder, name, rounds_per_step)
    numbers = range(1, count + 1)
    if contest is None:
        unknown = dict.fromkeys(("win_rate", "low", "high", "kl_nats"))
        judged: list[dict[str, Any]] = [{"round": n, **unknown} for n in numbers]
    else:
        judged = contest.results(name, numbers)
    rounds = [
        {k: v for k, v in r.items() if k != "per_prompt"} | training.get(r["round"], {})
        for r in judged
    ]
    method = get_method(name)
    return {
        "title": method.title,
        "paper": method.paper,
        "rounds": rounds,
        "final": {k: v for k, v in rounds[-1].items() if k not in ("round", "loss")},
        "examples": [] if contest is None else examples(contest, name, rounds[-1]["round"]),
        "seconds": seconds,
    }


def write_summary(
    folder: Path, facts: Facts, methods: Mapping[str, dict[str, Any]], measured: dict[str, float]
) -> dict[str, Any]:
    """Put the summary together and write summary.json, report.html and the figures.

    Args:
        folder: the run directory.
        facts: about the whole run.
        methods: per method, its `method_summary`.
        measured: ``seconds`` and ``peak_memory_mb`` of this process.
    """
    environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
    summary = {
        "command": facts.command,
        "seed": facts.seed,
        "model": "the shipped chat model" if facts.model == "shipped" else facts.model,
        "output_dir": str(folder),
        **measured,
        "prompts": dict(facts.prompts),
        "samples_per_prompt": facts.samples_per_prompt,
        "start": {"mean_tokens": facts.start_tokens},
        "oracle": describe_oracle(facts.oracle, facts.oracle_name),
        **facts.extra,
        "methods": dict(methods),
        "config": dict(facts.settings),
        "environment": environment,
    }
    write_json(folder / "summary.json", summary)
    render_report(summary, folder / "report.html")
    save_figures(summary, folder / "figures")
    return summary
