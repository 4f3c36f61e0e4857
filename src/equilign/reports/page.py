"""One page per run: `render_report` writes a report that opens from disk without a network."""

import base64
import hashlib
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from equilign.files import write_atomically
from equilign.reports.content import page_content
from equilign.reports.figures import Chart, charts, inline
from equilign.reports.run import Run, read_run
from equilign.text import visible

MOST_BYTES = 1_500_000
_BUDGETS = (900_000, 300_000, 0)
"""Bytes for the answers; a smaller one is tried when the rest of the page is large."""


def _show(value: object) -> object:
    """Make hidden characters visible in whatever the template prints, trusted markup excepted."""
    if isinstance(value, Markup):
        return value
    return visible(value) if isinstance(value, str) else value


def _environment() -> Environment:
    return Environment(
        loader=PackageLoader("equilign.reports", ""),
        autoescape=True,
        finalize=_show,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _package_file(name: str) -> str:
    return resources.files("equilign.reports").joinpath(name).read_text(encoding="utf-8")


def _hash(content: str) -> str:
    digest = hashlib.sha256(content.encode()).digest()
    return f"'sha256-{base64.b64encode(digest).decode()}'"


def _policy(css: str, js: str) -> str:
    return (
        f"default-src 'none'; style-src {_hash(css)}; script-src {_hash(js)}; "
        "base-uri 'none'; form-action 'none'"
    )


def _figure(chart: Chart) -> dict[str, Any]:
    # Figures hold markup of our own making: every text in them went through an XML serialiser.
    drawn = {name: Markup(svg) for name, svg in inline(chart).items()}
    return {"key": chart.key, "table": chart.table, **drawn}


def _figures(run: Run) -> dict[str, dict[str, Any] | None]:
    drawn = {key: _figure(chart) for key, chart in charts(run).items()}
    return {key: drawn.get(key) for key in ("win-rate", "front", "attributes", "cycles")}


def report_html(summary: Mapping[str, Any]) -> str:
    """Return the report as one HTML document; the same summary gives the same text.

    Args:
        summary: A run summary, see `equilign.reports.schema`.

    Returns:
        A page below `MOST_BYTES`, unless the run has so many methods or attributes that its
        figures and tables alone exceed that.
    """
    run = read_run(summary)
    css, js = _package_file("page.css"), _package_file("page.js")
    template = _environment().get_template("page.html.j2")
    fixed = {
        "css": Markup(css),
        "js": Markup(js),
        "policy": _policy(css, js),
        "charts": _figures(run),
    }
    page = ""
    for budget in _BUDGETS:
        page = template.render(**fixed, **page_content(run, budget)).lstrip()
        if len(page.encode()) < MOST_BYTES:
            break
    return page


def render_report(summary: Mapping[str, Any], path: Path) -> None:
    """Write the report of a run, replacing an older one only when the new one is complete.

    Args:
        summary: A run summary, see `equilign.reports.schema`; any part may be missing.
        path: The HTML file to write.
    """
    write_atomically(Path(path), report_html(summary).encode())
