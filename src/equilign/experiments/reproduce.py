"""Papers whose experiments can be run again: a list that the command line reads."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

from equilign.errors import ConfigError

SCALES = ("quick", "full", "tiny", "paper")
"""``quick``: minutes on two cores; ``full``: an hour or more; ``tiny``: a smoke test; ``paper``:
the paper's own sizes, which need its hardware; not every paper has that one."""

Progress = Callable[[str, int, int, int], None]


@dataclass(frozen=True)
class Paper:
    """One reproduction.

    Attributes:
        name: as on the command line.
        title: of the paper's method, in prose.
        citation: where it is from.
        runner: ``module:function``, imported when it is run; called with the output folder and
            ``scale, seed, resume, progress``.
        scales: those of `SCALES` that it has.
    """

    name: str
    title: str
    citation: str
    runner: str
    scales: tuple[str, ...] = ("quick", "full", "tiny")


PAPERS: dict[str, Paper] = {
    paper.name: paper
    for paper in (
        Paper(
            "omwu",
            "Optimistic multiplicative weights for Nash learning from human feedback",
            "arXiv:2512.24818",
            "equilign.experiments.omwu.run:run_omwu",
        ),
        Paper(
            "sppo",
            "Self-play preference optimisation for language models",
            "arXiv:2405.00675",
            "equilign.experiments.sppo.run:run_sppo",
            SCALES,
        ),
        Paper(
            "slhf",
            "Stackelberg learning from human feedback: Leader, Follower, refinement",
            "arXiv:2512.16626",
            "equilign.experiments.slhf.run:run_slhf",
            SCALES,
        ),
        Paper(
            "sta-rlhf",
            "STA-RLHF: the language model leads, the reward model follows",
            "STA-RLHF",
            "equilign.experiments.sta.run:run_sta",
            SCALES,
        ),
    )
}
"""Name -> reproduction."""


def check_request(paper: str, scale: str, seed: int) -> None:
    """Raise unless there is such a reproduction.

    Raises:
        ConfigError: no such paper or scale, or a negative seed.
    """
    if paper not in PAPERS:
        raise ConfigError(f"no paper {paper!r}; there are: {', '.join(PAPERS)}")
    known = PAPERS[paper].scales
    if scale not in known:
        raise ConfigError(f"{paper} has no scale {scale!r}; there are: {', '.join(known)}")
    if seed < 0:
        raise ConfigError(f"seed = {seed}; it must be >= 0")


def reproduce(
    paper: str,
    output_dir: Path,
    *,
    scale: str = "quick",
    seed: int = 0,
    resume: bool = False,
    progress: Progress,
) -> dict[str, Any]:
    """Run a paper's experiments; what comes back is also in ``output_dir/results.json``.

    Args:
        paper: one of `PAPERS`.
        output_dir: a run directory.
        scale: one of the paper's scales.
        seed: of everything.
        resume: go on with the run that is there.
        progress: called with what is being done, 0, how much is done, and of how much.

    Returns:
        At least ``paper, scale, claims, tables, figures, seconds``.

    Raises:
        ConfigError: see `check_request`.
    """
    check_request(paper, scale, seed)
    module, _, function = PAPERS[paper].runner.partition(":")
    run = getattr(import_module(module), function)
    summary: dict[str, Any] = run(
        output_dir, scale=scale, seed=seed, resume=resume, progress=progress
    )
    return summary
