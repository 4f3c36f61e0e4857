"""`equilign fit-oracle`: data in, a judge and what it is worth out."""

import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from equilign.files import read_jsonl, write_json
from equilign.fitting.baselines import labels
from equilign.fitting.bases import ScratchSize
from equilign.fitting.config import SCRATCH, FitConfig
from equilign.fitting.fit import Places, fit_judge, pair_margins
from equilign.fitting.sources import load_pairs
from equilign.fitting.split import Split, split_pairs
from equilign.fitting.summary import baselines_json, claims, comparison_json, data_json, measured
from equilign.fitting.trainer import Progress
from equilign.formats import PreferencePair
from equilign.models import load_tokenizer
from equilign.oracles.judge_models import JudgeModel
from equilign.reports.judge import render_judge_report
from equilign.runs import RunDirectory, environment, peak_memory_mb

PAPERS = {
    "reward": "Bradley and Terry 1952, Biometrika 39:324-345",
    "pairwise": "arXiv:2306.02561",
    "general": "arXiv:2410.02197",
}


def run_fit_oracle(
    config: FitConfig,
    output_dir: Path,
    *,
    resume: bool = False,
    progress: Progress | None = None,
    size: ScratchSize | None = None,
) -> dict[str, Any]:
    """Fit a judge and measure it on prompts that were kept back.

    Writes ``judge/`` (which `equilign.oracles.load_judge` reads), ``config.yaml``,
    ``environment.json``, ``metrics.jsonl``, ``summary.json``, ``verdicts.json`` (held-out margins),
    ``report.html`` and ``figures/``; with `FitConfig.compare` also the second judge in
    ``compared/``.

    Args:
        config: what to fit, on what.
        output_dir: run directory.
        resume: go on with the run that is there.
        progress: told about every optimiser step.
        size: of a model from scratch.

    Returns:
        The summary, as in ``summary.json``.

    Raises:
        DataError: the data cannot be used; says why.
        ModelError: the base model cannot be used.
        RunDirectoryError: the output directory holds something else.
    """
    start = time.perf_counter()
    pairs = [pair for path in config.data for pair in load_pairs(path)]
    split = split_pairs(
        pairs, seed=config.seed, held_out=config.held_out, validation=config.validation
    )
    if config.base != SCRATCH:
        load_tokenizer(config.base, allow_download=config.allow_download)  # or an error, early
    options = {**config.to_dict(), "pairs": f"{len(pairs)} pairs, {_digest(pairs)}"}
    if size is not None:
        options["scratch"] = asdict(size)
    RunDirectory(output_dir).open(options, resume=resume, need_mb=200.0)
    kinds = [config.kind, *([_second(config.kind)] if config.compare else [])]
    judges: dict[str, JudgeModel] = {}
    for kind in kinds:
        places = _places(output_dir, kind, config.kind)
        judges[kind] = fit_judge(
            config, kind, split, places, resume=resume, progress=progress, size=size
        )
    margins = {kind: pair_margins(judge, split.held_out) for kind, judge in judges.items()}
    summary = _summary(config, output_dir, split, judges, margins, options)
    # A finished run keeps its time; what --resume measures again took no training.
    summary["seconds"] = _seconds(output_dir, time.perf_counter() - start)
    summary["peak_memory_mb"] = peak_memory_mb()
    write_json(output_dir / "verdicts.json", _verdicts(split.held_out, margins))
    write_json(output_dir / "summary.json", summary)
    render_judge_report(summary, output_dir)
    return summary


def _second(kind: str) -> str:
    """The judge to compare with: the transitive one, or of a transitive one the general one."""
    return "general" if kind == "reward" else "reward"


def _places(output_dir: Path, kind: str, main: str) -> Places:
    judge = output_dir / "judge" if kind == main else output_dir / "compared" / kind
    return Places(judge, output_dir / "checkpoints" / kind, output_dir / "metrics.jsonl")


def _digest(pairs: Sequence[PreferencePair]) -> str:
    text = json.dumps([asdict(p) for p in pairs], sort_keys=True)
    return blake2b(text.encode("utf-8", "surrogatepass"), digest_size=8).hexdigest()


def _summary(
    config: FitConfig,
    output_dir: Path,
    split: Split,
    judges: dict[str, JudgeModel],
    margins: dict[str, np.ndarray],
    options: dict[str, Any],
) -> dict[str, Any]:
    judge = judges[config.kind]
    summary: dict[str, Any] = {
        "command": "fit-oracle",
        "kind": config.kind,
        "base": config.base,
        "judge": str(output_dir / "judge"),
        "parameters": sum(p.numel() for p in judge.model.parameters()),
        "scale": judge.config.scale,
        "prompt_format": judge.config.prompt_format,
        "max_length": judge.text.max_length,
        "cut_prompts": judge.text.cut_prompts,
        "cut_answers": judge.text.cut_answers,
        "seed": config.seed,
        "paper": PAPERS[config.kind],
        "data": {"files": list(config.data), **data_json(split)},
        "held_out": measured(margins[config.kind], split, config.seed),
        "baselines": baselines_json(margins[config.kind], split),
        "comparison": None,
    }
    if config.compare:
        other = config.kind if config.kind != "reward" else "general"
        summary["comparison"] = comparison_json(
            margins["reward"], margins[other], other, split, config.seed
        )
    summary["claims"] = claims(summary)
    summary["curves"] = _curves(output_dir / "metrics.jsonl", list(judges))
    summary["output_dir"] = str(output_dir)
    summary["config"] = options
    summary["environment"] = environment()
    return summary


def _curves(path: Path, kinds: Sequence[str]) -> dict[str, dict[str, list[list[float]]]]:
    """Training loss, validation log-loss (scaled) and accuracy by epoch, per judge."""
    rows = read_jsonl(path)
    found: dict[str, dict[str, list[list[float]]]] = {}
    for kind in kinds:
        mine = [r for r in rows if r["method"] == kind]
        after = [r for r in mine if r["kind"] == "validation"]
        found[kind] = {
            "train": [[r["epoch"], r["loss"]] for r in mine if r["kind"] == "step"],
            "validation": [[r["epoch"], r["scaled_log_loss"]] for r in after],
            "validation_accuracy": [[r["epoch"], r["accuracy"]] for r in after],
        }
    return found


def _seconds(output_dir: Path, seconds: float) -> float:
    path = output_dir / "summary.json"
    if path.is_file():
        return float(json.loads(path.read_text(encoding="utf-8"))["seconds"])
    return seconds


def _verdicts(
    pairs: Sequence[PreferencePair], margins: dict[str, np.ndarray]
) -> list[dict[str, Any]]:
    """Held-out pairs with each judge's logit of Pr(chosen beats rejected)."""
    prob = labels(pairs).tolist()
    rows = []
    for i, pair in enumerate(pairs):
        logits = {kind: float(values[i]) for kind, values in margins.items()}
        rows.append(
            {
                "prompt": pair.prompt,
                "chosen": pair.chosen,
                "rejected": pair.rejected,
                "chosen_prob": prob[i],
                "logits": logits,
            }
        )
    return rows
