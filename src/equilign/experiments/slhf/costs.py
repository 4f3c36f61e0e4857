"""What a training sampled, asked and learnt, read from the files of its rounds."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from equilign.experiments.slhf.contestants import NASH, SLHF
from equilign.files import read_jsonl

_KEPT = ("follower_win_rate", "kl_to_reference_nats", "follower_kl_to_reference_nats")


def costs(folder: Path, method: str) -> dict[str, float]:
    """Totals over all rounds.

    ``prompts`` played, answers ``samples``, of which ``trained``, ``verdicts`` asked (a pair in
    both orders is two; equal texts are not asked), ``tokens`` of the answers trained on.
    """
    total = dict.fromkeys(("prompts", "samples", "trained", "verdicts", "tokens"), 0.0)
    for path in sorted((folder / "rounds").glob(f"{method}-*.jsonl")):
        for row in read_jsonl(path):
            for name, value in _of_row(row, method).items():
                total[name] += value
    return total


def _of_row(row: Mapping[str, Any], method: str) -> dict[str, float]:
    sides = [row["leader"], *row["followers"]] if method == SLHF else [row]
    trained = [ids for side in sides for ids in side["completion_ids"]]
    count = len(trained)
    distinct = [len(set(side["completions"])) for side in sides]
    found = {
        "prompts": 1.0,
        "samples": float(count),
        "trained": float(count),
        "tokens": float(sum(map(len, trained))),
        "verdicts": float(distinct[0] * (distinct[0] - 1)),
    }
    if method == SLHF:
        answers = row["leader"]["completions"]
        pairs = {
            (answer, reply)
            for answer, side in zip(answers, row["followers"], strict=True)
            for reply in side["completions"]
            if reply != answer
        }
        found["verdicts"] = 2.0 * len(pairs)
    if method == NASH:
        # As many opponents again, each played by all; their texts are not kept.
        found["samples"] *= 2
        found["verdicts"] += 2.0 * count * count
    return found


def learning_curve(folder: Path, method: str) -> dict[str, list[float]]:
    """Metrics of the rounds, in order, as far as the method has them."""
    rounds = [
        m
        for m in read_jsonl(folder / "metrics.jsonl")
        if m["kind"] == "round" and m.get("method", method) == method
    ]
    return {
        name: np.round([m[name] for m in rounds], 6).tolist()
        for name in _KEPT
        if rounds and all(name in m for m in rounds)
    }
