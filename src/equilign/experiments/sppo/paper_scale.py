"""The recipe with the paper's sizes: Mistral-7B, UltraFeedback, PairRM. Not run here.

It needs a GPU, the models, the prompts and the configurations of ``recipes/sppo_paper``; what is
missing is said before anything is begun.
"""

from pathlib import Path
from typing import Any

from equilign.experiments.paper_recipe import PAPER_SCALE, PaperRecipe, Progress
from equilign.experiments.sppo.contestants import CONTESTANTS

__all__ = ["PAPER_SCALE", "RECIPE", "missing", "run_paper_scale"]

RECIPE = PaperRecipe(
    paper="sppo",
    hardware="8 with 80 GB are what the paper used",
    methods=[(c.method, c.method) for c in CONTESTANTS],
    models=("mistralai/Mistral-7B-Instruct-v0.2", "llm-blender/PairRM-hf"),
    packages=("sentencepiece",),  # PairRM's tokenizer needs it
    files=("train.jsonl", "evaluate.jsonl"),
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
