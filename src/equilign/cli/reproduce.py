"""`equilign reproduce`."""

from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from equilign.cli.console import plain, print_json, round_progress
from equilign.experiments.reproduce import PAPERS, SCALES, check_request, reproduce

VERDICTS = {True: "holds", False: "does not hold", None: "undecided"}


@click.command("reproduce", context_settings={"show_default": True})
@click.argument("paper")
@click.option(
    "--scale",
    default="quick",
    help=f"How much is run: {', '.join(SCALES)} ('tiny' only shows that it works).",
)
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path),
    default=None,
    help="Run directory.",
    show_default="runs/PAPER",
)
@click.option("--seed", type=int, default=0, help="Seed of everything.")
@click.option("--resume", is_flag=True, help="Go on with the run in the output directory.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(
    paper: str, scale: str, output_dir: Path | None, seed: int, resume: bool, as_json: bool
) -> None:
    """Run the experiments of PAPER again and judge its claims.

    Writes results.json, report.html and figures. PAPER is one of those listed when it is unknown.
    """
    check_request(paper, scale, seed)
    folder = Path("runs") / paper if output_dir is None else output_dir
    with round_progress(0) as progress:
        summary = reproduce(paper, folder, scale=scale, seed=seed, resume=resume, progress=progress)
    if as_json:
        print_json(summary)
    else:
        _print(summary)


def _print(summary: dict[str, Any]) -> None:
    console = Console()
    title = f"{PAPERS[summary['paper']].citation}, scale {summary['scale']}"
    table = Table(title=title, title_justify="left", show_lines=True)
    table.add_column("claim", ratio=2)
    table.add_column("verdict")
    table.add_column("evidence", ratio=3)
    for claim in summary["claims"]:
        table.add_row(
            plain(claim["claim"], 1000), VERDICTS[claim["holds"]], plain(claim["evidence"], 2000)
        )
    console.print(table)
    folder = Path(summary["output_dir"])
    console.print(
        Text(
            f"{summary['seconds']:.0f} seconds, peak memory {summary['peak_memory_mb']:.0f} MB\n"
            f"Open {folder / 'report.html'}"
        )
    )
