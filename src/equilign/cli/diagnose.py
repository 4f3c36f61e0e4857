"""`equilign diagnose`."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import numpy as np
from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text

from equilign.cli.console import plain, print_json
from equilign.text import visible

if TYPE_CHECKING:
    from equilign.diagnosis import Diagnosis

_NAME_WIDTH = 32
_SHOWN = 12
_BAR = 20


@click.command("diagnose", context_settings={"show_default": True})
@click.argument("file")
@click.option(
    "--players",
    type=click.Choice(["auto", "names", "texts"]),
    default="auto",
    help="What chosen and rejected hold: names of systems, or answers to their prompt.",
)
@click.option("--tolerance", type=float, default=0.05, help="Win probability that matters to you.")
@click.option("--seed", type=int, default=0, help="Seed of the bootstrap.")
@click.option(
    "--bootstrap",
    type=int,
    default=None,
    help="Data sets drawn for p-values. [default: 500, fewer for more than 150 players]",
)
@click.option("--plot", type=click.Path(path_type=Path), default=None, help="A .png or .svg file.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object on stdout.")
def command(
    file: str,
    players: str,
    tolerance: float,
    seed: int,
    bootstrap: int | None,
    plot: Path | None,
    as_json: bool,
) -> None:
    """Is a reward model enough for these preferences, or does a game change the answer?

    FILE holds comparisons (.jsonl, .json, .csv), or a matrix of wins or win probabilities (.npz,
    .csv, .json); the name of a game works too (`equilign solve --list`).
    """
    if plot is not None:
        from equilign.reports.game_figures import check_plot_path

        check_plot_path(plot)
    from equilign.diagnosis import diagnose
    from equilign.games.loading import load_data

    data = load_data(file, players=players)  # type: ignore[arg-type]  # click checks the choice
    with _progress() as progress:
        found = diagnose(
            data, bootstrap=bootstrap, tolerance=tolerance, seed=seed, progress=progress
        )
    if plot is not None:
        _plot(found, plot)
    if as_json:
        print_json(found.to_json())
        return
    _print(found)
    if plot is not None:
        click.echo(visible(str(plot)))


@contextmanager
def _progress() -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr where that is a terminal; nothing otherwise, since this takes seconds."""
    console = Console(stderr=True)
    if not console.is_terminal:
        yield lambda done, total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=console, transient=True) as bars:
        task = bars.add_task("data sets drawn from Bradley-Terry", total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def _plot(found: "Diagnosis", path: Path) -> None:
    from equilign.diagnosis.significance import LEVEL
    from equilign.errors import DataError
    from equilign.reports.game_figures import Picture, save_picture

    pool = found.pool
    if pool is None:
        raise DataError(
            f"{found.data.source} has no pooled game to draw: every prompt is a game of its own"
        )
    counts = found.data.counts
    picture = Picture(
        title=f"{found.data.source}: {found.verdict}",
        names=found.data.labels,
        prefs=pool.prefs,
        policy=pool.lottery,
        policy_title="Maximal lottery (what a game would play)",
        order=np.asarray(pool.rating.fit.scores),
        significant=None if pool.cycles is None else pool.cycles.majorities <= LEVEL,
        compared=None if counts is None else counts > 0.0,
    )
    save_picture(picture, path)


# -- for a person --------------------------------------------------------------------------


def _print(found: "Diagnosis") -> None:
    from equilign.diagnosis.advice import HEADLINES

    console = Console()
    style = {"reward model": "bold green", "game": "bold magenta"}.get(found.verdict, "bold yellow")
    console.print(Text(HEADLINES[found.verdict], style=style))
    for reason in found.reasons:
        console.print(Padding(_wrapped("- ", reason), (0, 0, 0, 2), expand=False))
    console.print()
    values = found.to_json()
    rows = Table(box=None, show_header=False, pad_edge=False)
    rows.add_column(style="bold")
    rows.add_column()
    for name, text in _evidence(values):
        rows.add_row(name, plain(text, 600))
    console.print(rows)
    if found.pool is not None:
        console.print()
        console.print(_players(found))
    for note in found.notes:
        console.print(_wrapped("Note: ", note))


def _wrapped(mark: str, text: str) -> Text:
    return Text(mark).append_text(plain(text, 1000))


def _evidence(v: dict[str, Any]) -> Iterator[tuple[str, str]]:
    yield "data", _data(v)
    if v["pooled"]:
        yield "Condorcet winner", _name(v["condorcet_winner"]) or "none"
        if v["condorcet_winner"] is None:
            smith = v["smith_set"]
            more = f", and {len(smith) - 5} more" if len(smith) > 5 else ""
            yield "Smith set", ", ".join(map(_name, smith[:5])) + more
    yield "cycles", _cycles(v["cycles"])
    if v["pooled"]:
        yield from _rating(v)
    bias = v["position_bias"]
    if bias is not None:
        flips = (
            "" if bias["flips"] is None else f"; the order changes {bias['flips']:.1%} of winners"
        )
        yield (
            "shown first",
            f"wins {bias['first_share']:.1%} against an equal "
            f"({bias['low']:.1%} to {bias['high']:.1%}, p = {bias['p_value']:.2g}){flips}",
        )
    if v["prompts"] is not None:
        yield "single prompts", _prompts(v["prompts"])
    for name in ("annotators", "attributes"):
        if v[name] is not None:
            yield name, _voters(v[name])


def _data(v: dict[str, Any]) -> str:
    players = f"{v['number_of_players']} players"
    if v["comparisons"] is None:
        return f"a matrix of {players}, numbers of comparisons unknown"
    text = f"{v['comparisons']:,.10g} comparisons of {players}"
    if v["coverage"] is not None:
        c = v["coverage"]
        text += f"; {c['pairs_compared']} of {c['pairs']} pairs compared"
        if c["per_pair"]:
            p = c["per_pair"]
            text += f", {p['least']:g} to {p['most']:g} times each (median {p['median']:g})"
        if c["ties"]:
            text += f"; {c['ties']:.1%} ties"
    return text


def _cycles(c: dict[str, Any]) -> str:
    text = f"{c['count']} of {c['triples']} triples"
    if c["significant"] is None:
        return text + " (significance unknown without counts)"
    text += f", of which {c['significant']} more than noise"
    if c.get("under_bradley_terry") is not None:
        text += (
            f"; ratings and noise alone would show {c['under_bradley_terry']:.1f} "
            f"(p = {c['p_value']:.2g})"
        )
    for example in c.get("examples", ())[:1]:
        names = " > ".join(_name(n) for n in (*example["players"], example["players"][0]))
        text += f". Clearest: {names} (p = {example['adjusted_p']:.2g} adjusted)"
    return text


def _rating(v: dict[str, Any]) -> Iterator[tuple[str, str]]:
    bt, hodge = v["bradley_terry"], v["hodge"]
    text = f"favourite {_name(bt['favourite'])}, loses {bt['worst_loss']:.3f} at most"
    if bt["p_value"] is not None:
        text += (
            f" ({bt['worst_loss_low']:.3f} to {bt['worst_loss_high']:.3f})"
            f"; fit p = {bt['p_value']:.2g}, off by {bt['misfit']:.3f} (up to "
            f"{bt['misfit_bound']:.3f}) on average"
        )
    else:
        text += f"; off by {bt['rms_error']:.3f} on average"
    yield "Bradley-Terry", text
    text = f"{hodge['cyclic_share']:.1%} of the squared margins"
    if hodge["under_bradley_terry"] is not None:
        corrected = hodge["corrected"]
        rest = "nothing certain" if corrected is None else f"{corrected:.1%}"
        text += f"; noise alone would give {hodge['under_bradley_terry']:.1%}, corrected: {rest}"
    yield "intransitive", text


def _prompts(p: dict[str, Any]) -> str:
    text = f"{p['count']}, {p['complete']} of them with all pairs of three or more players"
    if p["complete"]:
        text += (
            f": {p['with_condorcet_winner']} with a Condorcet winner, {p['with_cycle']} with a "
            f"cycle ({p['significant_cycles']} more than noise)"
        )
    return text


def _voters(a: dict[str, Any]) -> str:
    parts = [str(a["count"])]
    if a["agreement"] is not None:
        parts.append(
            f"two agree on {a['agreement']:.1%} of {a['items']} items"
            + ("" if a["alpha"] is None else f" (alpha {a['alpha']:.2f})")
        )
    if a["inconsistent"] is not None:
        parts.append(f"{a['inconsistent']:.1%} of {a['repeated']} repeated verdicts contradict")
    if a["transitive"] + a["cyclic"]:
        parts.append(f"{a['cyclic']} of {a['transitive'] + a['cyclic']} are cyclic themselves")
    if a["majority_cycles"]:
        parts.append(
            f"their majority goes in circles in {a['majority_cycles']} of {a['games']} games, "
            f"{a['paradoxes']} times although each one is transitive"
        )
    return "; ".join(parts)


def _players(found: "Diagnosis") -> Table:
    pool = found.pool
    assert pool is not None  # noqa: S101 - the caller checks
    scores = np.asarray(pool.rating.fit.scores)
    size = len(scores)
    rates = (pool.prefs.sum(axis=1) - 0.5) / max(size - 1, 1)
    order = np.lexsort((-scores, -np.where(pool.lottery > 1e-9, pool.lottery, 0.0)))[:_SHOWN]
    title = "players" + (f", {_SHOWN} of {size}" if size > _SHOWN else "")
    table = Table(title=title, title_justify="left")
    table.add_column("name")
    for name in ("mean win rate", "Bradley-Terry", "lottery"):
        table.add_column(name, justify="right")
    table.add_column("")
    for i in order:
        bar = "█" * round(_BAR * float(pool.lottery[i]))
        table.add_row(
            plain(found.data.labels[i], _NAME_WIDTH),
            f"{rates[i]:.3f}",
            f"{scores[i]:+.2f}",
            f"{pool.lottery[i]:.3f}",
            bar,
        )
    return table


def _name(name: str | None) -> str:
    if name is None:
        return ""
    shown = visible(name, newlines=False)
    return shown if len(shown) <= _NAME_WIDTH else shown[: _NAME_WIDTH - 1] + "…"
