"""`equilign tournament`."""

import os
import sys
from pathlib import Path
from typing import Any

import click
from rich.console import Console
from rich.table import Table
from rich.text import Text

from equilign.cli.console import plain, print_json, round_progress
from equilign.cli.options import options_of
from equilign.errors import ConfigError
from equilign.experiments.tournament.config import TournamentConfig


@click.command("tournament", context_settings={"show_default": True})
@options_of(TournamentConfig)
@click.option(
    "--output-dir",
    type=click.Path(path_type=Path),
    default=Path("runs/tournament"),
    help="Run directory.",
)
@click.option(
    "--resume", is_flag=True, help="Go on with the tournament that is there; players may join."
)
@click.option(
    "--dry-run", is_flag=True, help="Say how many questions there are to ask, and do nothing else."
)
@click.option("--yes", is_flag=True, help="Ask a paid judge without asking you first.")
@click.option(
    "--max-questions",
    type=click.IntRange(0),
    default=0,
    help="Ask a paid judge up to so many questions without asking you first.",
)
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(
    output_dir: Path,
    resume: bool,
    dry_run: bool,
    yes: bool,
    max_questions: int,
    as_json: bool,
    **options: Any,  # noqa: ANN401 - fields of TournamentConfig
) -> None:
    """Everybody against everybody on the same prompts.

    Players are models, run directories, checkpoints, adapters, Leaders with their Followers, files
    of answers, and models on servers. A judge compares every two of them on every prompt, in both
    orders.

    Example: equilign tournament --player start=shipped --player sppo=runs/sppo --prompts shipped
    --oracle restaurant
    """
    config = TournamentConfig(**options)
    if config.download:
        os.environ["HF_HUB_OFFLINE"] = "0"  # before the hub's library is imported
    from equilign.experiments.tournament.judging import Preview
    from equilign.experiments.tournament.run import run_tournament  # torch is imported here

    agreed = max_questions

    with round_progress(0) as progress:

        def allow(found: Preview) -> None:
            nonlocal agreed
            progress.console.print(Text(found.words()))
            if found.estimate is None or yes or found.to_ask <= agreed:
                return
            progress.bars.stop()  # it would draw over the question
            _confirm(found.to_ask)
            agreed = found.to_ask
            if progress.console.is_terminal:
                progress.bars.start()

        result = run_tournament(
            config, output_dir, resume=resume, dry_run=dry_run, allow=allow, progress=progress
        )
    if as_json:
        print_json(result)
    elif dry_run:
        click.echo(_preview(result))
    else:
        _print(result)


def _confirm(number: int) -> None:
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        raise ConfigError(
            f"a paid judge would be asked {number:,} questions; add --yes to agree, or "
            f"--max-questions {number}. Nothing was asked"
        )
    if not click.confirm("Ask the judge?", err=True):
        raise ConfigError("the judge was not asked; what is there already is kept")


def _preview(result: dict[str, Any]) -> str:
    from equilign.experiments.tournament.judging import Preview

    names = ("questions", "known", "exact", "estimate")
    return Preview(**{name: result[name] for name in names}).words()


# -- what came of it -----------------------------------------------------------------------


def _rate(value: float | None, low: float | None, high: float | None) -> str:
    if value is None or low is None or high is None:
        return "–"
    return f"{value:.3f} ({low:.3f}, {high:.3f})"


def _ranking(result: dict[str, Any]) -> Table:
    scores, answers = result["bradley_terry"], result["answers"]
    title = f"{result['prompts']} prompts, judged by {result['oracle']} (95 % intervals)"
    table = Table(title=plain(title), title_justify="left")
    table.add_column("player")
    for name in ("against all", "lottery", "Bradley-Terry", "length"):
        table.add_column(name, justify="right")
    for name in scores["ranking"]:
        rate = result["against_all"][name]
        table.add_row(
            plain(name, 30),
            _rate(rate["win_rate"], rate["low"], rate["high"]),
            f"{result['lottery'][name]:.3f}",
            _rate(scores["scores"][name], scores["low"][name], scores["high"][name]),
            f"{answers[name]['characters']['mean']:.0f}",
        )
    return table


def _pairs(result: dict[str, Any]) -> Table:
    table = Table(title="Who beats whom", title_justify="left")
    for name in ("player", "against"):
        table.add_column(name)
    for name in ("win rate", "at equal length", "prompts"):
        table.add_column(name, justify="right")
    players, fair = result["players"], result["length_controlled"]
    order = [players.index(name) for name in result["bradley_terry"]["ranking"]]
    for at, i in enumerate(order):
        for j in order[at + 1 :]:
            table.add_row(
                plain(players[i], 30),
                plain(players[j], 30),
                _rate(*(result[k][i][j] for k in ("win_rate", "low", "high"))),
                _rate(*(fair[k][i][j] for k in ("win_rate", "low", "high"))),
                str(result["judged_prompts"][i][j]),
            )
    return table


def _print(result: dict[str, Any]) -> None:
    console = Console()
    console.print(_ranking(result))
    console.print(_pairs(result))
    cycles, order, counts = result["cycles"], result["order"], result["comparisons"]
    swapped = order["swapped"]["share"]
    lines = [
        f"Cycles of three players: {cycles['count']}, of which {cycles['significant']} are more "
        "than noise",
        "Winner changes with the order shown: "
        + ("–" if swapped is None else f"{100.0 * swapped:.1f} % of decided pairs"),
        f"No verdict: {counts['no_verdict']} of {counts['questions'] // 2} pairs asked",
        f"Asked {result['questions']['asked']} questions; {result['seconds']:.0f} seconds",
        f"Page: {result['output_dir']}/report.html",
    ]
    console.print(Text("\n".join(lines)))
