"""The recipe with the paper's sizes: OPT-125m, UltraChat, five seeds. Not run here.

It needs a GPU, the model, the prompts and the configurations of ``recipes/sta_paper``; what is
missing is said before anything is begun.
"""

from pathlib import Path
from typing import Any

from equilign.errors import ConfigError
from equilign.experiments.paper_recipe import PAPER_SCALE, PaperRecipe, Progress
from equilign.trainers.reward_game_config import PAPER_SEEDS

__all__ = ["METHODS", "PAPER_SCALE", "RECIPE", "missing", "run_paper_scale"]

METHODS = (
    "sta-total",
    "sta-naive",
    "rlhf",
    "simultaneous",
    "reversed",
    "parl",
    "iterated-dpo",
    "ppo",
)
"""Those with prompts for data; DPO needs pairs, which the recipe's README makes."""

RECIPE = PaperRecipe(
    paper="sta",
    hardware="the paper used one with 24 GB per run",
    methods=[(name, name) for name in METHODS],
    models=("facebook/opt-125m",),
    packages=(),
    files=("ultrachat.jsonl",),
)


def missing(folder: Path | None) -> list[str]:
    """What this machine lacks for the recipe, one phrase each."""
    return RECIPE.missing(folder)


def run_paper_scale(
    output_dir: Path, *, seed: int, resume: bool, progress: Progress
) -> dict[str, Any]:
    """See `PaperRecipe.run`; ``seed`` is the place of one of the paper's five, from 0.

    Raises:
        ConfigError: there is no such seed, or the machine lacks something.
    """
    if seed >= len(PAPER_SEEDS):
        raise ConfigError(f"seed = {seed}; the paper has {len(PAPER_SEEDS)} seeds, from 0")
    seed = PAPER_SEEDS[seed]
    folder = RECIPE.folder()
    lacking = missing(folder)
    return RECIPE.run(output_dir, folder, lacking, seed=seed, resume=resume, progress=progress)
