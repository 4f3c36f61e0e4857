"""`equilign report`."""

import json
from pathlib import Path
from typing import Any

import click

from equilign.errors import ConfigError, DataError


@click.command("report")
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path), metavar="RUN...")
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path),
    help="Where the page and the figures go; the run itself, if there is only one.",
)
def command(runs: tuple[Path, ...], output_dir: Path | None) -> None:
    """Write report.html of RUN again, or one page of several runs side by side.

    A run has a summary.json; a tournament, which has a results.json, has a page of its own.

    Example: equilign report runs/sppo runs/dpo --output-dir runs/both
    """
    from equilign.reports import render_report, save_figures, side_by_side

    if len(runs) == 1 and _is_tournament(runs[0]):
        from equilign.reports.tournament import render_again

        render_again(runs[0])
        click.echo(str(runs[0] / "report.html"))
        return
    summaries = [(run.resolve().name, _summary(run)) for run in runs]
    if len(runs) > 1 and output_dir is None:
        raise ConfigError("several runs: say with --output-dir where their page goes")
    summary = summaries[0][1] if len(runs) == 1 else side_by_side(summaries)
    folder = output_dir or runs[0]
    folder.mkdir(parents=True, exist_ok=True)
    render_report(summary, folder / "report.html")
    save_figures(summary, folder / "figures")
    click.echo(str(folder / "report.html"))


def _is_tournament(run: Path) -> bool:
    return not (run / "summary.json").exists() and (run / "prompts.jsonl").is_file()


def _summary(run: Path) -> dict[str, Any]:
    path = run / "summary.json"
    if _is_tournament(run):
        raise DataError(
            f"{run} is a tournament, which has a page of its own: equilign report {run}"
        )
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise DataError(
            f"cannot read {path}: {error}. A run writes it when it ends; "
            "finish an unfinished one with --resume."
        ) from error
    if not isinstance(summary, dict):
        raise DataError(f"{path} is not the summary of a run")
    return summary
