"""The pieces of the SPPO reproduction against independent arithmetic."""

import json
import runpy
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest

from equilign.errors import ConfigError, OracleError
from equilign.experiments.sppo import contestants, held_out
from equilign.experiments.sppo.contestants import CONTESTANTS, LEARNING_RATES, selection
from equilign.experiments.sppo.held_out import (
    References,
    character_grams,
    chrf,
    held_out_panel,
    shipped_references,
)
from equilign.experiments.sppo.results import title_of
from equilign.experiments.sppo.scales import SCALES, get_scale
from equilign.rollout import prompt_text
from equilign.tasks.prompts import restaurant_prompts
from equilign.tasks.restaurant_panel import restaurant_panel

RECIPES = Path(__file__).parents[2] / "recipes"


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
