"""The recipe with the paper's sizes: Mistral-7B, UltraFeedback, PairRM. Not run here.

It needs a GPU, the models, the prompts and the configurations of ``recipes/sppo_paper``; what is
missing is said before anything is begun.
"""

import json
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from equilign.errors import ConfigError
from equilign.experiments.sppo.contestants import CONTESTANTS
from equilign.files import write_json
from equilign.runs import peak_memory_mb

PAPER_SCALE = "paper"
MODELS = ("mistralai/Mistral-7B-Instruct-v0.2", "llm-blender/PairRM-hf")
PACKAGES = ("sentencepiece",)
"""PairRM's tokenizer needs it; the rest comes with ``equilign[lm]``."""

PROMPTS = ("train.jsonl", "evaluate.jsonl")
_SOURCE = Path(__file__).resolve().parents[4] / "recipes" / "sppo_paper"

Progress = Callable[[str, int, int, int], None]


def recipe_folder() -> Path | None:
    """``recipes/sppo_paper`` of the source tree, or of the current folder; None if neither is."""
    for folder in (_SOURCE, Path("recipes") / "sppo_paper"):
        if (folder / "sppo.yaml").is_file():
            return folder
    return None


def missing(folder: Path | None) -> list[str]:
    """What this machine lacks for the recipe, one phrase each."""
    import torch

    found = []
    if not torch.cuda.is_available():
        found.append("a GPU (8 with 80 GB are what the paper used; torch sees none)")
    found += [f"the package {name}" for name in PACKAGES if find_spec(name) is None]
    found += [
        f"the model {name} (in the hub’s cache: hf download {name})"
        for name in MODELS
        if not _cached(name)
    ]
    if folder is None:
        found.append("the configurations recipes/sppo_paper of the source tree")
    else:
        found += [
            f"{folder / name} (written by {folder / 'prepare.py'})"
            for name in PROMPTS
            if not (folder / name).is_file()
        ]
    return found


def _cached(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "config.json"), str)


def run_paper_scale(
    output_dir: Path, *, seed: int, resume: bool, progress: Progress
) -> dict[str, Any]:
    """Train the three methods one after another with the paper's sizes, each in its own folder.

    For several GPUs start ``accelerate launch -m equilign train`` with the same configurations
    instead. Verdicts on claims need several seeds and are not given: the summary has the win rates
    of every iteration by the training oracle.

    Raises:
        ConfigError: the machine lacks something; says what, and where the configurations are.
    """
    folder = recipe_folder()
    lacking = missing(folder)
    where = "recipes/sppo_paper" if folder is None else str(folder)
    if lacking or folder is None:
        raise ConfigError(
            f"scale 'paper' cannot run on this machine. Missing: {'; '.join(lacking)}. The full "
            f"recipe is {where}/*.yaml, for 'equilign train' (see its README); it was not run "
            "here. --scale quick shows the comparison on the shipped model."
        )
    began = time.perf_counter()
    rounds = {}
    for c in CONTESTANTS:
        summary = _train(c.method, folder / f"{c.method}.yaml", output_dir, seed, resume, progress)
        rounds[c.method] = summary["methods"][c.method]["rounds"]
    found = {
        "paper": "sppo",
        "scale": PAPER_SCALE,
        "seed": seed,
        "claims": [],
        "tables": [_table(rounds)],
        "figures": [],
        "output_dir": str(output_dir),
        "seconds": time.perf_counter() - began,
        "peak_memory_mb": peak_memory_mb(),
    }
    write_json(output_dir / "results.json", found)
    return found


def _train(
    method: str, config: Path, output_dir: Path, seed: int, resume: bool, progress: Progress
) -> dict[str, Any]:
    from equilign.experiments.train import run_train
    from equilign.experiments.train_config import make_config, read_config_file

    folder = output_dir / method
    done = folder / "summary.json"
    if resume and done.exists():
        found: dict[str, Any] = json.loads(done.read_text(encoding="utf-8"))
        return found
    settings = make_config(
        method, read_config_file(config), [(("args", "seed"), seed)], config.parent
    )
    summary = run_train(settings, folder, resume=resume, progress=progress)
    assert summary is not None  # noqa: S101 - this is the only process
    return summary


def _table(rounds: dict[str, list[dict[str, Any]]]) -> dict[str, Any]:
    keys = ("win_rate", "low", "high", "mean_tokens")
    rows = [[m, r["round"], *(r[k] for k in keys)] for m, found in rounds.items() for r in found]
    return {
        "name": "win-rate-training",
        "caption": "Win rate over the start model by PairRM",
        "columns": ["Method", "Iteration", "Win rate", "low", "high", "Tokens"],
        "rows": rows,
        "digits": 3,
    }
