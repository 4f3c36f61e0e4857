"""The results as tables, figures and a page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from equilign.evaluation.spread import spread
from equilign.experiments.finishing import PageBody, PageHead, SectionPlan, make_page, size_facts
from equilign.experiments.sppo.charts import controlled_charts, length_charts, win_rate_charts
from equilign.experiments.sppo.contestants import CONTESTANTS, selection
from equilign.experiments.sppo.judging import HELD_OUT, ORACLES, TRAINING, best_name
from equilign.experiments.sppo.pieces import START, player
from equilign.experiments.sppo.results import Results, title_of
from equilign.experiments.table_data import Cell, table_data
from equilign.reports.reproduction import ReproductionPage

_PAPER = "arXiv:2405.00675"

_SETTING = (
    "The paper aligns Mistral-7B with PairRM on UltraFeedback and compares by AlpacaEval 2.0. This "
    "run aligns the shipped model of six million weights on restaurant descriptions with a panel "
    "of five judges; a finding that reappears here does not need the paper’s sizes, one that does "
    "not may need them. The recipe with the paper’s sizes is in recipes/sppo_paper; it was not run "
    "here."
)

HEAD = PageHead(
    "sppo",
    "Self-play preference optimisation, reproduced",
    _PAPER,
    _SETTING,
    "findings of the paper",
)

_NAMES = {TRAINING: "training oracle", HELD_OUT: "held-out oracle"}


def _win_table(results: Results, oracle: str) -> dict[str, Any]:
    rows: list[list[Cell]] = []
    for c in CONTESTANTS:
        for number in results.rounds:
            name = player(c.method, number)
            found = results.win_rate(oracle, name)
            control = spread(results.controlled(oracle, name))
            ends = [*found.both, *found.seeds, *found.prompts]
            rows.append([title_of(name), found.value, *ends, control.value, *control.both])
    sides = [f"{which}, {end}" for which in ("both", "seeds", "prompts") for end in ("low", "high")]
    columns = ["Policy", "Win rate", *sides, "At equal length", "low", "high"]
    caption = (
        f"Win rate over the start model by the {_NAMES[oracle]}; 95 % intervals over seeds and "
        "prompts, over seeds alone, over prompts alone"
    )
    return table_data(f"win-rate-{oracle}", caption, columns, rows)


def _robin_table(results: Results, oracle: str) -> dict[str, Any]:
    names = [p for p in results.players if not p.endswith(best_name(""))]
    means = results.oracles[oracle].wins.mean(axis=(0, 1))
    place = [results.players.index(n) for n in names]
    rows: list[list[Cell]] = [
        [title_of(n), *(float(means[i, j]) for j in place)]
        for n, i in zip(names, place, strict=True)
    ]
    caption = f"Round robin by the {_NAMES[oracle]}: row beats column"
    return table_data(f"round-robin-{oracle}", caption, ["", *map(title_of, names)], rows)


def _best_table(results: Results) -> dict[str, Any]:
    rows: list[list[Cell]] = []
    for base in [START, *(results.last(c.method) for c in CONTESTANTS)]:
        for name in (base, best_name(base)):
            row: list[Cell] = [title_of(name), float(results.tokens[name].mean())]
            for oracle in ORACLES:
                found = results.win_rate(oracle, name)
                row += [found.value, *found.both]
            rows.append(row)
    columns = ["Policy", "Tokens", "Training oracle", "low", "high", "Held-out oracle"]
    caption = (
        f"Best of {results.scale.best_of} answers by the training oracle: win rate over one answer "
        "of the start model"
    )
    return table_data("best-of-n", caption, [*columns, "low ", "high "], rows)


def _votes_table(results: Results, oracle: str) -> dict[str, Any]:
    known = results.oracles[oracle].attributes
    voters = list(next(iter(known.values())))
    rows: list[list[Cell]] = [
        [voter, *(float(np.mean(known[results.last(c.method)][voter])) for c in CONTESTANTS)]
        for voter in voters
    ]
    columns = ["Voter", *(title_of(results.last(c.method)) for c in CONTESTANTS)]
    caption = f"Win rate over the start model by each voter of the {_NAMES[oracle]} alone"
    return table_data(f"voters-{oracle}", caption, columns, rows)


def _cost_table(results: Results) -> dict[str, Any]:
    rows: list[list[Cell]] = []
    for c in CONTESTANTS:
        pieces = results.pieces[c.method]
        for number in results.rounds:
            rounds = [p["rounds"][number - 1] for p in pieces]

            def mean(key: str, rounds: list[Any] = rounds) -> float:
                return float(np.mean([r[key] for r in rounds]))

            row: list[Cell] = [title_of(player(c.method, number))]
            row += [mean(k) for k in ("samples", "verdicts", "trained_answers", "steps", "loss")]
            row.append(float(np.mean([p["kl_nats"][number - 1] for p in pieces])))
            rows.append([*row, 100.0 * mean("cyclic_prompts_share")])
    columns = ["Iteration", "Answers sampled", "Verdicts asked", "Answers trained on", "Steps"]
    columns += ["Loss", "KL to start (nats)", "Cyclic prompts (%)"]
    caption = "What each iteration cost and did, mean over seeds"
    return table_data("costs", caption, columns, rows, 2)


def _grid_table() -> dict[str, Any]:
    rows: list[list[Cell]] = []
    found = selection()
    for row in found["grid"]:
        options = row["options"]
        strength = next(k for k in options if k != "learning_rate")
        chosen = "chosen" if found["chosen"][row["method"]] == options else ""
        said = [f"{strength} {options[strength]:g}", f"{options['learning_rate']:g}"]
        rounds = row["rounds"]
        numbers = [r["value"] for r in rounds] + [rounds[-1]["tokens"]]
        rows.append([row["method"], *said, *numbers, chosen])
    rates = [f"Win rate {n + 1}" for n in range(len(found["grid"][0]["rounds"]))]
    columns = ["Method", "Strength", "Learning rate", *rates, "Tokens", ""]
    caption = "The grid, on other prompts and another seed, by the training oracle"
    return table_data("grid", caption, columns, rows)


def tables(results: Results) -> list[dict[str, Any]]:
    """Every table: ``name, caption, columns, rows, digits``."""
    found = [_win_table(results, oracle) for oracle in ORACLES]
    found += [_robin_table(results, oracle) for oracle in ORACLES]
    found.append(_best_table(results))
    found += [_votes_table(results, oracle) for oracle in ORACLES]
    return [*found, _cost_table(results), _grid_table()]


_SECTIONS: tuple[SectionPlan, ...] = (
    (
        "win-rates",
        "Win rates over the start model",
        ("win-rate-",),
        (
            "All methods start from the same model, play the same prompts, sample the same number "
            "of answers, ask the same oracle about the same number of pairs, train on the best and "
            "the worst answer to each prompt, for the same number of steps. The last iteration is "
            "the paper’s third.",
            "Intervals take seeds and prompts as drawn at random. The table also gives those over "
            "seeds alone (Student’s, of few seeds) and over prompts alone.",
        ),
    ),
    (
        "length-controlled",
        "At equal length",
        ("none-",),
        (
            "A line through the verdicts against the difference in length, as in length-controlled "
            "AlpacaEval; its height at equal length.",
        ),
    ),
    ("length", "Length", ("none-",), ()),
    (
        "round-robin",
        "Round robin",
        ("round-robin-",),
        ("Policies of one seed against each other, mean over seeds and prompts.",),
    ),
    (
        "best",
        "Best of n",
        ("best-of-n",),
        ("The training oracle chooses, so its own verdict on the choice flatters it.",),
    ),
    (
        "oracles",
        "The two oracles",
        ("voters-",),
        (
            "The training oracle is the restaurant panel: three heads fitted to human ratings, "
            "coverage and conciseness. The held-out oracle has three heads of the same form fitted "
            "to other ratings (the 188 pairs that the panel’s never saw), and likeness (chrF) to "
            "what people wrote for the very prompt. It shares no fitted number and no rating with "
            "the training oracle. Its heads are weak judges: on 760 pairs of ratings that they "
            "have not seen they agree with people in 54, 56 and 57 % of the decided pairs.",
        ),
    ),
    ("costs", "What each iteration cost", ("costs",), ()),
    (
        "grid",
        "How options were chosen",
        ("grid",),
        (
            "Each method tried the same number of settings on prompts and with a seed that are not "
            "reported on; the held-out oracle was not asked.",
        ),
    ),
)


def build_page(
    results: Results,
    claims: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    environment: Mapping[str, Any],
    measured: Mapping[str, float],
) -> tuple[ReproductionPage, list[dict[str, Any]]]:
    """The page, and the tables as data."""
    data = tables(results)
    drawn = {
        "win-rates": win_rate_charts(results),
        "length-controlled": controlled_charts(results),
        "length": length_charts(results),
    }
    facts = size_facts(results.scale)
    body = PageBody(claims, _SECTIONS, drawn, data, facts)
    return make_page(HEAD, body, settings, environment, measured), data
