"""The page of a reproduced paper: its claims one by one, and the evidence behind them."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from markupsafe import Markup

from equilign.files import write_atomically
from equilign.reports.content import flat_rows
from equilign.reports.page import _environment, _package_file, _policy
from equilign.reports.reproduction_figures import LineChart, inline_chart, save_chart
from equilign.reports.tables import Table

VERDICTS = {True: ("better", "Holds"), False: ("worse", "Does not hold"), None: ("", "Undecided")}
"""Style and word by what a claim's rule said."""


@dataclass(frozen=True)
class Section:
    """A part of the page.

    Attributes:
        key: anchor.
        title: heading.
        paragraphs: before the figures.
        charts: in order.
        tables: after the figures.
    """

    key: str
    title: str
    paragraphs: Sequence[str] = ()
    charts: Sequence[LineChart] = ()
    tables: Sequence[Table] = ()


@dataclass(frozen=True)
class ReproductionPage:
    """Everything on the page.

    Attributes:
        title: heading.
        kicker: the line above it.
        paper: citation such as "arXiv:2512.24818".
        lead: what was found, in a few sentences.
        claims: ``claim``, ``holds`` (True, False or None) and ``evidence`` each.
        sections: in order.
        facts: rows of name and value on time and sizes.
        config: options.
        environment: versions and machine.
    """

    title: str
    kicker: str
    paper: str
    lead: Sequence[str]
    claims: Sequence[Mapping[str, Any]]
    sections: Sequence[Section]
    facts: Sequence[tuple[str, str]] = ()
    config: Mapping[str, Any] = field(default_factory=dict)
    environment: Mapping[str, Any] = field(default_factory=dict)


def _chart(chart: LineChart) -> dict[str, Any]:
    # Our own markup: every text in it went through an XML serialiser.
    drawn = {name: Markup(svg) for name, svg in inline_chart(chart).items()}
    return {"key": chart.key, "caption": chart.caption, "table": chart.table, **drawn}


def reproduction_html(page: ReproductionPage) -> str:
    """The page as one HTML document that loads nothing; the same content gives the same text."""
    css, js = _package_file("page.css"), _package_file("page.js")
    sections = [
        {
            "key": section.key,
            "title": section.title,
            "paragraphs": section.paragraphs,
            "charts": [_chart(chart) for chart in section.charts],
            "tables": section.tables,
        }
        for section in page.sections
    ]
    claims = [
        {**claim, "style": VERDICTS[claim["holds"]][0], "verdict": VERDICTS[claim["holds"]][1]}
        for claim in page.claims
    ]
    arxiv = page.paper.partition("arXiv:")[2]
    template = _environment().get_template("reproduction.html.j2")
    return template.render(
        css=Markup(css),
        js=Markup(js),
        policy=_policy(css, js),
        title=page.title,
        kicker=page.kicker,
        paper=page.paper,
        link=f"https://arxiv.org/abs/{arxiv}" if arxiv else "",
        lead=page.lead,
        claims=claims,
        sections=sections,
        facts=page.facts,
        config=flat_rows(page.config),
        environment=flat_rows(page.environment),
    ).lstrip()


def render_reproduction(page: ReproductionPage, folder: Path) -> list[Path]:
    """Write ``report.html`` and every chart as SVG and PNG in ``figures/``.

    Returns:
        The charts' paths.
    """
    written = []
    for section in page.sections:
        for chart in section.charts:
            written += save_chart(chart, Path(folder) / "figures")
    write_atomically(Path(folder) / "report.html", reproduction_html(page).encode())
    return written
