"""A paper's own sizes: configurations for `equilign train`, run one after another. Not run here.

What a machine lacks for them is said before anything is begun.
"""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from equilign.errors import ConfigError
from equilign.files import write_json
from equilign.runs import peak_memory_mb

PAPER_SCALE = "paper"
_RECIPES = Path(__file__).resolve().parents[3] / "recipes"

Progress = Callable[[str, int, int, int], None]


@dataclass(frozen=True)
class PaperRecipe:
    """What a paper's sizes need.

    Attributes:
        paper: as on the command line.
        hardware: what the paper used.
        methods: file name of each configuration, without ``.yaml``, and its method.
        models: in the hub's cache.
        packages: beyond those of ``equilign[lm]``.
        files: that the recipe's ``prepare.py`` or its other commands write into its folder.
    """

    paper: str
    hardware: str
    methods: Sequence[tuple[str, str]]
    models: Sequence[str]
    packages: Sequence[str]
    files: Sequence[str]

    @property
    def name(self) -> str:
        """The folder's."""
        return f"{self.paper}_paper"

    def folder(self) -> Path | None:
        """In the source tree, or in the current folder; None if it is in neither."""
        for folder in (_RECIPES / self.name, Path("recipes") / self.name):
            if (folder / f"{self.methods[0][0]}.yaml").is_file():
                return folder
        return None

    def missing(self, folder: Path | None) -> list[str]:
        """What this machine lacks, one phrase each."""
        import torch

        found = []
        if not torch.cuda.is_available():
            found.append(f"a GPU ({self.hardware}; torch sees none)")
        found += [f"the package {name}" for name in self.packages if find_spec(name) is None]
        found += [
            f"the model {name} (in the hub’s cache: hf download {name})"
            for name in self.models
            if not _cached(name)
        ]
        if folder is None:
            return [*found, f"the configurations recipes/{self.name} of the source tree"]
        found += [
            f"{folder / name} (see {folder / 'README.md'})"
            for name in self.files
            if not (folder / name).exists()
        ]
        return found

    def run(
        self,
        output_dir: Path,
        folder: Path | None,
        lacking: Sequence[str],
        *,
        seed: int,
        resume: bool,
        progress: Progress,
    ) -> dict[str, Any]:
        """Train the methods one after another, each in its own folder.

        For several GPUs start ``accelerate launch -m equilign train`` with the same configurations
        instead. Verdicts on claims need several seeds and are not given: the summary has the win
        rates of every evaluated round by the training oracle.

        Raises:
            ConfigError: the machine lacks something; says what, and where the configurations are.
        """
        where = f"recipes/{self.name}" if folder is None else str(folder)
        if lacking or folder is None:
            raise ConfigError(
                f"scale 'paper' cannot run on this machine. Missing: {'; '.join(lacking)}. The "
                f"full recipe is {where}/*.yaml, for 'equilign train' (see its README); it was not "
                "run here. --scale quick shows the comparison on the shipped model."
            )
        began = time.perf_counter()
        rounds = {}
        for file, method in self.methods:
            config = folder / f"{file}.yaml"
            summary = _train(method, config, output_dir / file, seed, resume, progress)
            rounds[file] = summary["methods"][method]["rounds"]
        found = {
            "paper": self.paper,
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


def _cached(name: str) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return isinstance(try_to_load_from_cache(name, "config.json"), str)


def _train(
    method: str, config: Path, folder: Path, seed: int, resume: bool, progress: Progress
) -> dict[str, Any]:
    from equilign.experiments.train import run_train
    from equilign.experiments.train_config import make_config, read_config_file

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
        "caption": "Win rate over the start model by the training oracle",
        "columns": ["Method", "Round", "Win rate", "low", "high", "Tokens"],
        "rows": rows,
        "digits": 3,
    }
