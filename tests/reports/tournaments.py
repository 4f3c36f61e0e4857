"""A tournament's results and games as the page gets them, with verdicts drawn at random."""

import numpy as np

from equilign.evaluation.standings import standings
from equilign.reports.tournament_data import Sheet


def made(names=("base", "tuned", "other"), prompts=30, seed=0, words=8):
    """A sheet of random texts and verdicts."""
    rng = np.random.default_rng(seed)
    size = len(names)
    texts = [f"prompt no{p:05d} about {rng.choice(['rivers', 'pubs'])}" for p in range(prompts)]
    answers = [
        [[" ".join(f"{name}{w}" for w in rng.integers(0, 10_000, words))] for _ in texts]
        for name in names
    ]
    wins = np.full((prompts, size, size), 0.5)
    for i in range(size):
        for j in range(i + 1, size):
            drawn = rng.choice([0.0, 0.25, 0.5, 1.0, np.nan], prompts, p=[0.3, 0.2, 0.1, 0.3, 0.1])
            wins[:, i, j], wins[:, j, i] = drawn, 1.0 - drawn
    return Sheet(texts, answers, wins)


def results_of(sheet, names=("base", "tuned", "other")):
    """What the page reads, in the shape of ``results.json``."""
    found = standings(sheet.wins, resamples=20)

    def plain(table):
        return [[None if v != v else v for v in row] for row in np.asarray(table).tolist()]

    scores = dict(zip(names, found.bradley_terry.scores.tolist(), strict=True))
    table = {k: plain(getattr(found, k)) for k in ("win_rate", "low", "high")}
    share = {"share": 0.25, "low": 0.125, "high": 0.375}
    return {
        "players": list(names),
        **table,
        "judged_prompts": found.prompts.tolist(),
        "length_controlled": table,
        "against_all": {
            n: {"win_rate": e.value, "low": e.low, "high": e.high}
            for n, e in zip(names, found.against_all, strict=True)
        },
        "lottery": dict(zip(names, found.lottery.tolist(), strict=True)),
        "lottery_support": dict(zip(names, found.lottery_support.tolist(), strict=True)),
        "bradley_terry": {
            "favourite": max(scores, key=scores.get),
            "scores": scores,
            "low": dict(zip(names, found.scores_low.tolist(), strict=True)),
            "high": dict(zip(names, found.scores_high.tolist(), strict=True)),
            "ranking": sorted(scores, key=lambda n: -scores[n]),
        },
        "condorcet_winner": None
        if found.condorcet_winner is None
        else names[found.condorcet_winner],
        "cycles": {
            "count": 1,
            "significant": 0,
            "triples": 1,
            "method": "Holm over 6 majorities",
            "majority_p": plain(found.cycles.majorities),
            "examples": [
                {"players": list(names[:3]), "prompts_won": [[9, 8]] * 3, "adjusted_p": 0.04}
            ],
        },
        "order": {"first_wins": share, "swapped": share},
        "comparisons": {"no_verdict": 2, "equal_texts": 1},
        "prompts": len(sheet.prompts),
        "prompt_cycles": {"able": 9, "cyclic": share, "condorcet_winner": share},
        "answers": {n: {"characters": {"mean": 40.0}, "tokens": None} for n in names},
        "oracle": "a judge",
        "sources": {n: f"{n}.json" for n in names},
        "questions": {"questions": 90, "known": 3, "asked": 87},
        "seed": 0,
        "config": {"chat": False},
        "environment": {"python": "3.11"},
        "output_dir": "runs/tournament",
        "seconds_by_part": {"answers": {names[0]: 2.0}, "judging": 1.0},
    }
