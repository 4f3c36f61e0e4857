"""`equilign solve`."""

import math
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from rich.console import Console
from rich.table import Table
from rich.text import Text

from equilign.cli.console import plain, print_json
from equilign.errors import ConfigError, DataError
from equilign.text import visible

if TYPE_CHECKING:
    from equilign.games import PreferenceGame, Solution

_NAME_WIDTH = 40
_BAR = 24
_SHOWN = 30


@click.command("solve", context_settings={"show_default": True})
@click.argument("game", required=False)
@click.option("--concept", default="nash", help="What to solve for; --list names them all.")
@click.option(
    "--game-option",
    "game_options",
    multiple=True,
    metavar="NAME=VALUE",
    help="An option of a named game; may be repeated.",
)
@click.option(
    "--beta", type=float, default=None, help="KL weight, in win probability per nat. [default: 0]"
)
@click.option("--ref", default=None, help="Reference policy: 0.5,0.3,0.2, or a .json file.")
@click.option("--beta-follower", type=float, default=None, help="The follower's KL weight.")
@click.option("--ref-follower", default=None, help="The follower's reference policy.")
@click.option("--selection", default=None, help="Which one of several Nash equilibria.")
@click.option(
    "--option",
    "options",
    multiple=True,
    metavar="NAME=VALUE",
    help="Any other option of the concept; may be repeated.",
)
@click.option("--plot", type=click.Path(path_type=Path), default=None, help="A .png or .svg file.")
@click.option("--list", "listing", is_flag=True, help="Named games and concepts, then stop.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(  # noqa: PLR0913 - one parameter per option
    game: str | None,
    concept: str,
    game_options: tuple[str, ...],
    beta: float | None,
    ref: str | None,
    beta_follower: float | None,
    ref_follower: str | None,
    selection: str | None,
    options: tuple[str, ...],
    plot: Path | None,
    listing: bool,
    as_json: bool,
) -> None:
    """The exact solution of a preference game.

    GAME is a name (--list), a matrix of win probabilities (.csv, .json, .npz), or a file of
    comparisons (.jsonl, .json, .csv), which are pooled.
    """
    if listing:
        _list(as_json)
        return
    if game is None:
        raise ConfigError("name a game or a file; `equilign solve --list` shows the names")
    from equilign.games import solve

    if plot is not None:
        from equilign.reports.game_figures import check_plot_path

        check_plot_path(plot)
    found = _game(game, game_options, beta, ref)
    given = _given(found.names, options, selection, beta_follower, ref_follower)
    solution = solve(found, concept, **given)
    if plot is not None:
        from equilign.reports.game_figures import save_solution

        save_solution(solution, plot)
    result = _result(solution)
    if as_json:
        print_json(result)
        return
    _print(result, game)
    if plot is not None:
        click.echo(visible(str(plot)))


def _given(
    labels: tuple[str, ...],
    options: tuple[str, ...],
    selection: str | None,
    beta_follower: float | None,
    ref_follower: str | None,
) -> dict[str, Any]:
    """The concept's own options."""
    from equilign.games.loading import read_policy

    given: dict[str, Any] = dict(_option(text, labels) for text in options)
    if selection is not None:
        given["selection"] = selection
    if beta_follower is not None:
        given["beta_follower"] = beta_follower
    if ref_follower is not None:
        given["ref_follower"] = read_policy(ref_follower, labels)
    return given


def _result(solution: "Solution") -> dict[str, Any]:
    result = {
        "concept": solution.concept,
        "labels": list(solution.labels),
        "policy": _plain(solution.policy),
        "value": _plain(solution.value),
        "duality_gap": _plain(solution.gap),
        "unique": None if solution.unique is None else bool(solution.unique),
        "status": solution.status,
        "notes": list(solution.notes),
    }
    if solution.follower is not None:
        result["follower"] = _plain(solution.follower)
    return result


def _game(
    source: str, options: tuple[str, ...], beta: float | None, ref: str | None
) -> "PreferenceGame":
    from equilign.games.loading import load_game, read_policy
    from equilign.games.named import NAMED_GAMES, named_game

    if not options:
        game = load_game(source)
    elif source in NAMED_GAMES:
        game = named_game(source, **dict(_option(text, ()) for text in options))
    else:
        raise ConfigError(f"--game-option is for named games; {source!r} is none")
    if game.is_batch:
        raise DataError(f"{source} holds {len(game)} games; take one of them with {source}:KEY")
    if ref is not None:
        game = replace(game, ref=read_policy(ref, game.names))
    return replace(game, labels=game.names, beta=game.beta if beta is None else beta)


def _plain(value: Any) -> Any:  # noqa: ANN401 - numbers, arrays
    """Lists and floats; None for what is not finite, which JSON cannot say."""
    if isinstance(value, np.ndarray) and value.ndim:
        return [_plain(v) for v in value]
    number = float(value)
    return number if math.isfinite(number) else None


def _option(text: str, labels: tuple[str, ...]) -> tuple[str, Any]:
    from equilign.games.loading import read_policy

    name, equals, value = text.partition("=")
    if not equals:
        raise ConfigError(f"--option {text!r}: write it as NAME=VALUE")
    name = name.strip().replace("-", "_")
    if value.lower() in ("true", "false"):
        return name, value.lower() == "true"
    if "," in value or value.endswith(".json"):
        return name, read_policy(value, labels)
    for kind in (int, float):
        try:
            return name, kind(value)
        except ValueError:
            continue
    return name, value


def _list(as_json: bool) -> None:
    from equilign.games import CONCEPTS
    from equilign.games.named import NAMED_GAMES

    about = {name: (f.__doc__ or "").strip().split("\n")[0] for name, f in CONCEPTS.items()}
    games = {g.name: {"title": g.title, "about": g.description} for g in NAMED_GAMES.values()}
    if as_json:
        print_json({"games": games, "concepts": about})
        return
    table = Table(title="games", title_justify="left")
    for heading in ("name", "what it is"):
        table.add_column(heading)
    for name, game in games.items():
        table.add_row(Text(name), Text(f"{game['title']}. {game['about']}"))
    Console().print(table)
    table = Table(title="concepts", title_justify="left")
    for heading in ("name", "what it is"):
        table.add_column(heading)
    for name, text in about.items():
        table.add_row(Text(name), Text(text))
    Console().print(table)


def _print(result: dict[str, Any], game: str) -> None:
    console = Console()
    table = Table(title=plain(f"{result['concept']} of {game}", 120), title_justify="left")
    table.add_column("response")
    table.add_column("probability", justify="right")
    table.add_column("")
    rows = [(n, p or 0.0) for n, p in zip(result["labels"], result["policy"], strict=True)]
    rows.sort(key=lambda row: -row[1])
    played = [row for row in rows if row[1] > 1e-9]
    for name, probability in (played or rows)[:_SHOWN]:
        bar = "█" * round(_BAR * probability)
        table.add_row(plain(name, _NAME_WIDTH), f"{probability:.6f}", bar)
    console.print(table)
    more = len(played) - _SHOWN
    if more > 0:
        console.print(Text(f"and {more} more"))
    elif played and (rest := len(rows) - len(played)):
        console.print(Text(f"{rest} more are never played"))

    def shown(value: float | None, spec: str) -> str:
        return "none" if value is None else format(value, spec)

    console.print(Text(f"value {shown(result['value'], '.6f')}"))
    console.print(Text(f"duality gap {shown(result['duality_gap'], '.2e')}"))
    unique = {True: "the only one", False: "one of several", None: "not decided"}[result["unique"]]
    console.print(Text(f"status {result['status']}; {unique}"))
    if "follower" in result:
        _print_follower(console, result)
    for note in result["notes"]:
        console.print(plain(note))


def _print_follower(console: Console, result: dict[str, Any]) -> None:
    table = Table(title="the follower's answer", title_justify="left")
    for name in ("to the leader's", "is mostly", "probability"):
        table.add_column(name)
    labels = result["labels"]
    for name, row in list(zip(labels, result["follower"], strict=True))[:_SHOWN]:
        best = max(range(len(row)), key=row.__getitem__)
        table.add_row(
            plain(name, _NAME_WIDTH), plain(labels[best], _NAME_WIDTH), f"{row[best]:.4f}"
        )
    console.print(table)
