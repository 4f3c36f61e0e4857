"""Verdicts follow the numbers: the same rules, other measurements, other verdicts."""

import json

import numpy as np
import pytest

from equilign.experiments.sta import claims
from equilign.experiments.sta.contestants import (
    CG,
    CONTESTANTS,
    DPO,
    ITERATED,
    NAIVE,
    PARL,
    PPO,
    REVERSED,
    RLHF,
    SIMULTANEOUS,
    TOTAL,
)
from equilign.experiments.sta.page import build_page
from equilign.experiments.sta.results import Course, Results
from equilign.experiments.sta.scales import SCALES
from equilign.experiments.sta.tasks import CONSTRAINED, TASKS, WORDS
from equilign.reports.reproduction import reproduction_html

SEEDS, POINTS, PROMPTS = 3, 4, 60
FINAL = {
    NAIVE: 2.0,
    TOTAL: 2.0,
    RLHF: 1.0,
    SIMULTANEOUS: 1.1,
    REVERSED: 1.2,
    PARL: 1.0,
    DPO: 0.9,
    ITERATED: 1.0,
    PPO: 1.5,
}
KL = dict.fromkeys(FINAL, 3.0)
SECONDS = {
    CG: 11.0,
    REVERSED: 4.1,
    NAIVE: 2.6,
    TOTAL: 2.9,
    SIMULTANEOUS: 2.1,
    PARL: 1.8,
    DPO: 0.6,
    RLHF: 1.5,
    ITERATED: 1.2,
    PPO: 3.0,
}


def course(final, kl, seed, noise=0.05):
    rng = np.random.default_rng(seed)
    way = np.linspace(0.0, 1.0, POINTS)
    own = np.random.default_rng(7).normal(0.0, 0.3, (SEEDS, 1, PROMPTS))
    reward = own + 0.5 + (final - 0.5) * way[None, :, None]
    reward = reward + noise * rng.normal(size=(SEEDS, POINTS, PROMPTS))
    kls = np.tile(kl * way, (SEEDS, 1))
    return Course([0, 8, 16, 24], reward, kls, np.full((SEEDS, POINTS), 30.0))


def piece(name, task, seed):
    each = SECONDS[name] * (1.0 + 0.02 * np.sin(3 * seed + len(task)))
    game = name not in (DPO, ITERATED, PPO)
    return {
        "name": name,
        "task": task,
        "seed": seed,
        "cpu_seconds": each * SCALES["quick"].rounds,
        "cpu_per_round": [each] * 2,
        "learning": {"round": [1, 2, 3], "reward_loss": [0.7, 0.6, 0.5 + seed]} if game else {},
        "played": {"examples": [4.0, 8.0], "reward": [0.5, 0.6]} if name != DPO else {},
        "samples": [{"prompt": "<once>", "continuation": f"{name} & {seed}"}],
        "peak_memory_mb": 900.0,
    }


def results(final=FINAL, kl=KL, seeds=SEEDS):
    every = [c.name for c in CONTESTANTS]
    courses = {
        t.name: {n: course(final[n], kl[n], 10 * i + k) for i, n in enumerate(every)}
        for k, t in enumerate(TASKS)
    }
    found = {
        t.name: {n: [piece(n, t.name, s) for s in range(seeds)] for n in (*every, CG)}
        for t in TASKS
    }
    return Results(SCALES["quick"], list(range(seeds)), courses, found, [{"cpu_seconds": 2.4}] * 3)


def verdict(found, words):
    (claim,) = [c for c in claims.judge(found) if words in c["claim"]]
    return claim["holds"], claim["evidence"]


HIGHEST = "higher reward than all competitors: Word Collector"
FRONT = "same KL divergence: Word Collector"


def test_the_papers_own_pattern_gives_its_claims():
    found = claims.judge(results())
    assert [c["holds"] for c in found] == [True] * 9
    assert [c["source"] for c in found] == ["paper"] * 8 + ["equilign"]


@pytest.mark.parametrize(("ppo", "wanted"), [(1.5, True), (2.3, False), (2.0, None)])
def test_one_better_competitor_decides(ppo, wanted):
    holds, evidence = verdict(results({**FINAL, PPO: ppo}), HIGHEST)
    assert holds is wanted
    assert "PPO on ground truth" in evidence


def test_both_variants_must_be_ahead():
    assert verdict(results({**FINAL, TOTAL: 0.8}), HIGHEST)[0] is False
    assert verdict(results({**FINAL, NAIVE: 0.8}), HIGHEST)[0] is False


def test_a_nearer_competitor_has_the_higher_front():
    # Three quarters of the reward at a tenth of the distance.
    assert verdict(results({**FINAL, PPO: 1.5}, {**KL, PPO: 0.3}), FRONT)[0] is False
    # Far below on the way, above in the end: that one is not dominated.
    assert verdict(results({**FINAL, PPO: 2.4}, {**KL, PPO: 9.0}), FRONT)[0] is False
    assert verdict(results({**FINAL, PPO: 1.9}, {**KL, PPO: 9.0}), FRONT)[0] is True


def test_fronts_are_judged_on_two_tasks():
    titles = [c["claim"] for c in claims.judge(results()) if "same KL" in c["claim"]]
    assert [t.rpartition(": ")[2] for t in titles] == [f"{WORDS.title}.", f"{CONSTRAINED.title}."]


@pytest.mark.parametrize(("total", "wanted"), [(2.0, True), (2.4, False), (1.5, True)])
def test_total_against_naive(total, wanted):
    assert verdict(results({**FINAL, TOTAL: total}), "not convincingly better")[0] is wanted


def test_without_power_nothing_is_said_of_total_and_naive():
    flat = {**FINAL, NAIVE: 0.51, TOTAL: 0.51}
    assert verdict(results(flat), "not convincingly better")[0] is None


def test_times_decide_the_order(monkeypatch):
    words = "takes longest"
    assert verdict(results(), words)[0] is True
    monkeypatch.setitem(SECONDS, PARL, 2.5)
    assert verdict(results(), words)[0] is False
    monkeypatch.setitem(SECONDS, PARL, SECONDS[SIMULTANEOUS])
    assert verdict(results(), words)[0] is None


@pytest.mark.parametrize(("seconds", "wanted"), [(8.0, True), (16.0, False), (5.0, False)])
def test_the_papers_ratio(monkeypatch, seconds, wanted):
    monkeypatch.setitem(SECONDS, CG, seconds)
    holds, evidence = verdict(results(), "2.6 to 4.6")
    assert holds is wanted
    assert f"{seconds / 2.6:.2f}" in evidence


@pytest.mark.parametrize(("seconds", "wanted"), [(2.9, True), (3.9, False)])
def test_woodburys_ratio(monkeypatch, seconds, wanted):
    monkeypatch.setitem(SECONDS, TOTAL, seconds)
    assert verdict(results(), "Woodbury")[0] is wanted


def test_dpo_pays_for_its_pairs():
    found = results()
    own = SECONDS[DPO] * (1.0 + 0.02 * np.sin(len(TASKS[0].name)))
    assert found.batch_time(DPO)[0, 0] == pytest.approx(own + 2.4 / SCALES["quick"].rounds)
    assert found.batch_time(CG).shape == (SEEDS, 3)


def test_the_page_shows_everything():
    found = results()
    judged = claims.judge(found)
    page, tables = build_page(
        found,
        judged,
        {"scale": "quick", "seed": 0},
        {"python": "3.11"},
        {"seconds": 60.0, "peak_memory_mb": 900.0},
    )
    json.dumps(tables, allow_nan=False)
    html = reproduction_html(page)
    for words in ("9 reappear in this run", "Continuations", "&lt;once&gt;", "ratio to DPO"):
        assert words in html
    charts = [c for s in page.sections for c in s.charts]
    assert len(charts) == 3 + 3 + 6
    loss = next(c for c in charts if c.key == "loss-unique-nouns")
    assert [line.label for line in loss.lines][-1] == "PARL"
    np.testing.assert_allclose(loss.lines[0].y, [0.7, 0.65, (0.7 + 0.6 + 1.5) / 3])
    np.testing.assert_allclose(loss.lines[0].x, [4.0, 8.0, 12.0])
    front = next(c for c in charts if c.key == "front-word-collector")
    assert all(np.all(np.diff(line.y) > 0) for line in front.lines)
    times = next(t for t in tables if t["name"] == "times")
    ratios = {row[0]: row[1] for row in times["rows"]}
    assert ratios["DPO"] == pytest.approx(1.0)
    assert ratios["STA naive"] == pytest.approx(2.6 / 0.75, rel=0.01)


def test_a_single_seed_gives_plain_numbers():
    found = results()
    one = {
        t: {n: Course(c.examples, c.reward[:1], c.kl[:1], c.tokens[:1]) for n, c in by.items()}
        for t, by in found.courses.items()
    }
    pieces = {t: {n: p[:1] for n, p in by.items()} for t, by in found.pieces.items()}
    alone = Results(found.scale, [0], one, pieces, found.starts[:1])
    _, tables = build_page(
        alone,
        claims.judge(alone),
        {"scale": "quick", "seed": 0},
        {},
        dict.fromkeys(("seconds", "peak_memory_mb"), 1.0),
    )
    json.dumps(tables, allow_nan=False)
    assert {c["holds"] for c in claims.judge(alone)} <= {None, True}
