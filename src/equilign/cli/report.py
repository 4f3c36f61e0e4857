"""`equilign report`."""

import json
from pathlib import Path

import click

from equilign.errors import DataError


@click.command("report")
@click.argument("run", type=click.Path(path_type=Path))
def command(run: Path) -> None:
    """Write report.html of RUN again, from its summary.json, or a tournament's results.json."""
    from equilign.reports import render_report, save_figures

    if not (run / "summary.json").exists() and (run / "prompts.jsonl").is_file():
        from equilign.reports.tournament import render_again

        render_again(run)
        click.echo(str(run / "report.html"))
        return
    path = run / "summary.json"
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot read {path}: {error}. A run writes it when it ends; "
            "finish an unfinished one with --resume."
        ) from error
    if not isinstance(summary, dict):
        raise DataError(f"{path} is not the summary of a run")
    render_report(summary, run / "report.html")
    save_figures(summary, run / "figures")
    click.echo(str(run / "report.html"))
