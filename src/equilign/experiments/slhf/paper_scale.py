"""The recipe with the paper's sizes: Qwen2.5-0.5B, HelpSteer2, a five-attribute judge.

Not run here. It needs a GPU, the models, the prompts, the judge's five heads and the configurations
of ``recipes/slhf_paper``; what is missing is said before anything is begun. The folder also has the
paper's chat run (Tulu-3-8B), which is started by hand.
"""

from pathlib import Path
from typing import Any

from equilign.experiments.paper_recipe import PAPER_SCALE, PaperRecipe, Progress

__all__ = ["ATTRIBUTES", "PAPER_SCALE", "RECIPE", "missing", "run_paper_scale"]

ATTRIBUTES = ("helpfulness", "correctness", "coherence", "complexity", "verbosity")
"""Of HelpSteer2; of the last two less is better."""

RECIPE = PaperRecipe(
    paper="slhf",
    hardware="one with 80 GB is enough for the half-billion model",
    methods=(("slhf", "slhf"), ("rloo", "rloo"), ("nash-md-pg", "nash-md-pg")),
    models=("Qwen/Qwen2.5-0.5B-Instruct", "Qwen/Qwen2.5-1.5B-Instruct"),
    packages=(),
    files=("train.jsonl", "evaluate.jsonl", *(f"judges/{name}/judge" for name in ATTRIBUTES)),
)


def missing(folder: Path | None) -> list[str]:
    """What this machine lacks for the recipe, one phrase each."""
    return RECIPE.missing(folder)


def run_paper_scale(
    output_dir: Path, *, seed: int, resume: bool, progress: Progress
) -> dict[str, Any]:
    """See `PaperRecipe.run`."""
    folder = RECIPE.folder()
    lacking = missing(folder)
    return RECIPE.run(output_dir, folder, lacking, seed=seed, resume=resume, progress=progress)
