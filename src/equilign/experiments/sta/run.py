"""Trainings in parallel, then claims and page."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from equilign.experiments.finishing import Progress, finish
from equilign.experiments.paper_recipe import PAPER_SCALE
from equilign.experiments.sizes import PROCESSES
from equilign.experiments.sta.claims import judge
from equilign.experiments.sta.contestants import CONTESTANTS, TIMED
from equilign.experiments.sta.page import build_page
from equilign.experiments.sta.paper_scale import run_paper_scale
from equilign.experiments.sta.pieces import Setting, answer_start, time_piece, train_piece
from equilign.experiments.sta.results import read_results
from equilign.experiments.sta.scales import get_scale
from equilign.experiments.sta.tasks import TASKS
from equilign.experiments.sta.watching import START
from equilign.experiments.workers import Work, parallel
from equilign.files import explain_disk_full
from equilign.runs import RunDirectory
from equilign.tasks.stories import story_prompts
from equilign.trainers.reward_game_config import PAPER_SEEDS

SEEDS_APART = 10_000
"""More than the largest of the paper's seeds."""


def run_sta(
    output_dir: Path, *, scale: str, seed: int, resume: bool, progress: Progress
) -> dict[str, Any]:
    """Run or resume the reproduction in ``output_dir``.

    Args:
        output_dir: gets ``results.json``, ``report.html``, ``figures/``, ``pieces/`` (a file per
            task, method and seed, whole or not there) and ``answers/``.
        scale: one of `equilign.experiments.sta.scales.SCALES`, or ``"paper"``.
        seed: 0 for the paper's seeds, others shift them.
        resume: go on with the run that is there.
        progress: told what happens.

    Returns:
        ``paper, title, citation, scale, seed, claims, tables, figures, pieces, seconds,
        peak_memory_mb, output_dir``, as in results.json. ``peak_memory_mb`` is the largest
        process's; two work at a time beside this one.

    Raises:
        ConfigError, RunDirectoryError, DiskFullError: see `equilign.errors`.
    """
    if scale == PAPER_SCALE:
        return run_paper_scale(output_dir, seed=seed, resume=resume, progress=progress)
    began = time.perf_counter()
    sizes = get_scale(scale)
    settings = {
        "paper": "sta-rlhf",
        "scale": scale,
        "seed": seed,
        **asdict(sizes),
        **{c.name: c.options(sizes) for c in (*CONTESTANTS, TIMED)},
    }
    RunDirectory(output_dir).open(settings, resume=resume, need_mb=500.0)
    setting = Setting(
        output_dir, sizes, story_prompts("align"), story_prompts("evaluate")[: sizes.eval_prompts]
    )
    seeds = [SEEDS_APART * seed + s for s in PAPER_SEEDS[: sizes.seeds]]
    with explain_disk_full(output_dir), parallel(PROCESSES) as run:
        for works in stages(setting, seeds):
            run(works, progress)
        results = read_results(setting, seeds)
        claims = judge(results)
        pieces = [p for task in results.pieces.values() for found in task.values() for p in found]
        build = partial(build_page, results, claims, settings)
        return finish(output_dir, settings, claims, pieces, began, build, progress)


def stages(setting: Setting, seeds: Sequence[int]) -> list[list[Work]]:
    """Everything to do: the start model's answers, then the trainings, whole seeds first."""
    starts = [
        Work(f"{START} model, seed {s}", answer_start, {"setting": setting, "seed": s})
        for s in seeds
    ]
    trainings = [
        Work(
            f"{c.title}, {task.title}, seed {seed}",
            time_piece if c is TIMED else train_piece,
            {"setting": setting, "task": task.name, "contestant": c, "seed": seed},
        )
        for seed in seeds
        for task in TASKS
        for c in (*CONTESTANTS, TIMED)
    ]
    return [starts, trainings]
