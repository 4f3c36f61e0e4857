"""Position bias, games of single prompts, annotators: counted by hand and by simulation."""

import itertools
import json

import numpy as np
import pytest
from scipy import stats

from equilign.diagnosis.groups import prompt_structure, voter_structure
from equilign.diagnosis.position import position_bias
from equilign.games.loading import load_data
from equilign.games.measures import cyclic_triples
from tests.games.real_games import real


def read(tmp_path, rows, **options):
    path = tmp_path / "c.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return load_data(path, **options).comparisons


def duel(first, second, winner, **more):
    return {"model_a": first, "model_b": second, "winner": winner, **more}


# -- position ------------------------------------------------------------------------------


def test_flips_and_shares_by_hand(tmp_path):
    # Prompt p: a wins in both orders. q: the first wins in both. r: the second wins in both.
    rows = []
    for k in range(10):
        for prompt, firsts in ((f"p{k}", "as"), (f"q{k}", "ff"), (f"r{k}", "ss"), (f"s{k}", "ff")):
            rows.append(duel("a", "b", {"a": "a", "f": "a", "s": "b"}[firsts[0]], prompt=prompt))
            rows.append(duel("b", "a", {"s": "a", "f": "b"}[firsts[1]], prompt=prompt))
    # per ten: p gives 1/2, q and s give 1, r gives 0
    rows += [duel("a", "c", "a", prompt="alone")] * 5  # one order only: not counted
    found = position_bias(read(tmp_path, rows))
    assert found.strata == 40
    assert found.comparisons == 80
    # "as": a first, a wins; b first, the second (a) wins: no bias. In "ss" b, then a wins: 0.
    assert found.first_share == pytest.approx((0.5 + 1.0 + 0.0 + 1.0) / 4)
    assert found.flips == pytest.approx(0.75)
    assert found.units == "prompts"
    shares = np.repeat([0.0, 0.5, -0.5, 0.5], 10)
    half = stats.t.ppf(0.975, 39) * shares.std(ddof=1) / 40**0.5
    assert found.high - found.first_share == pytest.approx(half)


def test_a_strong_player_that_is_shown_first_more_often_is_no_bias(tmp_path):
    rng = np.random.default_rng(0)
    rows = []
    for k in range(4000):
        first, second = ("strong", "weak") if k % 4 else ("weak", "strong")
        strong_wins = rng.random() < 0.8
        rows.append(duel(first, second, "strong" if strong_wins else "weak"))
    found = position_bias(read(tmp_path, rows))
    assert found.units == "comparisons"
    assert found.low < 0.5 < found.high
    assert found.p_value > 0.01


def biased(tmp_path, bias, seed, prompts):
    rng = np.random.default_rng(seed)
    rows = []
    for k in range(300):
        first, second = rng.permutation(["a", "b", "c"])[:2].tolist()
        wins = rng.random() < 0.5 + bias
        rows.append(duel(first, second, first if wins else second, prompt=f"p{k % prompts}"))
    return position_bias(read(tmp_path, rows))


def test_intervals_hold_and_p_values_keep_their_level(tmp_path):
    for prompts in (1, 60):
        for bias in (0.0, 0.15):
            found = [biased(tmp_path, bias, seed, prompts) for seed in range(100)]
            inside = sum(f.low <= 0.5 + bias <= f.high for f in found)
            assert inside >= 88
            rejected = sum(f.p_value < 0.05 for f in found)
            assert rejected <= 12 if bias == 0.0 else rejected >= 95


def test_a_position_column_says_the_same_as_the_order_of_columns(tmp_path):
    rng = np.random.default_rng(3)
    listed, said = [], []
    for k in range(200):
        first, second = rng.permutation(["a", "b", "c"])[:2].tolist()
        wins = rng.random() < 0.65
        chosen, rejected = (first, second) if wins else (second, first)
        listed.append(duel(first, second, chosen, prompt=f"p{k % 30}"))
        position = "first" if wins else "second"
        said.append({"prompt": f"p{k % 30}", "chosen": chosen, "rejected": rejected}
                    | {"position": position})  # fmt: skip
    first = position_bias(read(tmp_path, listed))
    second = position_bias(read(tmp_path, said, players="names"))
    assert first.first_share > 0.55
    assert first == second


def test_without_both_orders_nothing_is_said(tmp_path):
    assert position_bias(read(tmp_path, [duel("a", "b", "a")] * 30)) is None
    rows = [{"chosen": "a", "rejected": "b"}, {"chosen": "b", "rejected": "a"}] * 20
    assert position_bias(read(tmp_path, rows)) is None  # the order is unknown


def test_position_bias_of_a_real_judge():
    """The README of the folder: 15.7 % of pairs flip with the order."""
    found = position_bias(real("qlora_oa7").comparisons)
    assert found.flips == pytest.approx(0.157, abs=5e-4)
    assert 0.55 < found.low < found.high < 0.57
    assert found.p_value < 1e-50


# -- prompts -------------------------------------------------------------------------------


def test_prompts_of_a_real_judge():
    """The README of the folder, on the 317 prompts with all 42 verdicts."""
    c = real("qlora_oa7").comparisons
    full = np.bincount(c.prompt, minlength=953) == 42
    assert full.sum() == 317
    c = c.subset(full[c.prompt])
    found = prompt_structure(c)
    assert found.count == found.complete == 317
    assert 317 - found.with_condorcet_winner == 132
    prefs = [g.wins / 2 + np.eye(7) / 2 for _, g in c.by_prompt()]
    assert sum(cyclic_triples(p) > 0 for p in prefs) == 15
    assert found.cyclic_triples == sum(cyclic_triples(p) for p in prefs)
    assert found.with_cycle == 16  # one more has a cycle of four around a tie
    assert found.without_weak_winner == 5
    assert found.significant_cycles == 0
    assert found.comparisons_per_pair == 2.0


def ring(prompt, times, answers="xyz", **more):
    return [
        {"prompt": prompt, "chosen": f"{prompt} {a}", "rejected": f"{prompt} {b}", **more}
        for a, b in zip(answers, answers[1:] + answers[0], strict=True)
        for _ in range(times)
    ]


def test_cycles_on_prompts_need_repeats_to_be_significant(tmp_path):
    rows = ring("p", 1) + ring("q", 12)
    rows += [{"prompt": "r", "chosen": "x", "rejected": "y"}]
    rows += [{"prompt": "s", "chosen": a, "rejected": b} for a, b in ("uv", "vw")]  # a pair lacks
    found = prompt_structure(read(tmp_path, rows))
    assert (found.count, found.with_three, found.complete) == (4, 3, 2)
    assert (found.with_cycle, found.cyclic_triples, found.strict_triples) == (2, 2, 2)
    assert found.significant_cycles == 1  # twelve of twelve: 2**-12 times four hypotheses
    assert found.with_condorcet_winner == 0
    assert found.without_weak_winner == 2
    assert found.players == pytest.approx((3 + 3 + 2 + 3) / 4)


def test_no_prompts_no_structure(tmp_path):
    assert prompt_structure(read(tmp_path, [{"chosen": "a", "rejected": "b"}])) is None


# -- annotators ----------------------------------------------------------------------------


def paradox_rows():
    """Three transitive annotators (abc, bca, cab) whose majority goes in circles."""
    return [
        {"chosen": a, "rejected": b, "annotator": ranking}
        for ranking in ("abc", "bca", "cab")
        for a, b in itertools.combinations(ranking, 2)
    ]


def voters(c):
    return voter_structure(c, c.annotator, len(c.annotators))


def test_condorcets_paradox(tmp_path):
    found = voters(read(tmp_path, paradox_rows()))
    assert (found.count, found.transitive, found.cyclic) == (3, 3, 0)
    assert (found.games, found.majority_cycles, found.paradoxes) == (1, 1, 1)
    assert found.items == 3
    assert found.agreement == pytest.approx(1 / 3)  # of three votes two agree: one pair of three
    cyclic = [*paradox_rows(), *[{"chosen": a, "rejected": b, "annotator": "odd"}
                                 for a, b in ("ab", "bc", "ca")]]  # fmt: skip
    found = voters(read(tmp_path, cyclic))
    assert (found.cyclic, found.majority_cycles, found.paradoxes) == (1, 1, 0)


def test_paradoxes_on_single_prompts(tmp_path):
    rows = [
        {"prompt": p, "chosen": f"{p}{r['chosen']}", "rejected": f"{p}{r['rejected']}"}
        | {"annotator": r["annotator"]}
        for p in ("p", "q")
        for r in paradox_rows()
        if p == "p" or r["annotator"] == "abc"
    ]
    found = voters(read(tmp_path, rows))
    assert (found.games, found.majority_cycles, found.paradoxes) == (2, 1, 1)
    assert found.transitive == 4


def test_agreement_alpha_and_contradictions_by_hand(tmp_path):
    rows = [
        {"prompt": "1", "chosen": "a", "rejected": "b", "annotator": "x"},
        {"prompt": "1", "chosen": "a", "rejected": "b", "annotator": "y"},
        {"prompt": "2", "chosen": "a", "rejected": "b", "annotator": "x"},
        {"prompt": "2", "chosen": "b", "rejected": "a", "annotator": "y"},
        {"prompt": "3", "chosen": "b", "rejected": "a", "annotator": "x"},
        {"prompt": "3", "chosen": "a", "rejected": "b", "annotator": "x"},  # contradicts itself
        {"prompt": "4", "chosen": "b", "rejected": "a", "annotator": "y"},
        {"prompt": "4", "chosen": "b", "rejected": "a", "annotator": "y"},
    ]
    found = voters(read(tmp_path, rows, players="names"))
    assert (found.items, found.agreement) == (2, 0.5)
    # four votes, taken as two each way: disagreement by chance 1 - 2 * 2 * 1 / (4 * 3) = 2 / 3
    assert found.alpha == pytest.approx(1 - 0.5 / (2 / 3))
    assert (found.repeated, found.inconsistent) == (2, 0.5)


def test_annotators_who_flip_coins_have_no_alpha(tmp_path):
    rng = np.random.default_rng(0)
    rows = [
        {"prompt": str(k), "annotator": who, **dict(zip(("chosen", "rejected"), pair, strict=True))}
        for k in range(600)
        for who in ("x", "y", "z")
        for pair in [rng.permutation(["a", "b"]).tolist()]
    ]
    found = voters(read(tmp_path, rows, players="names"))
    assert found.alpha == pytest.approx(0.0, abs=0.06)
    assert found.agreement == pytest.approx(0.5, abs=0.03)


def test_one_annotator_is_none(tmp_path):
    assert voters(read(tmp_path, ring("p", 1, annotator="x"))) is None
