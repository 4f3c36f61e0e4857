"""`equilign play`."""

import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from equilign.cli.console import print_json, round_progress
from equilign.text import visible

if TYPE_CHECKING:
    from equilign.cli.play_output import PlayRun

DEFAULT_RULES = ("mwu", "omwu")


def _names(ctx: click.Context, param: click.Parameter, value: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(name for item in value for name in item.replace(",", " ").split())


@click.command("play", context_settings={"show_default": True})
@click.argument("game", required=False)
@click.option(
    "--rules",
    "rules",
    multiple=True,
    callback=_names,
    help="Rules to play, comma-separated or repeated; 'all' is every one, see --list.  "
    f"[default: {' '.join(DEFAULT_RULES)}]",
)
@click.argument("more_rules", nargs=-1, metavar="[MORE RULES]...", callback=_names)
@click.option(
    "--game-option",
    "game_options",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option of a named game; may be repeated.",
)
@click.option("--steps", type=int, default=1000, help="How many.")
@click.option(
    "--eta", help="Step size: a number, or 'decreasing' for 2 / (beta (t + 2)).  [default: by rule]"
)
@click.option("--beta", type=float, help="KL weight of the game; gaps include it.  [default: 0]")
@click.option(
    "--rule-beta",
    type=float,
    help="KL weight of the rules' own pull, while gaps stay those of the game.  [default: --beta]",
)
@click.option("--ref", help="Reference: 0.5,0.3,0.2 or a .json file.  [default: uniform]")
@click.option(
    "--start",
    default="random",
    help="random (by --seed), uniform, reference, 0.5,0.3,0.2, or a .json file.",
)
@click.option("--seed", type=click.IntRange(min=0), default=0, help="Of the start and the samples.")
@click.option("--samples", type=int, help="Noisy verdicts per response and step.  [default: exact]")
@click.option("--inner-steps", type=int, help="Between two moves of the reference, or per round.")
@click.option("--record", type=int, help="Record every so many steps.  [default: about 200 in all]")
@click.option("--tolerance", type=float, help="Stop a rule when its recorded gap is this small.")
@click.option(
    "--set",
    "own",
    multiple=True,
    metavar="RULE.OPTION=VALUE",
    help="An option of one rule, over the others: --set mwu.eta=0.1. Repeatable.",
)
@click.option("--plot", type=click.Path(path_type=Path), help="Draw the run: .png or .svg.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
@click.option("--list", "listing", is_flag=True, help="List the rules with their options, no more.")
def command(
    game: str | None,
    rules: tuple[str, ...],
    more_rules: tuple[str, ...],
    own: tuple[str, ...],
    plot: Path | None,
    as_json: bool,
    listing: bool,
    **given: Any,  # noqa: ANN401 - the options that rules share
) -> None:
    """Play GAME by learning rules and show how far each is from equilibrium.

    GAME is a name ('equilign solve --list'), a matrix in a .csv, .json or .npz file with entry
    [i, j] = Pr(i beats j), or a file of comparisons.
    """
    from equilign.cli import play_output  # numpy and scipy are imported here

    if listing:
        play_output.print_listing(as_json)
        return
    if game is None:
        raise click.UsageError(
            "Missing argument 'GAME'; 'equilign solve --list' names some.",
            click.get_current_context(),
        )
    if plot is not None:
        from equilign.reports.game_figures import check_plot_path

        check_plot_path(plot)  # before anything is played; so is a missing matplotlib
    began = time.perf_counter()
    run = _play(game, (*rules, *more_rules) or DEFAULT_RULES, own, given)
    summary = {**play_output.summarise(run), "seconds": time.perf_counter() - began}
    if as_json:
        print_json(summary)
    else:
        play_output.print_tables(run, summary)
    if plot is not None:
        from equilign.reports.play_figures import save_play_figure

        runs = {played.rule.name: played.trajectory for played in run.played}
        save_play_figure(run.source, runs, run.equilibrium, plot)
        click.echo(f"wrote {visible(str(plot))}", err=True)


def _play(
    source: str, names: tuple[str, ...], own: tuple[str, ...], given: dict[str, Any]
) -> "PlayRun":
    from equilign.cli import play_options, play_output
    from equilign.cli.solve import _game
    from equilign.games import solve
    from equilign.play import play

    chosen = play_options.chosen_rules(names)
    game = _game(source, given.pop("game_options"), given.pop("beta"), given.pop("ref"))
    given["beta"] = given.pop("rule_beta")
    common = {name: value for name, value in given.items() if value is not None}
    options = play_options.options_of(chosen, game, common, play_options.settings(own))
    played = []
    with round_progress(0) as progress:
        for rule in chosen:
            began = time.perf_counter()
            trajectory = play(
                game,
                rule,
                **options[rule.name],
                progress=lambda done, total, name=rule.name: progress(name, 0, done, total),
            )
            progress(rule.name, 0, trajectory.steps.size, trajectory.steps.size)
            played.append(play_output.PlayedRule(rule, trajectory, time.perf_counter() - began))
    return play_output.PlayRun(source, game, common, solve(game, "nash"), played)
