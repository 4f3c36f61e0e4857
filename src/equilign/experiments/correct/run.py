"""Every Follower on every Leader's answers: one round of refinement each, then the matrix."""

import json
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from itertools import product
from pathlib import Path
from typing import Any

from equilign.experiments.correct.chart import save_matrix
from equilign.experiments.correct.config import CorrectConfig
from equilign.experiments.judges import oracle_name
from equilign.experiments.refine.players import Players
from equilign.experiments.refine.run import oracle_spec, run_refine
from equilign.files import write_json
from equilign.runs import RunDirectory, peak_memory_mb

Progress = Callable[[str, int, int, int], None]

SUMMARY = "summary.json"


def run_correct(
    config: CorrectConfig, folder: Path, *, resume: bool = False, progress: Progress
) -> dict[str, Any]:
    """Run or resume a correction matrix in ``folder``.

    Args:
        config: who plays.
        folder: the run directory; ``pairs/F-L`` in it is the refinement of Leader L's answers by
            Follower F, counted from 1, with every answer in its ``answers.jsonl``.
        resume: go on with the run that is there.
        progress: called while it works.

    Returns:
        The summary, which is also written.

    Raises:
        EquilignError: something that the user can put right.
    """
    began = time.perf_counter()
    spec, _ = oracle_spec(config.oracle)
    plain = {k: list(v) if isinstance(v, tuple) else v for k, v in asdict(config).items()}
    settings = {k: v for k, v in plain.items() if k != "download"}
    run = RunDirectory(folder)
    run.check(settings, resume=resume)
    places = list(product(range(len(config.follower)), range(len(config.leader))))
    for place in places:
        players = Players(config.pair(*place))
        players.form(), players.leader(), players.follower()  # whoever is not there is told now
    run.open(settings, resume=resume)
    found: dict[tuple[int, int], dict[str, Any]] = {}
    for number, (f, leader) in enumerate(places, 1):
        own = folder / "pairs" / f"{f + 1}-{leader + 1}"

        def tell(stage: str, part: int, done: int, total: int, number: int = number) -> None:
            progress(stage, number, done, total)

        again = (own / "config.yaml").exists()
        found[f, leader] = run_refine(config.pair(f, leader), own, resume=again, progress=tell)
    summary = {
        **summarise(config, found),
        "oracle": oracle_name(spec),
        "output_dir": str(folder),
        "seconds": time.perf_counter() - began,
        "peak_memory_mb": peak_memory_mb(),
    }
    figures = save_matrix(summary, folder / "figures")
    summary["figures"] = [str(path.relative_to(folder)) for path in figures]
    finished = folder / SUMMARY
    if not finished.exists():
        write_json(finished, summary)
    known: dict[str, Any] = json.loads(finished.read_text(encoding="utf-8"))
    return known


def summarise(
    config: CorrectConfig, found: Mapping[tuple[int, int], Mapping[str, Any]]
) -> dict[str, Any]:
    """The pairs' numbers as matrices, a row per Follower and a column per Leader.

    Args:
        config: who plays.
        found: by place of Follower and Leader, the summary of their refinement.
    """

    def matrix(name: str) -> list[list[Any]]:
        return [
            [found[f, leader]["rounds"][0][name] for leader in range(len(config.leader))]
            for f in range(len(config.follower))
        ]

    leaders = [found[0, i]["leader"] for i in range(len(config.leader))]
    return {
        "leaders": list(config.leader),
        "followers": list(config.follower),
        "win_rate": matrix("win_rate_vs_leader"),
        "low": matrix("low"),
        "high": matrix("high"),
        "unchanged_share": matrix("unchanged_share"),
        "too_long_share": matrix("too_long_share"),
        "no_verdict_share": matrix("no_verdict_share"),
        "mean_tokens": {
            "leaders": [answers["mean_tokens"] for answers in leaders],
            "replies": matrix("mean_tokens"),
        },
        "prompts": found[0, 0]["prompts"],
        "num_samples": config.num_samples,
        "seed": config.seed,
    }
