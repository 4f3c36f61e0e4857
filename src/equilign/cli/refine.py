"""`equilign refine`."""

import os
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from equilign.cli.console import print_json, round_progress
from equilign.cli.options import options_of
from equilign.errors import ConfigError
from equilign.experiments.refine.config import RefineConfig


@click.command("refine", context_settings={"show_default": True})
@options_of(RefineConfig)
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path),
    default=Path("runs/refine"),
    help="Run directory; answers.jsonl in it is the output.",
)
@click.option("--resume", is_flag=True, help="Go on with the run in the output directory.")
@click.option(
    "--stdout",
    is_flag=True,
    help="Print every line of the output as soon as it is finished, and nothing else.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(
    output_dir: Path,
    resume: bool,
    stdout: bool,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - fields of RefineConfig
) -> None:
    """Improve answers over several rounds by a Follower; any model may lead.

    The Leader answers each prompt, or a file has its answers. The Follower is shown the prompt and
    the last answer and writes a better one, --rounds times. Lines are written as they are finished.

    Example: equilign refine --prompts shipped --leader shipped --follower runs/slhf --oracle
    restaurant
    """
    if stdout and as_json:
        raise ConfigError("--stdout and --json both write to stdout; give one of them")
    config = RefineConfig(**options)
    if config.download:
        os.environ["HF_HUB_OFFLINE"] = "0"  # before the hub's library is imported
    from equilign.experiments.refine.run import run_refine  # torch is imported here

    with round_progress(0) as progress:
        summary = run_refine(
            config,
            output_dir,
            resume=resume,
            progress=progress,
            echo=_echo if stdout else None,
        )
    if as_json:
        print_json(summary)
    elif not stdout:
        _print(summary)


def _echo(line: bytes) -> None:
    sys.stdout.buffer.write(line)
    sys.stdout.buffer.flush()


# -- what came of it -----------------------------------------------------------------------


def _interval(row: dict[str, Any], name: str) -> str:
    if row[name] is None:
        return "–"
    return f"{row[name]:.3f} ({row['low']:.3f} to {row['high']:.3f})"


def _share(value: float | None) -> str:
    return "–" if value is None else f"{100.0 * value:.1f} %"


def _rounds(summary: dict[str, Any]) -> Table:
    judged = summary["oracle"] != "none"
    title = f"{summary['chains']} chains on {summary['prompts']} prompts"
    table = Table(title=title, title_justify="left")
    for name in ("round", *(["over the leader (95 %)"] if judged else []), "tokens", "unchanged"):
        table.add_column(name, justify="right")
    table.add_column("too long", justify="right")
    leader = summary["leader"]
    first = ["leader", *(["0.500"] if judged else []), f"{leader['mean_tokens']:.1f}", "", ""]
    table.add_row(*first)
    for r in summary["rounds"]:
        cells = [_interval(r, "win_rate_vs_leader")] if judged else []
        lengths = f"{r['mean_tokens']:.1f}"
        shares = (_share(r["unchanged_share"]), _share(r["too_long_share"]))
        table.add_row(str(r["round"]), *cells, lengths, *shares)
    return table


def _budgets(compare: dict[str, Any]) -> Table:
    title = f"win rate over {compare['opponents']} further answers of the leader"
    table = Table(title=title, title_justify="left")
    table.add_column("generated answers", justify="right")
    for player in compare["players"].values():
        table.add_column(player["title"], justify="right")
    for i, n in enumerate(compare["answers"]):
        rows = [{k: p[k][i] for k in ("win_rate", "low", "high")} for p in _players(compare)]
        table.add_row(str(n), *(_interval(r, "win_rate") for r in rows))
    return table


def _players(compare: dict[str, Any]) -> list[dict[str, Any]]:
    return list(compare["players"].values())


def _print(summary: dict[str, Any]) -> None:
    console = Console()
    console.print(_rounds(summary))
    picked = summary["picked"]
    if picked is not None and picked["win_rate_vs_leader"] is not None:
        words = f"The oracle's pick: {_interval(picked, 'win_rate_vs_leader')} over the leader"
        console.print(Text(words))
    if summary["compare"] is not None:
        console.print(_budgets(summary["compare"]))
    console.print(
        Text(
            f"{summary['seconds']:.0f} seconds, peak memory {summary['peak_memory_mb']:.0f} MB\n"
            f"Answers: {summary['answers']}"
        )
    )
