"""All parts in order, each written when it is done, then claims and page."""

import json
import time
from collections.abc import Callable
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from equilign.errors import RunDirectoryError
from equilign.experiments.omwu.claims import judge
from equilign.experiments.omwu.families import FAMILIES
from equilign.experiments.omwu.floors import study_floors
from equilign.experiments.omwu.linear_phase import study_linear_phase
from equilign.experiments.omwu.networks import study_networks
from equilign.experiments.omwu.page import PAPER, build_page
from equilign.experiments.omwu.regrowth import study_regrowth
from equilign.experiments.omwu.scales import Scale, get_scale
from equilign.experiments.omwu.tabular import study_family
from equilign.files import explain_disk_full, write_json
from equilign.reports.reproduction import render_reproduction
from equilign.runs import RunDirectory, peak_memory_mb

Progress = Callable[[str, int, int, int], None]
"""Called with what is being done, 0, how much of it is done, and how much there is."""

Tell = Callable[[int, int], None]

NEURAL_FAMILIES = ("full-even", "random")
"""100 is even: an interior equilibrium is then one of many, or none."""


class _Parts:
    """Finished parts in the run's folder; what is there is not computed again."""

    def __init__(self, folder: Path, progress: Progress) -> None:
        self.folder, self.progress = folder, progress

    def get(self, name: str, title: str, compute: Callable[[Tell], Any]) -> Any:  # noqa: ANN401
        path = self.folder / "parts" / f"{name}.json"
        if path.exists():
            try:
                return json.loads(path.read_text(encoding="utf-8"))
            except (OSError, ValueError) as error:
                raise RunDirectoryError(
                    f"cannot read {path}: {error}; delete that file to compute the part again"
                ) from error
        self.progress(title, 0, 0, 1)
        found = compute(lambda done, total: self.progress(title, 0, done, total))
        write_json(path, found)
        return found


def _study(parts: _Parts, scale: Scale, seed: int) -> dict[str, Any]:
    results: dict[str, Any] = {"tabular": {}, "floors": {}, "linear": {}, "neural": {}}
    for family in FAMILIES:
        name, title = family.name, family.title
        tabular = parts.get(
            f"tabular-{name}", f"matrices: {title}", partial(study_family, family, scale, seed)
        )
        results["tabular"][name] = tabular
        results["floors"][name] = parts.get(
            f"floors-{name}",
            f"bias floors: {title}",
            partial(study_floors, family, scale, seed, tabular),
        )
        results["linear"][name] = parts.get(
            f"linear-{name}",
            f"linear phase: {title}",
            partial(study_linear_phase, family, scale, seed, tabular["contestants"]["omwu"]["eta"]),
        )
    results["regrowth"] = parts.get(
        "regrowth", "rarely played responses", partial(study_regrowth, scale, seed)
    )
    for family in FAMILIES:
        if family.name in NEURAL_FAMILIES:
            results["neural"][family.name] = parts.get(
                f"networks-{family.name}",
                f"networks: {family.title.partition(',')[0]}",
                partial(study_networks, family, scale, seed),
            )
    return results


def run_omwu(
    output_dir: Path, *, scale: str, seed: int, resume: bool, progress: Progress
) -> dict[str, Any]:
    """Run or resume the reproduction in ``output_dir``.

    Args:
        output_dir: gets ``results.json``, ``report.html``, ``figures/`` and ``parts/``.
        scale: one of `equilign.experiments.omwu.scales.SCALES`.
        seed: of games, start policies and networks.
        resume: go on with the run that is there.
        progress: told what happens.

    Returns:
        ``paper, title, citation, scale, seed, claims, tables, figures, parts, seconds,
        peak_memory_mb, output_dir``, as in results.json; the parts' files hold every curve.

    Raises:
        ConfigError, RunDirectoryError, DiskFullError: see `equilign.errors`.
    """
    began = time.perf_counter()
    sizes = get_scale(scale)
    settings = {"paper": "omwu", "scale": scale, "seed": seed, **_plain(asdict(sizes))}
    RunDirectory(output_dir).open(settings, resume=resume, need_mb=20.0)
    with explain_disk_full(output_dir):
        results = _study(_Parts(output_dir, progress), sizes, seed)
        claims = judge(results)
        environment = json.loads((output_dir / "environment.json").read_text(encoding="utf-8"))
        measured = {"seconds": time.perf_counter() - began, "peak_memory_mb": peak_memory_mb()}
        page, tables = build_page(results, claims, settings, sizes, environment, measured)
        progress("figures and page", 0, 0, 1)
        paths = render_reproduction(page, output_dir)
        summary = {
            "paper": "omwu",
            "title": page.title,
            "citation": PAPER,
            "scale": scale,
            "seed": seed,
            "claims": claims,
            "tables": tables,
            "figures": [str(path.relative_to(output_dir)) for path in paths],
            "output_dir": str(output_dir),
            **measured,
            "seconds": time.perf_counter() - began,
            "parts": [f"parts/{path.name}" for path in sorted(output_dir.glob("parts/*.json"))],
        }
        write_json(output_dir / "results.json", summary)
        progress("figures and page", 0, 1, 1)
    return summary


def _plain(values: dict[str, Any]) -> dict[str, Any]:
    return {k: list(v) if isinstance(v, tuple) else v for k, v in values.items()}
