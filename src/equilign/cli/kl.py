"""`equilign kl`."""

import os
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from equilign.cli.console import plain, print_json, round_progress
from equilign.cli.options import options_of, run_options
from equilign.experiments.kl.config import KLConfig


@click.command("kl", context_settings={"show_default": True})
@options_of(KLConfig)
@run_options("runs/kl")
def command(
    output_dir: Path,
    resume: bool,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - fields of KLConfig
) -> None:
    """How far is each model from the one that it started from? KL per answer, in nats.

    Each model answers at temperature 1 and top-p 1, and both models are asked how likely every
    token was. A Follower is measured given the very answers that it was shown.

    Example: equilign kl --model sppo=runs/sppo --model slhf=runs/slhf --start shipped --prompts
    shipped
    """
    config = KLConfig(**options)
    if config.download:
        os.environ["HF_HUB_OFFLINE"] = "0"  # before the hub's library is imported
    from equilign.experiments.kl.run import run_kl  # torch is imported here

    with round_progress(0) as progress:
        results = run_kl(config, output_dir, resume=resume, progress=progress)
    if as_json:
        print_json(results)
    else:
        _print(results)


def _print(results: dict[str, Any]) -> None:
    title = f"KL from {results['start']} in nats, {results['prompts']} prompts (95 % intervals)"
    table = Table(title=plain(title), title_justify="left")
    table.add_column("player")
    for name in ("KL per answer", "k1", "KL per token", "tokens", "finished"):
        table.add_column(name, justify="right")
    for p in results["players"]:
        table.add_row(
            plain(p["name"]),
            _interval(p["kl"], "nats", 3),
            _interval(p["k1"], "nats", 2),
            _number(p["kl_per_token"]["nats"], 4),
            _interval(p["tokens"], "mean", 1),
            f"{100.0 * p['finished_share']:.1f} %",
        )
    console = Console()
    console.print(table)
    left = [(p["name"], p["not_shown"]) for p in results["players"] if p["not_shown"]]
    for name, count in left:
        console.print(plain(f"{name}: {count} answers were too long to be shown, and do not count"))
    console.print(Text(f"{results['seconds']:.0f} seconds; answers in {results['answers']}"))


def _number(value: float | None, digits: int) -> str:
    return "–" if value is None else f"{value:.{digits}f}"


def _interval(found: dict[str, Any], name: str, digits: int) -> str:
    ends = " to ".join(_number(found[k], digits) for k in ("low", "high"))
    return f"{_number(found[name], digits)}\n{ends}"
