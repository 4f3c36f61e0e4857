"""Matrix games and trainings in parallel, then play, then measures, claims and page."""

import time
from collections.abc import Callable, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from equilign.experiments.finishing import Progress, finish
from equilign.experiments.held_out import Tell
from equilign.experiments.sizes import PROCESSES, run_seeds
from equilign.experiments.slhf.claims import judge
from equilign.experiments.slhf.contestants import BASELINES, main_slhf, rate_of, sweep
from equilign.experiments.slhf.half import HALF, make_half
from equilign.experiments.slhf.judging import judge_kappa, judge_seed
from equilign.experiments.slhf.page import build_page
from equilign.experiments.slhf.paper_scale import PAPER_SCALE, run_paper_scale
from equilign.experiments.slhf.pieces import START, Setting, answer_start, train_piece
from equilign.experiments.slhf.playing import play_piece
from equilign.experiments.slhf.results import TABULAR, read_results
from equilign.experiments.slhf.scales import get_scale
from equilign.experiments.slhf.tabular import study
from equilign.experiments.workers import Work, parallel
from equilign.files import explain_disk_full, write_json
from equilign.runs import RunDirectory
from equilign.tasks.prompts import restaurant_prompts


def run_slhf(
    output_dir: Path, *, scale: str, seed: int, resume: bool, progress: Progress
) -> dict[str, Any]:
    """Run or resume the reproduction in ``output_dir``.

    Args:
        output_dir: gets ``results.json``, ``report.html``, ``figures/``, ``pieces/`` (a file per
            part and seed, whole or not there), ``answers/`` and ``models/``.
        scale: one of `equilign.experiments.slhf.scales.SCALES`, or ``"paper"``.
        seed: of everything.
        resume: go on with the run that is there.
        progress: told what happens.

    Returns:
        ``paper, title, citation, scale, seed, claims, tables, figures, pieces, models, seconds,
        peak_memory_mb, output_dir``, as in results.json. ``peak_memory_mb`` is the largest
        process's; two work at a time beside this one.

    Raises:
        ConfigError, RunDirectoryError, DiskFullError: see `equilign.errors`.
    """
    if scale == PAPER_SCALE:
        return run_paper_scale(output_dir, seed=seed, resume=resume, progress=progress)
    began = time.perf_counter()
    sizes = get_scale(scale)
    main = main_slhf()
    settings = {
        "paper": "slhf",
        "scale": scale,
        "seed": seed,
        **asdict(sizes),
        **{c.name: c.options(sizes, rate_of(c)) for c in (*BASELINES, main, *sweep())},
    }
    RunDirectory(output_dir).open(settings, resume=resume, need_mb=1000.0)
    setting = Setting(
        output_dir,
        sizes,
        restaurant_prompts("align"),
        restaurant_prompts("evaluate")[: sizes.eval_prompts],
    )
    seeds = run_seeds(seed, sizes.seeds)
    with explain_disk_full(output_dir), parallel(PROCESSES) as run:
        for works in stages(setting, seeds):
            run(works, progress)
        results = read_results(setting, seeds, seeds[: sizes.kappa_seeds])
        claims = judge(results)
        pieces = [p for found in results.pieces.values() for p in found]
        build = partial(build_page, results, claims, settings)
        return finish(output_dir, settings, claims, pieces, began, build, progress)


def stages(setting: Setting, seeds: Sequence[int]) -> list[list[Work]]:
    """Everything to do, in three parts that need one another."""
    few = seeds[: setting.scale.kappa_seeds]
    trained = [
        _work(f"matrix games, seed {seeds[0]}", study_piece, setting, seeds[0]),
        *(w for seed in seeds for w in _trainings(setting, seed, seed in few)),
    ]
    played = [
        _work(f"refinement, seed {s}", play_piece, setting, s, other_seed=seeds[i - 1])
        for i, s in enumerate(seeds)
    ]
    played += [
        _work(f"{c.title}, seed {s}, judged", judge_kappa, setting, s, kappa=c.kappa)
        for s in few
        for c in sweep()
    ]
    judged = [_work(f"judging, seed {s}", judge_seed, setting, s) for s in seeds]
    return [trained, played, judged]


def _trainings(setting: Setting, seed: int, every_kappa: bool) -> list[Work]:
    """One seed's, so that a stopped run has whole seeds."""
    works = [
        _work(f"{START} model, seed {seed}", answer_start, setting, seed),
        _work(f"model of {HALF} the size, seed {seed}", make_half, setting, seed),
    ]
    for c in (*BASELINES, main_slhf(), *(sweep() if every_kappa else ())):
        own = {"contestant": c, "learning_rate": rate_of(c)}
        works.append(_work(f"{c.title}, seed {seed}", train_piece, setting, seed, **own))
    return works


def _work(
    title: str,
    function: Callable[..., Any],
    setting: Setting,
    seed: int,
    **own: Any,  # noqa: ANN401 - whatever the piece needs
) -> Work:
    return Work(title, function, {"setting": setting, "seed": seed, **own})


def study_piece(setting: Setting, seed: int, *, tell: Tell) -> None:
    """The matrix games, unless that is done."""
    path = setting.piece_file(TABULAR, seed)
    if not path.exists():
        write_json(path, study(seed, tell=tell))
