"""`equilign fit-oracle`."""

import os
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path
from typing import Any, get_args, get_type_hints

import click
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from equilign.cli.console import plain, print_json, round_progress
from equilign.cli.options import run_options
from equilign.fitting.config import FitConfig

_FLAGS = ("compare",)
"""Switches that are on unless ``--no-...`` is given."""


def _of_config(function: Callable[..., None]) -> Callable[..., None]:
    """An option for every field of `FitConfig`, with that field's help and default."""
    types = get_type_hints(FitConfig)
    for f in reversed([f for f in fields(FitConfig) if f.name != "kind"]):
        name = f"--{f.name.replace('_', '-')}"
        text = str(f.metadata["help"])
        kind = next(
            (t for t in (bool, int, float) if t in (types[f.name], *get_args(types[f.name]))), str
        )
        if f.name == "data":
            option = click.option(name, multiple=True, help=text)
        elif kind is bool:
            both = f"{name}/--no-{f.name}" if f.name in _FLAGS else name
            option = click.option(both, is_flag=True, default=f.default, help=text)
        else:
            option = click.option(name, type=kind, default=f.default, help=text)
        function = option(function)
    return function


@click.command("fit-oracle", context_settings={"show_default": True})
@click.argument("kind", metavar="{reward|pairwise|general}")
@_of_config
@run_options("equilign-judge")
def command(
    kind: str,
    output_dir: Path,
    resume: bool,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - fields of FitConfig
) -> None:
    """Train a judge from pairwise preferences, and say how far it can be trusted.

    KIND is reward (one score per answer, Bradley-Terry), pairwise (reads both answers), or general
    (an embedding per answer; can be intransitive). A fifth of the prompts is kept back for the
    measurement. Writes a run directory with judge/ and report.html in it; `oracle: {kind: KIND,
    path: OUTPUT_DIR}` in a training configuration uses the judge.
    """
    config = FitConfig(kind=kind, **options)
    if config.allow_download:
        os.environ["HF_HUB_OFFLINE"] = "0"  # before the hub's library is imported
    from transformers.utils import logging as transformers_logging  # torch is imported here

    from equilign.fitting import run_fit_oracle

    transformers_logging.disable_progress_bar()  # type: ignore[no-untyped-call]
    with round_progress(0) as progress:
        summary = run_fit_oracle(config, output_dir, resume=resume, progress=progress)
    if as_json:
        print_json({k: v for k, v in summary.items() if k not in ("curves", "environment")})
    else:
        _print(summary)


def _print(summary: dict[str, Any]) -> None:
    console = Console()
    console.print(_table(summary))
    for claim in summary["claims"]:
        verdict = {True: "yes", False: "no", None: "undecided"}[claim["holds"]]
        style = {True: "bold green", False: "bold red", None: "bold yellow"}[claim["holds"]]
        console.print(Text.assemble((f"{verdict:<10}", style), plain(claim["claim"])))
        console.print(Padding(plain(claim["evidence"], 600), (0, 0, 0, 10), expand=False))
    folder = Path(summary["output_dir"])
    console.print()
    console.print(
        Text(
            f"{summary['seconds']:.0f} seconds, peak memory {summary['peak_memory_mb']:.0f} MB\n"
            f"The judge is in {folder / 'judge'}\nOpen {folder / 'report.html'}"
        )
    )


def _table(summary: dict[str, Any]) -> Table:
    h, b = summary["held_out"], summary["baselines"]
    title = f"held out: {h['pairs']} pairs on {h['prompts']} prompts"
    table = Table(title=title, title_justify="left")
    for name in ("judge", "accuracy", "95 % interval", "log-loss", "95 % interval"):
        table.add_column(name, justify="left" if name == "judge" else "right")
    rows = {summary["kind"]: h}
    comparison = summary["comparison"]
    if comparison is not None:
        sides = (comparison["transitive"], comparison["other"])
        rows |= {side["kind"]: side for side in sides if side["kind"] != summary["kind"]}
    for name, v in rows.items():
        table.add_row(
            name,
            f"{v['accuracy']:.3f}",
            f"{v['low']:.3f} to {v['high']:.3f}",
            f"{v['log_loss']:.3f}",
            f"{v['log_loss_low']:.3f} to {v['log_loss_high']:.3f}",
        )
    longer = b["longer_wins"]
    bounds = f"{longer['low']:.3f} to {longer['high']:.3f}"
    table.add_row("longer wins", f"{longer['accuracy']:.3f}", bounds, "", "")
    table.add_row("one half, always", "0.500", "", f"{b['chance']['log_loss']:.3f}", "")
    return table
