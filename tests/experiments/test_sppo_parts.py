"""The pieces of the SPPO reproduction against independent arithmetic."""

import json
import runpy
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from equilign.errors import ConfigError, OracleError
from equilign.evaluation.win_rate import head_to_head
from equilign.experiments.sppo import contestants, held_out
from equilign.experiments.sppo.contestants import CONTESTANTS, LEARNING_RATES, selection
from equilign.experiments.sppo.estimates import spread
from equilign.experiments.sppo.held_out import (
    References,
    character_grams,
    chrf,
    held_out_panel,
    shipped_references,
)
from equilign.experiments.sppo.judging import best_of, length_controlled, round_robin
from equilign.experiments.sppo.pieces import START, first
from equilign.experiments.sppo.results import title_of
from equilign.experiments.sppo.scales import SCALES, get_scale
from equilign.oracles import CallableOracle
from equilign.rollout import Completion, Group, prompt_text
from equilign.tasks.prompts import restaurant_prompts
from equilign.tasks.restaurant_panel import restaurant_panel

RECIPES = Path(__file__).parents[2] / "recipes"


# -- estimates -----------------------------------------------------------------------------


def test_intervals_over_each_alone_are_students():
    x = np.random.default_rng(0).normal(size=(5, 30))
    found = spread(x)
    assert found.value == pytest.approx(x.mean())
    for means, got in ((x.mean(axis=1), found.seeds), (x.mean(axis=0), found.prompts)):
        half = stats.t.ppf(0.975, len(means) - 1) * means.std(ddof=1) / np.sqrt(len(means))
        assert got == pytest.approx((means.mean() - half, means.mean() + half))
    np.testing.assert_allclose(found.by_seed, x.mean(axis=1))


def test_a_spread_of_one_kind_only_is_that_kinds():
    seeds = np.array([[0.1], [0.4], [0.2]]) * np.ones((1, 20))
    found = spread(seeds)
    assert found.both == pytest.approx(found.seeds)
    assert found.prompts == pytest.approx((found.value, found.value))
    turned = spread(seeds.T)
    assert turned.both == pytest.approx(turned.prompts)


@pytest.mark.parametrize(("of_seeds", "of_prompts"), [(0.0, 0.3), (0.3, 0.3), (0.2, 0.0)])
def test_both_covers_the_truth_as_often_as_it_says(of_seeds, of_prompts):
    """Five seeds, forty prompts, drawn anew each time; the truth is 0."""
    rng = np.random.default_rng(1)
    hits = {"both": 0, "prompts": 0}
    for _ in range(600):
        a, b = rng.normal(0, of_seeds, (5, 1)), rng.normal(0, of_prompts, (1, 40))
        found = spread(a + b + rng.normal(0, 0.5, (5, 40)))
        for name in hits:
            low, high = getattr(found, name)
            hits[name] += low <= 0.0 <= high
    assert 0.92 <= hits["both"] / 600 <= 0.995
    if of_seeds > 0.2:
        assert hits["prompts"] / 600 < 0.75, "prompts alone miss the spread of the trainings"


def test_degenerate_spreads():
    assert spread([[0.5, 0.5], [0.5, 0.5]]).both == (0.5, 0.5)
    one = spread([[0.2, 0.4]])
    assert one.seeds == one.both == (-np.inf, np.inf)
    for bad in ([], [[]], [1.0]):
        with pytest.raises(ValueError, match="seeds, prompts"):
            spread(np.array(bad))


# -- judging -------------------------------------------------------------------------------


def group(prompt, *texts):
    return Group(prompt, (1,), tuple(Completion(tuple(range(len(t))), t, True) for t in texts))


LONGER = CallableOracle(lambda prompt, a, b: 1.0 / (1.0 + np.exp(len(b) - len(a))))


def test_best_of_takes_the_best_and_the_first_of_equals():
    groups = [group("p", "aa", "bbbb", "cc"), group("q", "aa", "bb")]
    kept = best_of(LONGER, groups)
    assert [[c.text for c in g.completions] for g in kept] == [["bbbb"], ["aa"]]
    assert [g.prompt for g in kept] == ["p", "q"]


def test_round_robin_equals_head_to_head_of_each_pair():
    rng = np.random.default_rng(3)
    table = rng.random(64)
    oracle = CallableOracle(lambda p, a, b: float(table[(7 * len(a) + 13 * len(b)) % 64]))
    names = [START, "x", "y"]
    answers = {
        name: [group(p, *("a" * int(k) for k in rng.integers(1, 9, 3 - i))) for p in "pqrs"]
        for i, name in enumerate(names)
    }
    wins, controlled = round_robin(oracle, answers)
    assert wins.shape == (4, 3, 3)
    for (i, a), (j, b) in product(enumerate(names), repeat=2):
        _, matrix = head_to_head(oracle, answers[a], answers[b])
        np.testing.assert_allclose(wins[:, i, j], matrix.mean(axis=(1, 2)), atol=1e-12)
    assert set(controlled) == {"x", "y"}
    _, matrix = head_to_head(oracle, answers["y"], answers[START])
    lengths = [
        np.array([[len(c.ids) for c in g.completions] for g in answers[n]]) for n in ("y", START)
    ]
    extra = lengths[0][:, :, None] - lengths[1][:, None, :]
    np.testing.assert_allclose(controlled["y"], length_controlled(matrix, extra))


def test_length_control_takes_out_what_goes_with_length():
    rng = np.random.default_rng(4)
    extra = rng.normal(3.0, 5.0, (50, 2, 4))
    own = rng.normal(0.6, 0.1, (50, 1, 1))
    verdicts = own + 0.3 * np.tanh(extra / extra.std())
    found = length_controlled(verdicts, extra)
    assert found.shape == (50,)
    assert found.mean() == pytest.approx(0.6, abs=0.03)
    assert verdicts.mean() > 0.67
    # Least squares: the mean is the line's height at equal length.
    x = np.tanh(extra / extra.std()).ravel()
    _, height = np.polyfit(x, verdicts.ravel(), 1)
    assert found.mean() == pytest.approx(height)
    same = length_controlled(verdicts, np.zeros_like(extra))
    np.testing.assert_allclose(same, verdicts.mean(axis=(1, 2)))
    constant = length_controlled(verdicts, np.full_like(extra, 2.0))
    np.testing.assert_allclose(constant, verdicts.mean(axis=(1, 2)))


def test_first_answers():
    assert [c.text for c in first(group("p", "a", "bb", "ccc"), 2).completions] == ["a", "bb"]


# -- the held-out oracle -------------------------------------------------------------------


def test_chrf_by_hand():
    """ "ab" against "abc": orders 1 and 2 have a common gram; precision 1, recall 2/3 and 1/2."""
    a, b = character_grams("A b"), character_grams("abc")
    p, r = 1.0, (2 / 3 + 1 / 2) / 2
    assert chrf(a, b) == pytest.approx(5 * p * r / (4 * p + r))
    p, r = (2 / 3 + 1 / 2) / 2, 1.0
    assert chrf(b, a) == pytest.approx(5 * p * r / (4 * p + r))
    assert chrf(b, b) == pytest.approx(1.0)
    assert chrf(a, character_grams("xyz")) == 0.0
    assert chrf(character_grams(""), b) == 0.0


def test_the_best_reference_counts():
    texts = tuple(character_grams(t) for t in ("a quiet pub", "a loud bar"))
    found = References({"p": texts}).score(["p", "p", "p"], ["a quiet pub", "a loud bar", "z"])
    np.testing.assert_allclose(found, [1.0, 1.0, 0.0])
    with pytest.raises(OracleError, match="no human description of the prompt 'q'"):
        References({"p": texts}).score(["q"], ["a"])


def test_every_held_out_prompt_has_references():
    known = shipped_references().texts
    prompts = [prompt_text(p) for p in restaurant_prompts("evaluate")]
    assert sorted(known) == sorted(prompts)
    assert all(known.values())


def test_the_held_out_heads_were_fitted_to_what_the_training_heads_never_saw():
    """The recipe, run again, writes the shipped heads, from the other side of the split."""
    module = runpy.run_path(str(RECIPES / "sppo_held_out" / "make.py"))
    from ratings import is_test, read_comparisons

    try:
        pairs = read_comparisons()
        seen = [c for c in pairs if is_test(c)]
        made = module["fit_heads"](seen, [c for c in pairs if not is_test(c)])
    finally:
        for name in ("fit", "ratings"):
            sys.modules.pop(name, None)
        sys.path.remove(str(RECIPES / "reward_heads"))
    shipped = json.loads((held_out._folder() / "heads.json").read_text())
    assert made["fitted_pairs"] == shipped["fitted_pairs"] == len(seen) == 188
    for name, head in shipped["heads"].items():
        for key in ("fault_weights", "held_out"):
            assert made["heads"][name][key] == pytest.approx(head[key], abs=2e-3)
    assert module["references"]() == [
        json.loads(line)
        for line in (held_out._folder() / "references.jsonl").read_text().splitlines()
    ]


def test_the_readme_has_the_numbers_of_the_file():
    folder = held_out._folder()
    text = (folder / "README.md").read_text()
    for name, head in json.loads((folder / "heads.json").read_text())["heads"].items():
        m = head["held_out"]
        row = f"| {name} | {m['accuracy']:.3f} | {m['low']:.3f} to {m['high']:.3f} | "
        assert row + f"{m['log_loss']:.3f} | {m['pairs']} | {m['ties']} |" in text


def test_the_two_oracles_share_no_fitted_number():
    held, trained = held_out_panel(), restaurant_panel()
    assert [a.name for a in held.attributes][:3] == ["informativeness", "naturalness", "quality"]
    mine = {a.name: a.score.__self__ for a in held.attributes}
    other = {a.name: a.score.__self__ for a in trained.attributes[:3]}
    for name, head in other.items():
        assert not np.allclose(mine[name].fault_weights, head.fault_weights)
        assert not mine[name].tables.oddness.any()
        assert not mine[name].tables.trigrams
    prompts = restaurant_prompts("evaluate")[:3]
    human = [json.loads(line)["references"][0] for line in _reference_lines()[:3]]
    texts = [prompt_text(p) for p in prompts]
    assert (held.compare(texts, human, ["pub pub pub"] * 3) > 0.5).all()


def _reference_lines():
    return (held_out._folder() / "references.jsonl").read_text().splitlines()


# -- settings ------------------------------------------------------------------------------


def test_scales_are_possible():
    for scale in SCALES.values():
        assert 1 <= scale.samples <= scale.best_of <= 16
        assert scale.prompts_per_round <= len(restaurant_prompts("align"))
        assert scale.eval_prompts <= len(restaurant_prompts("evaluate"))
    assert SCALES["quick"].seeds == 5
    assert SCALES["quick"].rounds == 3
    # Different prompts in every iteration.
    assert SCALES["quick"].rounds * SCALES["quick"].prompts_per_round <= 272
    with pytest.raises(ConfigError, match="no scale 'huge'; there are: tiny, quick, full"):
        get_scale("huge")


def test_the_grid_is_the_same_size_for_all_and_the_best_was_chosen():
    found = selection()
    assert found["seed"] >= 1_000_000, "a seed of no run that is reported"
    for c in CONTESTANTS:
        rows = [row for row in found["grid"] if row["method"] == c.method]
        tried = [(row["options"][c.strength], row["options"]["learning_rate"]) for row in rows]
        assert sorted(tried) == sorted(product(c.grid, LEARNING_RATES))
        best = max(rows, key=lambda row: row["rounds"][-1]["value"])
        assert contestants.chosen_options(c.method) == best["options"]
        for row in rows:
            assert [r["samples"] for r in row["costs"]] == [450, 450]
            assert [r["steps"] for r in row["costs"]] == [23, 23]
    assert found["scale"]["prompts_per_round"] == SCALES["quick"].prompts_per_round


def test_the_grid_used_other_prompts():
    sys.path.insert(0, str(RECIPES / "sppo_grid"))
    try:
        inputs = runpy.run_path(str(RECIPES / "sppo_grid" / "run.py"))["inputs"]()
    finally:
        sys.path.remove(str(RECIPES / "sppo_grid"))
    ours = {prompt_text(p) for split in ("align", "evaluate") for p in restaurant_prompts(split)}
    assert len(inputs) > 400
    assert not ours & {prompt_text(p) for p in inputs}


def test_titles():
    assert title_of("start") == "start"
    assert title_of("sppo-3") == "SPPO 3"
    assert title_of("iterated-dpo-2-best") == "Iterated DPO 2, best"
    assert title_of("start-best") == "start, best"
