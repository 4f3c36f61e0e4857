"""Verdicts follow the numbers: the same rules, other measurements, other verdicts."""

import numpy as np
import pytest

from equilign.experiments.sppo import claims
from equilign.experiments.sppo.contestants import CONTESTANTS
from equilign.experiments.sppo.judging import HELD_OUT, TRAINING, best_name, pickers, policies
from equilign.experiments.sppo.page import build_page, tables
from equilign.experiments.sppo.pieces import START
from equilign.experiments.sppo.results import Judged, Results
from equilign.experiments.sppo.scales import SCALES
from equilign.reports.reproduction import reproduction_html

SEEDS, PROMPTS = 5, 40
SCALE = SCALES["quick"]
PLAYERS = [*policies(3), *map(best_name, pickers(3))]


def made(strength, *, held_out=None, tokens=None, noise=0.01, seed=0):
    """Results in which player a beats b by their difference in strength, with noise.

    Args:
        strength: player -> win rate over the start less one half; 0 where not given.
        held_out: the same by the held-out oracle; like the training oracle's when not given.
        tokens: player -> mean length; 30 where not given.
    """
    rng = np.random.default_rng(seed)

    def judged(values):
        level = np.array([values.get(p, 0.0) for p in PLAYERS])
        jitter = rng.normal(0.0, noise, (SEEDS, PROMPTS, len(PLAYERS)))
        each = level + jitter
        wins = 0.5 + each[..., :, None] - each[..., None, :]
        start = PLAYERS.index(START)
        controlled = {p: wins[..., i, start] for i, p in enumerate(PLAYERS) if p != START}
        votes = {f"{c.method}-3": {"quality": [0.5] * SEEDS} for c in CONTESTANTS}
        return Judged(wins, controlled, votes)

    lengths = {
        p: (tokens or {}).get(p, 30.0) + rng.normal(0.0, 0.1, (SEEDS, PROMPTS)) for p in PLAYERS
    }
    costs = ("samples", "verdicts", "trained_answers", "steps", "loss", "cyclic_prompts_share")
    piece = {"rounds": [dict.fromkeys(costs, 1.0)] * 3, "kl_nats": [0.1, 0.2, 0.3]}
    return Results(
        SCALE,
        list(range(SEEDS)),
        PLAYERS,
        {
            TRAINING: judged(strength),
            HELD_OUT: judged(strength if held_out is None else held_out),
        },
        lengths,
        {c.method: [piece] * SEEDS for c in CONTESTANTS},
    )


def path(method, *values):
    return {f"{method}-{n}": v for n, v in enumerate(values, 1)}


def test_every_claim_has_its_parts():
    found = claims.judge(made({}))
    assert len(found) == 14
    for claim in found:
        assert set(claim) == {"claim", "holds", "evidence", "source"}
        assert claim["holds"] in (True, False, None)
        assert "Rule:" in claim["evidence"]
        assert "nan" not in claim["evidence"]
    assert len({claim["claim"] for claim in found}) == len(found)


def test_nothing_is_decided_where_nothing_differs():
    found = claims.judge(made({}, noise=0.0, tokens=None))
    assert {c["holds"] for c in found if "longer" not in c["claim"]} == {None}


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.05, 0.10, 0.15), True),
        ((0.05, 0.10, 0.05), False),
        ((-0.05, 0.10, 0.15), False),
        ((0.05, 0.05, 0.15), None),
    ],
)
def test_monotone(values, expected):
    results = made(path("sppo", *values), held_out=path("sppo", 0.1, 0.0, 0.2))
    assert claims.monotone(results, TRAINING).holds is expected
    assert claims.monotone(results, HELD_OUT).holds is False


@pytest.mark.parametrize("rival", ["iterated-dpo", "iterated-ipo"])
def test_ahead_of(rival):
    results = made(
        {"sppo-3": 0.1, f"{rival}-3": 0.05}, held_out={"sppo-3": 0.1, f"{rival}-3": 0.15}
    )
    assert claims.ahead_of(results, TRAINING, rival).holds is True
    assert claims.ahead_of(results, HELD_OUT, rival).holds is False
    assert "at equal length" in claims.ahead_of(results, HELD_OUT, rival).claim
    level = made({"sppo-3": 0.1, f"{rival}-3": 0.1})
    assert claims.ahead_of(level, TRAINING, rival).holds is None


def test_the_held_out_order_is_that_at_equal_length():
    results = made({"sppo-3": 0.1, "iterated-dpo-3": 0.0})
    controlled = results.oracles[HELD_OUT].controlled
    controlled["sppo-3"], controlled["iterated-dpo-3"] = (
        controlled["iterated-dpo-3"],
        controlled["sppo-3"],
    )
    assert claims.ahead_of(results, HELD_OUT, "iterated-dpo").holds is False


def test_ipo_against_sppo_by_the_training_oracle():
    for value, expected in ((0.05, True), (-0.05, False), (0.0, None)):
        results = made({"iterated-ipo-3": value}, held_out={"iterated-ipo-3": -value})
        assert claims.ipo_beats_sppo(results).holds is expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ((0.10, 0.12, 0.05), True),
        ((0.12, 0.10, 0.05), True),
        ((0.12, 0.05, 0.08), True),
        ((0.05, 0.10, 0.15), False),
        ((0.05, 0.10, 0.10), None),
        ((0.10, 0.05, 0.10), None),
    ],
)
def test_rise_then_fall(values, expected):
    results = made(path("iterated-dpo", *values), held_out=path("iterated-dpo", 0.0, 0.1, 0.2))
    assert claims.falls(results, TRAINING, "iterated-dpo").holds is expected
    assert claims.falls(results, HELD_OUT, "iterated-dpo").holds is False
    assert claims.falls(results, TRAINING, "iterated-ipo").holds is None


def test_length():
    for value, expected in ((35.0, True), (25.0, False)):
        assert claims.longer(made({}, tokens={"sppo-3": value})).holds is expected


def test_best_of_counts_by_the_held_out_oracle():
    best = {"sppo-3": 0.1, "sppo-3-best": 0.3}
    assert claims.best_of_gains(made(best)).holds is True
    assert claims.best_of_gains(made(best, held_out={"sppo-3": 0.1})).holds is False
    level = made(best, held_out={"sppo-3": 0.1, "sppo-3-best": 0.1})
    assert claims.best_of_gains(level).holds is None


def test_transfer_is_of_every_method():
    last = {f"{c.method}-3": 0.1 for c in CONTESTANTS}
    assert claims.transfers(made(last)).holds is True
    assert "100% of it" in claims.transfers(made(last, noise=0.0)).evidence
    assert claims.transfers(made(last, held_out={**last, "sppo-3": -0.1})).holds is False
    assert claims.transfers(made(last, held_out={**last, "sppo-3": 0.0})).holds is None


def test_trainings_that_differ_leave_a_claim_open():
    """Five seeds of which two are bad decide less than their prompts alone would."""
    results = made({"sppo-3": 0.05})
    results.oracles[TRAINING].wins[:2, :, PLAYERS.index("sppo-3")] -= 0.1
    results.oracles[TRAINING].wins[:2, :, :, PLAYERS.index("sppo-3")] += 0.1
    found = results.win_rate(TRAINING, "sppo-3")
    assert found.prompts[0] > 0.5
    assert found.both[0] < 0.5
    assert claims.ahead_of(results, TRAINING, "iterated-dpo").holds is None


def test_the_page_and_its_tables():
    results = made(path("sppo", 0.05, 0.10, 0.15))
    data = {t["name"]: t for t in tables(results)}
    assert [len(t["rows"]) for n, t in data.items() if n.startswith("win-rate")] == [9, 9]
    robin = data["round-robin-training"]["rows"]
    assert len(robin) == 10
    matrix = np.array([row[1:] for row in robin])
    np.testing.assert_allclose(matrix + matrix.T, 1.0)
    assert matrix[3, 0] == pytest.approx(0.65, abs=0.01)
    assert [row[0] for row in data["best-of-n"]["rows"]][-1] == "Iterated IPO 3, best"
    for table in data.values():
        assert all(len(row) == len(table["columns"]) for row in table["rows"])
    settings = {"scale": "quick", "seed": 0}
    page, _ = build_page(
        results, claims.judge(results), settings, {}, {"seconds": 1.0, "peak_memory_mb": 2.0}
    )
    html = reproduction_html(page)
    assert "Round robin" in html
    assert html.count("<figure") == 5
    assert "findings of the paper" in page.lead[0]
