"""A tournament in numbers, as JSON."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from equilign.evaluation.graphs import graph_report, one_graph
from equilign.evaluation.intervals import Estimate, clustered_mean
from equilign.evaluation.standings import Standings, at_equal_length, order_effect, standings
from equilign.experiments.tournament.answers import Answers
from equilign.experiments.tournament.judging import Schedule, Verdicts, per_prompt

_ANY = (0.0, math.inf)


def results(
    names: Sequence[str],
    answers: Sequence[Answers],
    schedule: Schedule,
    verdicts: Verdicts,
    seed: int,
) -> tuple[dict[str, Any], np.ndarray]:
    """All numbers, and the win rates per prompt ``(prompts, n, n)``.

    Args:
        names: of the players.
        answers: of the players.
        schedule: the pairs.
        verdicts: of the judge.
        seed: of the resampling of prompts.

    Raises:
        OracleError: no pair got a verdict.
    """
    wins = per_prompt(schedule, verdicts.win, len(schedule.prompts), len(names))
    found = standings(wins, seed=seed)
    asked = schedule.asked
    return {
        "players": list(names),
        "win_rate": _matrix(found.win_rate),
        "low": _matrix(found.low),
        "high": _matrix(found.high),
        "judged_prompts": found.prompts.tolist(),
        "length_controlled": _length_controlled(wins, answers),
        "against_all": {n: _estimate(e) for n, e in zip(names, found.against_all, strict=True)},
        "lottery": _by_name(names, found.lottery),
        "lottery_unique": found.lottery_unique,
        "lottery_support": _by_name(names, found.lottery_support),
        "bradley_terry": _bradley_terry(names, found),
        "condorcet_winner": None
        if found.condorcet_winner is None
        else names[found.condorcet_winner],
        "smith_set": [names[i] for i in found.smith],
        "cycles": _cycles(names, found, wins),
        "order": _order(schedule, verdicts),
        "comparisons": {
            "pairs": len(schedule),
            "equal_texts": int((~asked).sum()),
            "questions": 2 * int(asked.sum()),
            "judged": int((~np.isnan(verdicts.win[asked])).sum()),
            "no_verdict": int(np.isnan(verdicts.win[asked]).sum()),
        },
        "prompts": len(schedule.prompts),
        "prompt_cycles": _graphs(schedule, wins, answers),
        "answers": {n: _lengths(a) for n, a in zip(names, answers, strict=True)},
        "resamples": found.resamples,
    }, wins


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None


def _matrix(values: np.ndarray) -> list[list[float | None]]:
    return [[_number(v) for v in row] for row in values.tolist()]


def _by_name(names: Sequence[str], values: Iterable[float]) -> dict[str, float]:
    return {name: float(v) for name, v in zip(names, values, strict=True)}


def _estimate(found: Estimate | None, name: str = "win_rate") -> dict[str, float | None]:
    if found is None:
        return {name: None, "low": None, "high": None}
    return {name: found.value, "low": _number(found.low), "high": _number(found.high)}


def _bradley_terry(names: Sequence[str], found: Standings) -> dict[str, Any]:
    fit = found.bradley_terry
    scores = np.asarray(fit.scores)
    order = np.argsort(-scores, kind="stable")
    return {
        "favourite": names[int(fit.favourite)],
        "scores": _by_name(names, scores),
        "low": _by_name(names, found.scores_low),
        "high": _by_name(names, found.scores_high),
        "ranking": [names[i] for i in order],
        "separated": bool(fit.separated),
        "converged": bool(fit.converged),
    }


def _length_controlled(wins: np.ndarray, answers: Sequence[Answers]) -> dict[str, Any]:
    """Win rates at equal length in characters, which every player's answers have."""
    size = wins.shape[1]
    value, low, high = (np.full((size, size), np.nan) for _ in range(3))
    for table in (value, low, high):
        np.fill_diagonal(table, 0.5)
    lengths = [
        np.array([np.mean([len(a.text) for a in row]) for row in player]) for player in answers
    ]
    for i in range(size):
        for j in range(i + 1, size):
            e = at_equal_length(wins[:, i, j], lengths[i] - lengths[j])
            if e is not None:
                value[i, j], low[i, j], high[i, j] = e.value, e.low, e.high
                value[j, i], low[j, i], high[j, i] = 1 - e.value, 1 - e.high, 1 - e.low
    return {"win_rate": _matrix(value), "low": _matrix(low), "high": _matrix(high)}


def _cycles(names: Sequence[str], found: Standings, wins: np.ndarray) -> dict[str, Any]:
    test = found.cycles
    with np.errstate(invalid="ignore"):
        more = (wins > 0.5).sum(axis=0), (wins < 0.5).sum(axis=0)
    return {
        "count": test.count,
        "significant": test.significant,
        "longer_significant": test.longer,
        "triples": test.strict,
        "method": test.method,
        "examples": [
            {
                "players": [names[i] for i in cycle.players],
                "prompts_won": [
                    [int(more[0][x, y]), int(more[1][x, y])] for x, y in _edges(cycle.players)
                ],
                "win_rates": [_number(found.win_rate[x, y]) for x, y in _edges(cycle.players)],
                "p_value": cycle.p_value,
                "adjusted_p": cycle.adjusted_p,
            }
            for cycle in test.best
        ],
        "majority_p": _matrix(test.majorities),
    }


def _edges(players: tuple[int, int, int]) -> list[tuple[int, int]]:
    i, j, k = players
    return [(i, j), (j, k), (k, i)]


def _order(schedule: Schedule, verdicts: Verdicts) -> dict[str, Any]:
    asked = schedule.asked
    effect = order_effect(schedule.prompt[asked], verdicts.forward[asked], verdicts.backward[asked])
    return {
        "pairs": effect.pairs,
        "first_wins": _estimate(effect.first_wins, "share"),
        "decided_pairs": effect.decided,
        "swapped_pairs": effect.swapped,
        "swapped": _estimate(effect.share, "share"),
    }


def _graphs(schedule: Schedule, wins: np.ndarray, answers: Sequence[Answers]) -> dict[str, Any]:
    """How many prompts have a cycle among the players, and a player that beats all others."""
    texts = [
        [player[p][0].text if len(player[p]) == 1 else f"\0{i}" for i, player in enumerate(answers)]
        for p in range(len(schedule.prompts))
    ]
    report = graph_report([one_graph(game, row) for game, row in zip(wins, texts, strict=True)])
    return {
        "cyclic": _estimate(report.cycle, "share"),
        "condorcet_winner": _estimate(report.condorcet, "share"),
        "able": report.able,
        "ties": report.ties,
        "no_verdict": report.unjudged,
    }


def _lengths(answers: Answers) -> dict[str, Any]:
    rows: Mapping[str, list[float]] = {
        "characters": [float(np.mean([len(a.text) for a in row])) for row in answers],
        "words": [float(np.mean([len(a.text.split()) for a in row])) for row in answers],
    }
    flat = [a for row in answers for a in row]
    known = [a for a in flat if a.tokens is not None]
    tokens = [
        float(np.mean([a.tokens for a in row if a.tokens is not None]))
        for row in answers
        if any(a.tokens is not None for a in row)
    ]
    return {
        "answers": len(flat),
        "empty": sum(not a.text.strip() for a in flat),
        "cut": sum(a.finished is False for a in known) if known else None,
        **{name: _mean(values) for name, values in rows.items()},
        "tokens": _mean(tokens) if tokens else None,
    }


def _mean(values: Sequence[float]) -> dict[str, float | None]:
    return _estimate(clustered_mean(np.array(values), bounds=_ANY), "mean")
