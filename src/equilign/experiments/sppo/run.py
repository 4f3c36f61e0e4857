"""Trainings in parallel, then everyone against everyone, then claims and page."""

import time
from collections.abc import Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from equilign.experiments.finishing import Progress, finish
from equilign.experiments.sizes import PROCESSES, run_seeds
from equilign.experiments.sppo.claims import judge
from equilign.experiments.sppo.contestants import COMMON, CONTESTANTS, OWN, chosen_options
from equilign.experiments.sppo.judging import judge_seed
from equilign.experiments.sppo.page import build_page
from equilign.experiments.sppo.paper_scale import PAPER_SCALE, run_paper_scale
from equilign.experiments.sppo.pieces import START, Setting, answer_start, train_piece
from equilign.experiments.sppo.results import read_results
from equilign.experiments.sppo.scales import get_scale
from equilign.experiments.workers import Work, parallel
from equilign.files import explain_disk_full
from equilign.runs import RunDirectory
from equilign.tasks.prompts import restaurant_prompts


def run_sppo(
    output_dir: Path, *, scale: str, seed: int, resume: bool, progress: Progress
) -> dict[str, Any]:
    """Run or resume the reproduction in ``output_dir``.

    Args:
        output_dir: gets ``results.json``, ``report.html``, ``figures/``, ``pieces/`` (a file per
            method and seed, whole or not there) and ``answers/``.
        scale: one of `equilign.experiments.sppo.scales.SCALES`, or ``"paper"``.
        seed: of everything.
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
        "paper": "sppo",
        "scale": scale,
        "seed": seed,
        **asdict(sizes),
        "common": dict(COMMON),
        **{c.method: {**OWN[c.method], **chosen_options(c.method)} for c in CONTESTANTS},
    }
    RunDirectory(output_dir).open(settings, resume=resume, need_mb=500.0)
    setting = Setting(
        output_dir,
        sizes,
        restaurant_prompts("align"),
        restaurant_prompts("evaluate")[: sizes.eval_prompts],
    )
    seeds = run_seeds(seed, sizes.seeds)
    with explain_disk_full(output_dir):
        judging = [
            Work(f"judging, seed {s}", judge_seed, {"setting": setting, "seed": s}) for s in seeds
        ]
        with parallel(PROCESSES) as run:
            run(_trainings(setting, seeds), progress)
            run(judging, progress)
        results = read_results(setting, seeds)
        claims = judge(results)
        pieces = [p for found in results.pieces.values() for p in found]
        build = partial(build_page, results, claims, settings)
        return finish(output_dir, settings, claims, pieces, began, build, progress)


def _trainings(setting: Setting, seeds: Sequence[int]) -> list[Work]:
    """Seed by seed, so that a stopped run has whole seeds."""
    works = []
    for seed in seeds:
        common = {"setting": setting, "seed": seed}
        works.append(Work(f"{START} model, seed {seed}", answer_start, common))
        for c in CONTESTANTS:
            own = {"name": c.method, "method": c.method, "options": chosen_options(c.method)}
            works.append(Work(f"{c.title}, seed {seed}", train_piece, {**common, **own}))
    return works
