"""The page of a tournament: who beats whom, how sure that is, and every prompt's answers."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from markupsafe import Markup

from equilign.errors import DataError
from equilign.files import write_atomically
from equilign.reports.content import flat_rows
from equilign.reports.page import _environment, _package_file, _policy
from equilign.reports.tables import Table
from equilign.reports.tournament_data import MOST_DATA, Packed, Sheet, pack_sheet, read_sheet
from equilign.reports.tournament_figures import (
    TournamentFigure,
    inline_figure,
    save_figure,
    tournament_figures,
)
from equilign.reports.tournament_words import estimate, judge_words, lead, view_words
from equilign.reports.words import DASH, decimal, duration, interval, percent, plural, share

__all__ = ["Sheet", "render_again", "render_tournament", "tournament_html"]

MOST_BYTES = 5_000_000
"""A page stays below."""
MOST_PLAYERS = 60
"""Rows of a table in the page; the results hold all."""


def render_tournament(results: Mapping[str, Any], sheet: Sheet, folder: Path) -> list[Path]:
    """Write ``report.html``, and every figure as SVG and PNG in ``figures/``.

    Args:
        results: as in ``results.json``, with ``environment``.
        sheet: all answers and verdicts.
        folder: the run directory.

    Returns:
        The figures' paths.
    """
    figures = tournament_figures(results)
    written = [path for f in figures for path in save_figure(f, folder / "figures")]
    write_atomically(folder / "report.html", tournament_html(results, sheet, figures).encode())
    return written


def render_again(folder: Path) -> list[Path]:
    """`render_tournament` from the files of a finished tournament.

    Raises:
        DataError: they are not those of a finished tournament.
    """
    try:
        results = json.loads((folder / "results.json").read_text(encoding="utf-8"))
        environment = json.loads((folder / "environment.json").read_text(encoding="utf-8"))
        names = [str(name) for name in results["players"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise DataError(f"{folder} holds no finished tournament: {error!r}") from error
    sheet = read_sheet(folder / "prompts.jsonl", names)
    return render_tournament({**results, "environment": environment}, sheet, folder)


def tournament_html(
    results: Mapping[str, Any], sheet: Sheet, figures: Sequence[TournamentFigure] | None = None
) -> str:
    """The page as one HTML document that loads nothing; the same content gives the same text."""
    css = _package_file("page.css") + _package_file("tournament.css")
    js = _package_file("tournament.js")
    drawn = tournament_figures(results) if figures is None else figures
    charts = [
        # Our own markup: every text in it went through an XML serialiser.
        {"key": f.key, "caption": f.caption} | {k: Markup(v) for k, v in inline_figure(f).items()}
        for f in drawn
        if f.in_page
    ]
    template = _environment().get_template("tournament.html.j2")
    page, most = "", MOST_DATA
    while True:
        packed = pack_sheet(sheet, most)
        page = template.render(
            css=Markup(css),
            js=Markup(js),
            policy=_policy(css, js),
            charts=charts,
            **_content(results, packed),
        ).lstrip()
        size = len(page.encode())
        if size < MOST_BYTES or most < 100_000:
            return page
        most -= size - MOST_BYTES + 1


def _content(results: Mapping[str, Any], packed: Packed) -> dict[str, Any]:
    players = results["players"]
    order = [players.index(n) for n in results["bradley_terry"]["ranking"]][:MOST_PLAYERS]
    names = [players[i] for i in order]
    shown = ", ".join(names[:4]) + (f" and {len(players) - 4} more" if len(players) > 4 else "")
    judged = f"judged by {results['oracle']}"
    prompts = plural(results["prompts"], "prompt")
    return {
        "title": f"Tournament: {shown}",
        "kicker": f"equilign tournament · {prompts} · {judged} · seed {results['seed']}",
        "lead": lead(results),
        "ranking": ranking_table(results, names),
        "matrix": _matrix(results, order),
        "fair": _matrix({**results["length_controlled"], "players": players}, order),
        "cycles": cycles_table(results),
        "judge": judge_words(results),
        "players": players,
        "view_words": view_words(results, packed.prompts, packed.cut, packed.texts_cut),
        "data": packed.data,
        "facts": _facts(results),
        "config": flat_rows(results["config"]),
        "environment": flat_rows(results.get("environment", {})),
    }


def ranking_table(results: Mapping[str, Any], names: Sequence[str]) -> Table:
    """One row per player, the highest Bradley-Terry score first."""
    fit = results["bradley_terry"]
    header = ["Player", "Against all others", "Bradley-Terry (nats)", "Lottery", "Played in"]
    counted = any(results["answers"][name]["tokens"] is not None for name in names)
    header += ["Characters", *(["Tokens"] if counted else [])]
    rows = []
    for name in names:
        rate, answers = results["against_all"][name], results["answers"][name]
        tokens = answers["tokens"]
        low, high = fit["low"][name], fit["high"][name]
        row = [
            name,
            share(estimate(rate["win_rate"], rate["low"], rate["high"])),
            f"{fit['scores'][name]:.2f} ({low:.2f} to {high:.2f})",
            f"{results['lottery'][name]:.2f}",
            percent(results["lottery_support"][name]),
            decimal(answers["characters"]["mean"], 0),
            DASH if tokens is None else decimal(tokens["mean"], 1),
        ]
        rows.append(row[: len(header)])
    caption = (
        "Ranking, with 95 % intervals; “played in” is the share of resampled sets of prompts in "
        "which the maximal lottery plays the player"
    )
    return Table(caption, header, rows, len(header) - 1)


def cycles_table(results: Mapping[str, Any]) -> Table:
    """The clearest cycles of three players."""
    rows = []
    for cycle in results["cycles"]["examples"][:10]:
        names = [*cycle["players"], cycle["players"][0]]
        won = ", ".join(f"{a}:{b}" for a, b in cycle["prompts_won"])
        rows.append((" beats ".join(names), won, f"{cycle['adjusted_p']:.3g}"))
    return Table(
        f"Cycles, the clearest first; p-values adjusted ({results['cycles']['method']})",
        ("Cycle", "Prompts won and lost", "p-value"),
        rows,
        2,
    )


def _matrix(results: Mapping[str, Any], order: Sequence[int]) -> dict[str, Any]:
    names = [results["players"][i] for i in order]
    rows = [
        {"name": results["players"][i], "cells": [_cell(results, i, j) for j in order]}
        for i in order
    ]
    return {"names": names, "rows": rows}


def _cell(results: Mapping[str, Any], i: int, j: int) -> dict[str, str]:
    value, low, high = (results[key][i][j] for key in ("win_rate", "low", "high"))
    if i == j or value is None:
        return {"text": "", "bounds": "", "style": "", "blank": "" if i == j else DASH}
    style = "win" if low > 0.5 else ("loss" if high < 0.5 else "")
    bounds = interval(estimate(value, low, high))
    return {"text": percent(value), "bounds": bounds, "style": style, "blank": ""}


def _facts(results: Mapping[str, Any]) -> list[tuple[str, str]]:
    parts, questions = results["seconds_by_part"], results["questions"]
    answered = [(f"Answers of {n}", duration(s)) for n, s in parts["answers"].items()]
    sources = [(f"Player {n}", s) for n, s in results["sources"].items()]
    return [
        *sources,
        ("Prompts", f"{results['prompts']:,}"),
        ("Questions", f"{questions['questions']:,}"),
        ("Known before", f"{questions['known']:,}"),
        ("Asked in this run", f"{questions['asked']:,}"),
        *answered,
        ("Judging", duration(parts["judging"])),
        ("Output folder", str(results["output_dir"])),
    ]
