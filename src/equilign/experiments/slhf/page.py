"""The results as tables, figures and a page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from equilign.evaluation.spread import RATE, spread
from equilign.experiments.finishing import PageBody, PageHead, SectionPlan, make_page, size_facts
from equilign.experiments.slhf.charts import (
    hit_charts,
    kappa_charts,
    refinement_charts,
    sample_charts,
    training_charts,
)
from equilign.experiments.slhf.contestants import selection
from equilign.experiments.slhf.judging import HELD_OUT, TRAINING
from equilign.experiments.slhf.pieces import START
from equilign.experiments.slhf.playing import LEADERS
from equilign.experiments.slhf.results import TITLES, Results
from equilign.experiments.slhf.tabular import GAMES
from equilign.experiments.table_data import Cell, table_data
from equilign.reports.reproduction import ReproductionPage

_PAPER = "arXiv:2512.16626"

_SETTING = (
    "The paper trains Qwen2.5-0.5B on HelpSteer2 and Tulu-3-8B on chats. This run trains the "
    "shipped model of six million weights on restaurant descriptions with a panel of five judges; "
    "a finding that reappears here does not need the paper’s sizes, one that does not may need "
    "them. The recipe with the paper’s sizes is in recipes/slhf_paper; it was not run here."
)

HEAD = PageHead(
    "slhf", "Stackelberg learning from human feedback, reproduced", _PAPER, _SETTING, "findings"
)

_NAMES = {TRAINING: "training oracle", HELD_OUT: "held-out oracle"}
Data = dict[str, Any]


def _robin_table(results: Results, oracle: str) -> Data:
    rows: list[list[Cell]] = []
    for a in results.players:
        row: list[Cell] = [TITLES.get(a, a)]
        for b in results.players:
            found = results.win_rate(a, b, oracle)
            low, high = found.both
            same = a == b
            row.append("–" if same else f"{found.value:.3f} ({low:.3f} to {high:.3f})")
        rows.append(row)
    names = [TITLES.get(p, p) for p in results.players]
    caption = (
        f"Round robin by the {_NAMES[oracle]}: row beats column, 95 % intervals over seeds and "
        "prompts"
    )
    return table_data(f"round-robin-{oracle}", caption, ["", *names], rows)


def _seed_table(results: Results) -> Data:
    rows: list[list[Cell]] = []
    for a, b in (("follower", "leader"), ("leader", START), ("follower", START)):
        found = results.win_rate(a, b)
        title = f"{TITLES[a]} over {TITLES[b]}"
        rows.append([title, found.value, *found.both, *found.seeds, *found.prompts])
    sides = [f"{which}, {end}" for which in ("both", "seeds", "prompts") for end in ("low", "high")]
    caption = "The same with intervals over both, over seeds alone, over prompts alone"
    return table_data("intervals", caption, ["", "Win rate", *sides], rows)


def _player_table(results: Results) -> Data:
    """Length, distance, win rates at equal length."""
    rows: list[list[Cell]] = []
    for player in results.players:
        row: list[Cell] = [TITLES.get(player, player)]
        kl = results.kl.get(player)
        row += [None if kl is None else float(np.mean(kl))]
        found = spread(results.tokens[player])
        row += [found.value, *found.both]
        for oracle in (TRAINING, HELD_OUT):
            if player == START:
                row += [0.5, 0.5]
            else:
                control = results.controlled[oracle][player]
                row += [results.win_rate(player, START, oracle).value, float(control.mean())]
        rows.append(row)
    columns = ["Player", "KL to start (nats)", "Tokens", "low", "high", "Win rate"]
    columns += ["At equal length", "Win rate, held-out oracle", "At equal length, held-out oracle"]
    caption = (
        "Distance from the start, length, and win rate over the start model. A Follower’s distance "
        "is to what the start model would reply when shown the same"
    )
    return table_data("players", caption, columns, rows, 3)


def _votes_table(results: Results, oracle: str) -> Data:
    known = results.attributes[oracle]
    voters = list(next(iter(known.values())))
    rows: list[list[Cell]] = [
        [voter, *(float(np.mean(known[p][voter])) for p in known)] for voter in voters
    ]
    columns = ["Voter", *(TITLES.get(p, p) for p in known)]
    caption = f"Win rate over the start model by each voter of the {_NAMES[oracle]} alone"
    return table_data(f"voters-{oracle}", caption, columns, rows)


def _correction_table(results: Results) -> Data:
    rows: list[list[Cell]] = []
    for follower, by_leader in results.corrections.items():
        row: list[Cell] = [TITLES[follower]]
        for leader in LEADERS:
            found = spread(by_leader[leader], RATE)
            row.append(f"{found.value:.3f} ({found.both[0]:.3f} to {found.both[1]:.3f})")
        rows.append(row)
    columns = ["Who replies", *(f"to {TITLES[leader]}" for leader in LEADERS)]
    caption = (
        "Win rate of a reply over the very answer that it was asked to improve, 95 % intervals "
        "over seeds and prompts"
    )
    return table_data("corrections", caption, columns, rows)


def _graph_table(results: Results) -> Data:
    rows: list[list[Cell]] = []
    for kind in results.graphs:
        r = results.report(kind)
        rows.append(
            [
                kind,
                r.prompts,
                r.answers,
                *(100.0 * v for v in (r.cycle.value, r.condorcet.value, r.cyclic_triples, r.ties)),
            ]
        )
    columns = ["Graph of", "Graphs", "Different answers", "Cyclic (%)", "Condorcet winner (%)"]
    columns += ["Cyclic triples (%)", "Pairs that tie (%)"]
    caption = "Preference graphs of the prompts by the training oracle; a tie is no edge"
    return table_data("graphs", caption, columns, rows, 1)


def _kappa_table(results: Results) -> Data:
    rows: list[list[Cell]] = []
    for s in results.sweep:
        row: list[Cell] = [f"{s.kappa:g}", len(s.seeds), float(np.mean(s.kl))]
        for values in (s.leader(), s.follower(), s.ahead()):
            found = spread(values, RATE)
            row += [found.value, *found.told]
        rows.append(row)
    columns = ["kappa", "Seeds", "KL of the Leader (nats)", "Leader over start", "low", "high"]
    columns += ["Follower over start", "low ", "high ", "Follower over Leader", " low", " high"]
    return table_data(
        "kappa",
        "The sweep over kappa: one model plays both, kappa is the weight of the Follower’s loss",
        columns,
        rows,
    )


def _cost_table(results: Results) -> Data:
    rows: list[list[Cell]] = []
    for pieces in results.pieces.values():
        row: list[Cell] = [TITLES.get(pieces[0]["name"], pieces[0]["name"])]
        for key in ("prompts", "samples", "trained", "tokens", "verdicts"):
            row.append(float(np.mean([p["costs"][key] for p in pieces])))
        row.append(float(np.mean([p["seconds"] for p in pieces])))
        rows.append(row)
    columns = ["Training", "Prompts played", "Answers sampled", "Answers trained on"]
    columns += ["Tokens trained on", "Verdicts asked", "Seconds"]
    return table_data("costs", "What each training cost, mean over seeds", columns, rows, 0)


def _half_table(results: Results) -> Data:
    keys = ("weights_of_start", "weights", "first_loss", "last_loss")
    row: list[Cell] = ["half"]
    row += [float(np.mean([p[k] for p in results.half])) for k in keys]
    columns = ["", "Weights of the start model", "Its weights", "First loss", "Last loss"]
    caption = "The model of half the size: KL to the start model per token during distillation"
    return table_data("half", caption, columns, [row], 2)


def _concept_table(results: Results, game: str, title: str) -> Data:
    rows: list[list[Cell]] = []
    known = results.tabular["concepts"][game]
    names = list(known[0]["policy"])
    for row in known:
        policy = [None if row["status"] == "none" else float(row["policy"][n]) for n in names]
        rows.append([row["concept"], row["value"], *policy, row["status"]])
    return table_data(f"concepts-{game}", title, ["Concept", "Sure of", *names, "Status"], rows)


def _weight_table(results: Results) -> Data:
    rows: list[list[Cell]] = [
        [f"{r['beta']:g}", r["value"], *r["policy"], *r["answer_to_a"], *r["nash"]]
        for r in results.tabular["weights"]
    ]
    columns = ["KL weight", "Leader’s value"]
    columns += [f"{who} {n}" for who in ("Leader", "Follower to A:", "Nash") for n in "ABC"]
    caption = "A cycle in which each wins with 0.9, at several KL weights of both players"
    return table_data("weights", caption, columns, rows, 4)


def _sampling_table(results: Results) -> Data:
    found = results.tabular["sampling"]
    rows: list[list[Cell]] = [
        [
            concept,
            *(100.0 * found["favourite"][concept][n] for n in found["responses"]),
            found["moved"]["infinite"][concept],
            found["moved"]["finite"][concept],
        ]
        for concept in found["favourite"]
    ]
    columns = ["Concept", *(f"{n} played most (%)" for n in found["responses"])]
    columns += ["Moved, infinite data", "Moved, finite data"]
    caption = (
        "COMAL’s cycle when pairs are drawn in proportion to random weights of their responses: "
        "what is played most, and total variation from uniform sampling (KL weight 0.1)"
    )
    return table_data("pair-sampling", caption, columns, rows)


def _grid_table() -> Data:
    rows: list[list[Cell]] = []
    found = selection()
    for row in found["grid"]:
        options = row["options"]
        said = [
            f"{options['learning_rate']:g}",
            f"{options.get('kappa', '')}",
            row.get("rounds", ""),
        ]
        numbers = [row["leader"], row["leader_low"], row.get("follower"), row.get("follower_low")]
        chosen = "chosen" if found["chosen"][row["method"]] == options else ""
        rows.append([row["method"], *said, *numbers, row.get("refined_start"), chosen])
    columns = ["Method", "Learning rate", "kappa", "Rounds", "Over start", "low"]
    columns += ["Follower over Leader", "low ", "Refined start over start", ""]
    caption = "What was tried, on other prompts and other seeds, by the training oracle"
    return table_data("grid", caption, columns, rows)


def tables(results: Results) -> list[Data]:
    """Every table: ``name, caption, columns, rows, digits``."""
    found = [_robin_table(results, o) for o in (TRAINING, HELD_OUT)]
    found += [_seed_table(results), _player_table(results)]
    found += [_votes_table(results, o) for o in (TRAINING, HELD_OUT)]
    found += [_correction_table(results), _half_table(results)]
    found += [_kappa_table(results)] if results.sweep else []
    found += [_graph_table(results)]
    found += [_concept_table(results, game, title) for game, title in GAMES.items()]
    found += [_weight_table(results), _sampling_table(results)]
    return [*found, _cost_table(results), _grid_table()]


_SECTIONS: tuple[SectionPlan, ...] = (
    (
        "robin",
        "Round robin",
        ("round-robin-", "intervals"),
        (
            "Every answer of one player plays every answer of the other to the same prompt, in "
            "both orders; ties count one half. The Follower replies to answers of its Leader that "
            "do not play themselves; so does the refined start model.",
        ),
    ),
    ("players", "Length and distance", ("players", "voters-"), ()),
    ("refinement", "Refinement", (), ("Nobody chooses here: the last answer stands.",)),
    (
        "corrections",
        "Who improves whose answers",
        ("corrections", "half"),
        (
            "The diagonal of the paper’s correction matrix and the rest of it: everyone is shown "
            "the answers of everyone and asked to improve them, in the words that the Follower was "
            "trained with. The model of half the size keeps two of the shipped model’s four layers "
            "and was healed by distillation; people are what people wrote for these very prompts.",
        ),
    ),
    (
        "samples",
        "What N answers are worth",
        (),
        (
            "Independent answers: the unbiased estimate over all subsets of size N. Refinement: "
            "the best of the first N answers of a chain.",
        ),
    ),
    (
        "kappa",
        "One model for both players, and kappa",
        ("kappa",),
        (
            "As in the paper one model plays both here, told apart by what it is shown. Everywhere "
            "else on this page the Leader and the Follower are two models.",
        ),
    ),
    (
        "graphs",
        "Cycles among answers",
        ("graphs",),
        ("Equal texts are one answer. A prompt’s graph may have neither a cycle nor a winner.",),
    ),
    (
        "tabular",
        "Matrix games, exactly",
        ("concepts-", "weights", "pair-sampling"),
        ("“Sure of” is the win rate against the worst opponent, or the Leader’s value.",),
    ),
    (
        "costs",
        "What each training cost",
        ("costs",),
        (
            "All play the same number of prompts and sample the same number of answers. RLOO and "
            "Nash-MD ask for more verdicts; SLHF trains on both players’ answers.",
        ),
    ),
    (
        "grid",
        "How options were chosen",
        ("grid",),
        ("On prompts and with a seed that are not reported on, by the training oracle alone.",),
    ),
)


def build_page(
    results: Results,
    claims: Sequence[Mapping[str, Any]],
    settings: Mapping[str, Any],
    environment: Mapping[str, Any],
    measured: Mapping[str, float],
) -> tuple[ReproductionPage, list[Data]]:
    """The page, and the tables as data."""
    data = tables(results)
    drawn = {
        "refinement": refinement_charts(results),
        "samples": sample_charts(results),
        "kappa": kappa_charts(results),
        "tabular": hit_charts(results),
        "costs": training_charts(results),
    }
    facts = [
        ("kappa of the Leader and the Follower", f"{results.kappa:g}"),
        *size_facts(results.scale),
    ]
    plan = [section for section in _SECTIONS if section[0] != "kappa" or results.sweep]
    body = PageBody(claims, plan, drawn, data, facts)
    return make_page(HEAD, body, settings, environment, measured), data
