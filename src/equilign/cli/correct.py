"""`equilign correct`."""

import os
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from equilign.cli.console import plain, print_json, round_progress
from equilign.cli.options import options_of, run_options
from equilign.experiments.correct.config import CorrectConfig


@click.command("correct", context_settings={"show_default": True})
@options_of(CorrectConfig)
@run_options("runs/correct")
def command(
    output_dir: Path,
    resume: bool,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - fields of CorrectConfig
) -> None:
    """Who improves whose answers? Every Follower is shown every Leader's answers, and replies.

    Example: equilign correct --prompts shipped --oracle restaurant --leader shipped --leader
    runs/slhf --follower runs/slhf
    """
    config = CorrectConfig(**options)
    if config.download:
        os.environ["HF_HUB_OFFLINE"] = "0"  # before the hub's library is imported
    from equilign.experiments.correct.run import run_correct  # torch is imported here

    with round_progress(len(config.leader) * len(config.follower)) as progress:
        summary = run_correct(config, output_dir, resume=resume, progress=progress)
    if as_json:
        print_json(summary)
    else:
        _print(summary)


def _print(summary: dict[str, Any]) -> None:
    title = f"How often the reply beats the answer that was shown, {summary['prompts']} prompts"
    table = Table(title=title, title_justify="left")
    table.add_column("follower \\ leader")
    for name in summary["leaders"]:
        table.add_column(plain(name), justify="right")
    for i, name in enumerate(summary["followers"]):
        cells = zip(*(summary[k][i] for k in ("win_rate", "low", "high")), strict=True)
        shown = ["–" if w is None else f"{w:.3f} ({a:.3f} to {b:.3f})" for w, a, b in cells]
        table.add_row(plain(name), *shown)
    console = Console()
    console.print(table)
    console.print(Text(f"{summary['seconds']:.0f} seconds; answers in {summary['output_dir']}"))
