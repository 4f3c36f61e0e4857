"""The last part of a reproduction: its page, its figures, ``results.json``."""

import json
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from equilign.experiments.table_data import shown
from equilign.files import write_json
from equilign.reports.reproduction import ReproductionPage, Section, render_reproduction
from equilign.reports.reproduction_figures import LineChart
from equilign.reports.words import duration
from equilign.runs import peak_memory_mb

Progress = Callable[[str, int, int, int], None]
Claims = Sequence[Mapping[str, Any]]

SectionPlan = tuple[str, str, tuple[str, ...], tuple[str, ...]]
"""Key, heading, first letters of the tables' names that belong there, paragraphs."""


@dataclass(frozen=True)
class PageHead:
    """What a page says of its paper.

    Attributes:
        paper: as on the command line.
        title: heading.
        citation: such as "arXiv:2405.00675".
        setting: how this run differs from the paper's, in words.
        findings: what the claims are, in the plural.
    """

    paper: str
    title: str
    citation: str
    setting: str
    findings: str = "findings"


@dataclass(frozen=True)
class PageBody:
    """What a page shows.

    Attributes:
        claims: ``claim, holds, evidence, source`` each.
        plan: the sections.
        charts: by section.
        tables: as `table_data` makes them; a section has those whose names begin as it says.
        facts: name and value, after time and memory.
    """

    claims: Claims
    plan: Iterable[SectionPlan]
    charts: Mapping[str, Sequence[LineChart]]
    tables: Sequence[Mapping[str, Any]]
    facts: Sequence[tuple[str, str]]


def lead(head: PageHead, claims: Claims) -> list[str]:
    """How many findings reappear, and in what setting."""
    holds = [claim["holds"] for claim in claims]
    return [
        f"Of {len(holds)} {head.findings}, {holds.count(True)} reappear in this run, "
        f"{holds.count(False)} do not, and {holds.count(None)} are not decided by its numbers.",
        head.setting,
    ]


def make_page(
    head: PageHead,
    body: PageBody,
    settings: Mapping[str, Any],
    environment: Mapping[str, Any],
    measured: Mapping[str, float],
) -> ReproductionPage:
    """The page.

    Args:
        head: what it says of the paper.
        body: what it shows.
        settings: of the run, with ``scale`` and ``seed``.
        environment: versions and machine.
        measured: ``seconds`` and ``peak_memory_mb``.
    """
    sections = [
        Section(
            key,
            title,
            words,
            body.charts.get(key, ()),
            [shown(t) for t in body.tables if t["name"].startswith(prefixes)],
        )
        for key, title, prefixes, words in body.plan
    ]
    scale, seed = settings["scale"], settings["seed"]
    return ReproductionPage(
        title=head.title,
        kicker=f"equilign reproduce {head.paper} · scale {scale} · seed {seed}",
        paper=head.citation,
        lead=lead(head, body.claims),
        claims=body.claims,
        sections=sections,
        facts=[
            ("Whole run", duration(measured["seconds"])),
            ("Peak memory of the largest process", f"{measured['peak_memory_mb']:,.0f} MB"),
            *body.facts,
        ],
        config=dict(settings),
        environment=environment,
    )


def size_facts(scale: object) -> list[tuple[str, str]]:
    """The sizes, as rows of name and value."""
    return [(name.replace("_", " "), str(value)) for name, value in vars(scale).items()]


BuildPage = Callable[
    [Mapping[str, Any], Mapping[str, float]], tuple[ReproductionPage, list[dict[str, Any]]]
]
"""From the environment and what was measured to the page and its tables as data."""


def finish(
    output_dir: Path,
    settings: Mapping[str, Any],
    claims: Claims,
    pieces: Iterable[Mapping[str, Any]],
    began: float,
    build: BuildPage,
    progress: Progress,
) -> dict[str, Any]:
    """Write page, figures and ``results.json``.

    Args:
        output_dir: the run directory.
        settings: with ``paper``, ``scale`` and ``seed``.
        claims: judged.
        pieces: what the trainings recorded; each with ``peak_memory_mb``.
        began: `time.perf_counter` at the start.
        build: the page.
        progress: told before and after.

    Returns:
        ``paper, title, citation, scale, seed, claims, tables, figures, output_dir, seconds,
        peak_memory_mb, pieces, models``.
    """
    environment = json.loads((output_dir / "environment.json").read_text(encoding="utf-8"))
    measured = {
        "seconds": time.perf_counter() - began,
        "peak_memory_mb": max(peak_memory_mb(), *(p["peak_memory_mb"] for p in pieces)),
    }
    page, tables = build(environment, measured)
    progress("figures and page", 0, 0, 1)
    paths = render_reproduction(page, output_dir)
    summary = {
        "paper": settings["paper"],
        "title": page.title,
        "citation": page.paper,
        "scale": settings["scale"],
        "seed": settings["seed"],
        "claims": list(claims),
        "tables": tables,
        "figures": [str(path.relative_to(output_dir)) for path in paths],
        "output_dir": str(output_dir),
        **measured,
        "seconds": time.perf_counter() - began,
        "pieces": [f"pieces/{path.name}" for path in sorted(output_dir.glob("pieces/*.json"))],
        "models": [f"models/{path.name}" for path in sorted(output_dir.glob("models/*"))],
    }
    write_json(output_dir / "results.json", summary)
    progress("figures and page", 0, 1, 1)
    return summary
