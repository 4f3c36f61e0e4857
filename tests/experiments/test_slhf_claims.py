"""Verdicts follow the numbers: the same rules, other measurements, other verdicts."""

import dataclasses

import numpy as np
import pytest

from equilign.evaluation.graphs import PromptGraph
from equilign.evaluation.spread import spread
from equilign.experiments.slhf import claims, page
from equilign.experiments.slhf import tabular as tables
from equilign.experiments.slhf.contestants import BASELINES, NASH, RLOO
from equilign.experiments.slhf.half import HALF
from equilign.experiments.slhf.judging import HELD_OUT, PLAYERS, REFINED_START, TRAINING
from equilign.experiments.slhf.pieces import START
from equilign.experiments.slhf.playing import (
    FOLLOWER,
    LEADER,
    LEADERS,
    LONG,
    OTHER,
    OTHERS,
    PEOPLE,
)
from equilign.experiments.slhf.results import Results, Sweep
from equilign.experiments.slhf.scales import SCALES
from equilign.reports.reproduction import reproduction_html

SEEDS, PROMPTS = 3, 60
SCALE = SCALES["quick"]
KINDS = (
    "one answer of each policy",
    "answers of the start model",
    "answers of the Leader",
    "all of these",
)
ALONE = [0.5, 0.6, 0.7, 0.75]
GRAPH = PromptGraph(5, False, True, 10, 0, 10, 1, 0)


@pytest.fixture(scope="module")
def tabular():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tables, "LAWS", 30)
        return tables.study(0, tell=lambda done, total: None)


@pytest.fixture
def made(tabular, monkeypatch):
    """A function that makes results from a few numbers; the rest is noise around one half."""
    monkeypatch.setattr(page, "selection", lambda: SELECTION)

    def make(strength=None, *, seed=0, noise=0.02, **changes):
        rng = np.random.default_rng(seed)
        level = np.array([(strength or {}).get(p, 0.0) for p in PLAYERS])

        def noisy(mean, *shape):
            return mean + rng.normal(0.0, noise, (SEEDS, PROMPTS, *shape))

        def wins():
            each = level + rng.normal(0.0, noise, (SEEDS, PROMPTS, len(PLAYERS)))
            return 0.5 + each[..., :, None] - each[..., None, :]

        robin = {TRAINING: wins(), HELD_OUT: wins()}
        start = PLAYERS.index(START)
        corrected = changes.pop("corrections", {})
        refined = changes.pop("refined", {})
        measures = ("win_rate", "reward", "personal")
        kappas = changes.pop("kappas", {1.0: 0.6, 5.0: 0.6, 10.0: 0.6})
        costs = dict.fromkeys(("prompts", "samples", "trained", "tokens", "verdicts"), 7.0)
        names = [*(c.name for c in BASELINES), "slhf"]
        half = {"weights": 5e6, "weights_of_start": 6e6, "first_loss": 1.0, "last_loss": 0.1}
        found = Results(
            scale=SCALE,
            seeds=list(range(SEEDS)),
            kappa=5.0,
            players=PLAYERS,
            wins=robin,
            controlled={
                o: {p: w[:, :, i, start] for i, p in enumerate(PLAYERS) if p != START}
                for o, w in robin.items()
            },
            attributes={
                o: {p: {"quality": [0.5] * SEEDS} for p in PLAYERS if p != START} for o in robin
            },
            tokens={p: noisy(30.0) for p in PLAYERS},
            graphs={kind: [GRAPH] * (SEEDS * PROMPTS) for kind in KINDS},
            corrections={
                f: {k: noisy(corrected.get((f, k), 0.5)) for k in LEADERS}
                for f in (FOLLOWER, OTHER, *OTHERS)
            },
            curves={
                **{
                    f"independent, {w}": {
                        m: noisy(np.array([0.5, 0.6, 0.7, 0.75]), 4) for m in measures
                    }
                    for w in (START, LEADER, *(c.name for c in BASELINES))
                },
                **{
                    f"refinement, {w}": {
                        m: noisy(np.array(refined.get(w, [0.5, 0.6, 0.7, 0.75])), 4)
                        for m in (*measures, "last_win_rate", "last_reward")
                    }
                    for w in LONG
                },
            },
            sweep=[Sweep(k, [0, 1], sweep_wins(rng, v), [1.0, 1.1]) for k, v in kappas.items()],
            kl={p: [1.0] * SEEDS for p in PLAYERS if p != REFINED_START},
            pieces={
                n: [
                    {
                        "name": n,
                        "costs": costs,
                        "seconds": 3.0,
                        "curve": {"follower_win_rate": [0.5] * 30},
                    }
                ]
                * SEEDS
                for n in names
            },
            half=[half] * SEEDS,
            tabular=tabular,
        )
        return dataclasses.replace(found, **changes)

    return make


def sweep_wins(rng, leader):
    each = np.array([0.0, leader - 0.5, leader - 0.4]) + rng.normal(0.0, 0.01, (2, PROMPTS, 3))
    return 0.5 + each[..., :, None] - each[..., None, :]


SELECTION = {
    "grid": [
        {"method": RLOO, "options": {"learning_rate": 1e-4}, "leader": 0.6, "leader_low": 0.55},
        {
            "method": "slhf",
            "options": {"learning_rate": 1e-4, "kappa": 5.0},
            "leader": 0.6,
            "leader_low": 0.55,
            "follower": 0.6,
            "follower_low": 0.55,
            "refined_start": 0.6,
        },
    ],
    "chosen": {RLOO: {"learning_rate": 1e-4}, "slhf": {"learning_rate": 1e-4, "kappa": 5.0}},
}


def verdict(results, start):
    (found,) = [c for c in claims.judge(results) if c["claim"].startswith(start)]
    return found["holds"]


def test_every_claim_has_its_parts(made):
    found = claims.judge(made())
    assert len(found) == 22
    for claim in found:
        assert set(claim) == {"claim", "holds", "evidence", "source"}
        assert claim["holds"] in (True, False, None)
        assert "Rule:" in claim["evidence"]
        assert "nan" not in claim["evidence"]
    assert len({claim["claim"] for claim in found}) == len(found)


@pytest.mark.parametrize(
    ("a", "b", "start"),
    [
        (FOLLOWER, LEADER, "The Follower beats the Leader"),
        (LEADER, START, "The Leader beats the start model"),
        (NASH, RLOO, "Nash-MD beats RLOO"),
        (RLOO, START, "RLOO beats the start model"),
        (REFINED_START, START, "The start model with one round"),
    ],
)
def test_who_is_ahead(made, a, b, start):
    assert verdict(made({a: 0.1, b: 0.0}), start) is True
    assert verdict(made({a: 0.0, b: 0.1}), start) is False
    assert verdict(made({a: 0.1, b: 0.1}), start) is None


def test_one_bad_seed_leaves_open_what_prompts_alone_would_decide(made):
    results = made({LEADER: 0.05})
    place = PLAYERS.index(LEADER)
    results.wins[TRAINING][0, :, place] -= 0.12
    results.wins[TRAINING][0, :, :, place] += 0.12
    assert results.win_rate(LEADER).prompts[0] > 0.5 - 0.02
    assert verdict(results, "The Leader beats the start model") is None
    assert verdict(results, "With every seed") is False


def test_every_seed_on_its_own(made):
    start = "With every seed"
    assert verdict(made({FOLLOWER: 0.2, LEADER: 0.1}), start) is True
    assert verdict(made({FOLLOWER: 0.1, LEADER: 0.1}, noise=0.1), start) is None
    assert verdict(made({FOLLOWER: 0.2, LEADER: -0.1}), start) is False


def test_not_worse_has_a_margin(made):
    start = "The Leader is not worse"
    assert verdict(made({LEADER: 0.1, NASH: 0.1}, noise=0.01), start) is True
    assert verdict(made({LEADER: 0.0, NASH: 0.05}), start) is False
    assert verdict(made({LEADER: 0.0, NASH: 0.017}, noise=0.03), start) in (None, False)
    assert verdict(made({LEADER: 0.0, NASH: 0.0}, noise=0.4), start) is None


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ([0.5, 0.6, 0.7, 0.8], True),
        ([0.5, 0.6, 0.55, 0.8], False),
        ([0.5, 0.6, 0.6, 0.8], None),
    ],
)
def test_monotone(made, path, expected):
    assert claims.monotone(made(refined={START: path}), START).holds is expected
    assert claims.monotone(made(refined={LEADER: path}), LEADER).holds is expected


def test_transfer_is_to_everybody(made):
    cells = {(FOLLOWER, k): 0.6 for k in (RLOO, NASH, HALF, PEOPLE)} | {(OTHER, LEADER): 0.6}
    assert claims.transfers(made(corrections=cells)).holds is True
    assert claims.transfers(made(corrections={**cells, (FOLLOWER, PEOPLE): 0.4})).holds is False
    assert claims.transfers(made(corrections={**cells, (OTHER, LEADER): 0.5})).holds is None


def test_improves_its_own_leader(made):
    for value, expected in ((0.6, True), (0.4, False), (0.5, None)):
        results = made(corrections={(FOLLOWER, LEADER): value})
        assert claims.improves(results, FOLLOWER, LEADER).holds is expected


def test_only_followers_improve(made):
    worse = {(who, START): 0.4 for who in OTHERS}
    assert claims.only_followers(made(corrections=worse)).holds is True
    assert claims.only_followers(made(corrections={**worse, (RLOO, START): 0.6})).holds is False
    assert claims.only_followers(made(corrections={**worse, (RLOO, START): 0.5})).holds is None


def test_kappa(made):
    start = "With one model for both"
    assert verdict(made(kappas={1.0: 0.7, 5.0: 0.6, 10.0: 0.55}), start) is True
    assert verdict(made(kappas={1.0: 0.5, 5.0: 0.6, 10.0: 0.7}), start) is False
    assert verdict(made(), start) is None
    assert verdict(made(kappas={}), start) is None


def test_kappa_compares_the_seeds_that_both_have(made):
    results = made(kappas={1.0: 0.7, 5.0: 0.6, 10.0: 0.55})
    low = results.sweep[0]
    more = np.concatenate([low.wins, 1.0 - low.wins[:1]])
    sweep = [Sweep(1.0, [0, 1, 2], more, [1.0] * 3), *results.sweep[1:]]
    assert claims.kappa_lowers(dataclasses.replace(results, sweep=sweep)).holds is True


def test_one_seed_of_each_kappa_decides_nothing_and_says_what_it_has(made):
    results = made(kappas={1.0: 0.7, 5.0: 0.6, 10.0: 0.55})
    alone = [Sweep(s.kappa, s.seeds[:1], s.wins[:1], s.kl[:1]) for s in results.sweep]
    found = claims.kappa_lowers(dataclasses.replace(results, sweep=alone))
    assert found.holds is None
    low, high = spread(alone[0].leader()).prompts
    assert f"({low:.3f} to {high:.3f} over prompts, one seed)" in found.evidence
    assert "inf" not in found.evidence


@pytest.mark.parametrize(("share", "expected"), [(0.55, True), (0.05, False), (0.42, None)])
def test_about_half(made, share, expected):
    cycle = PromptGraph(5, True, False, 10, 2, 10, 0, 0)
    count = round(share * PROMPTS)
    graphs = [cycle] * count + [GRAPH] * (PROMPTS - count)
    results = made(graphs={kind: graphs * SEEDS for kind in KINDS})
    found = claims.cyclic(results, KINDS[0])
    assert found.holds is expected
    assert f"Cyclic {count / PROMPTS:.1%}" in found.evidence


def test_refinement_against_sampling(made):
    def judged(results):
        return claims.beats_sampling(results, "win_rate", "by win rate").holds

    assert judged(made(refined={LEADER: [0.5, 0.65, 0.75, 0.85]})) is True
    assert judged(made(refined={LEADER: [0.5, 0.55, 0.6, 0.65]})) is False
    assert judged(made(seed=1)) is None


def test_matrix_games_are_judged_from_their_numbers(made, tabular):
    good = claims.judge(made())[-3:]
    assert [c["holds"] for c in good] == [True, True, True]
    spoilt = {**tabular, "hits": {**tabular["hits"]}}
    spoilt["hits"]["refinement"] = {**tabular["hits"]["refinement"], "exact": [0.4, 0.7, 1.0, 1, 1]}
    assert claims.judge(made(tabular=spoilt))[-3]["holds"] is False
    still = {**tabular["sampling"], "favourite": {"bradley-terry": {"a": 1.0, "b": 0.0}}}
    assert claims.judge(made(tabular={**tabular, "sampling": still}))[-1]["holds"] is False


def test_the_page_and_its_tables(made):
    results = made({LEADER: 0.1, FOLLOWER: 0.2})
    data = {t["name"]: t for t in page.tables(results)}
    assert len(data["round-robin-training"]["rows"]) == len(PLAYERS)
    assert data["round-robin-training"]["rows"][4][1].startswith("0.7")
    assert [row[0] for row in data["kappa"]["rows"]] == ["1", "5", "10"]
    assert len(data["corrections"]["rows"]) == 2 + len(OTHERS)
    for table in data.values():
        assert all(len(row) == len(table["columns"]) for row in table["rows"])
    settings = {"scale": "quick", "seed": 0}
    built, _ = page.build_page(
        results, claims.judge(results), settings, {}, {"seconds": 1.0, "peak_memory_mb": 2.0}
    )
    html = reproduction_html(built)
    assert html.count("<figure") == 7
    assert "Who improves whose answers" in html
    shown = [t.caption for s in built.sections for t in s.tables]
    assert len(shown) == len(data), "every table is on the page once"


def test_a_scale_without_the_sweep_has_no_section_on_it(made):
    results = made(kappas={})
    settings = {"scale": "quick", "seed": 0}
    built, data = page.build_page(
        results, claims.judge(results), settings, {}, {"seconds": 1.0, "peak_memory_mb": 2.0}
    )
    assert "kappa" not in {t["name"] for t in data}
    html = reproduction_html(built)
    assert html.count("<figure") == 6
    assert "One model for both players, and kappa" not in html
