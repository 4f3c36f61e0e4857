"""The pieces of the SLHF reproduction against independent arithmetic."""

import json
from itertools import permutations

import numpy as np
import pytest
import torch

from equilign.errors import ConfigError, RunDirectoryError
from equilign.evaluation.callback import save_groups
from equilign.experiments.slhf import costs, half, judging, playing, results, tabular
from equilign.experiments.slhf.contestants import (
    BASELINES,
    NASH,
    RLOO,
    SHARED,
    SLHF,
    main_slhf,
    selection,
    slhf,
)
from equilign.experiments.slhf.measures import rewards, scores, wins_over
from equilign.experiments.slhf.pieces import OPPONENTS, START, Setting
from equilign.experiments.slhf.scales import SCALES, get_scale
from equilign.games import named_game
from equilign.models import SHIPPED, load_model
from equilign.oracles import Panel, score_groups
from equilign.oracles.panel import Attribute
from equilign.rollout import Completion, Group, prompt_text
from equilign.tasks.prompts import restaurant_prompts

LENGTH = Attribute("length", lambda prompts, answers: np.array([len(a) for a in answers], float))
VOWELS = Attribute(
    "vowels", lambda prompts, answers: np.array([sum(c in "aeiou" for c in a) for a in answers])
)
PANEL = Panel([LENGTH, VOWELS])


def group(prompt, *texts):
    return Group(prompt, (1,), tuple(Completion(tuple(range(len(t))), t, True) for t in texts))


# -- matrix games --------------------------------------------------------------------------


def test_the_papers_cycle_at_every_weight():
    """Values worked out by hand: V = -beta log mean exp(-P / beta)."""
    for beta, value in ((1.0, 0.4474), (0.1, 0.208), (0.01, 0.111), (0.0, 0.1)):
        row = tabular.by_weight(beta)
        assert row["value"] == pytest.approx(value, abs=5e-4)
        np.testing.assert_allclose(row["policy"], 1 / 3)
        np.testing.assert_allclose(row["nash"], 1 / 3, atol=1e-9)
    row = tabular.by_weight(0.1)
    np.testing.assert_allclose(row["answer_to_a"], [0.018, 0.0003, 0.982], atol=5e-4)


def test_every_annotator_is_shown_their_favourite_in_three():
    found = tabular.hits(np.random.default_rng(0))
    np.testing.assert_allclose(found["refinement"]["exact"], [1 / 3, 2 / 3, 1, 1, 1], atol=1e-12)
    np.testing.assert_allclose(found["independent"]["exact"], found["independent"]["formula"])
    for kind in found.values():
        np.testing.assert_allclose(kind["drawn"], kind["exact"], atol=0.02)
    assert found["refinement"]["drawn"][2] == 1.0


def test_the_annotators_are_those_of_the_game():
    prefs = named_game(tabular.PARADOX).prefs
    for a, b in permutations(range(3), 2):
        share = np.mean([order.index(a) < order.index(b) for order in tabular.ORDERS])
        assert prefs[a, b] == pytest.approx(share)


def test_only_scores_depend_on_which_pairs_are_compared(monkeypatch):
    monkeypatch.setattr(tabular, "LAWS", 40)
    found = tabular.pair_sampling(np.random.default_rng(1))
    assert found["moved"]["infinite"]["nash"] == 0.0
    assert found["moved"]["infinite"]["stackelberg"] == 0.0
    assert found["moved"]["infinite"]["bradley-terry"] > 0.3
    assert 0.0 < found["moved"]["finite"]["nash"] < 0.1
    for shares in found["favourite"].values():
        assert sum(shares.values()) == pytest.approx(1.0)
    assert min(found["favourite"]["bradley-terry"].values()) > 0.1


# -- measures ------------------------------------------------------------------------------


def test_shares_of_wins_are_those_of_the_panel():
    rng = np.random.default_rng(2)
    texts = ["".join(rng.choice(list("abe"), int(n))) for n in rng.integers(1, 5, 12)]
    mine = [group("p", *texts[:3]), group("q", *texts[3:6])]
    theirs = [group("p", *texts[6:9]), group("q", *texts[9:])]
    found = wins_over(scores(PANEL, mine), scores(PANEL, theirs)).mean(axis=0)
    for i, (a, b) in enumerate(zip(mine, theirs, strict=True)):
        both = [c.text for c in (*a.completions, *b.completions)]
        (game,) = score_groups(PANEL, [a.prompt], [both])
        np.testing.assert_allclose(found[i], game[:3, 3:].mean(axis=1))


def test_rewards_are_standardised_voter_by_voter():
    start = np.array([[[1.0, 3.0]], [[5.0, 5.0]]])
    mine = np.array([[[2.0, 4.0]], [[9.0, 5.0]]])
    # The second voter scores the whole start alike, and says nothing.
    np.testing.assert_allclose(rewards(mine, start), [[0.0, 1.0]])
    np.testing.assert_allclose(rewards(mine[:1], start[:1]), [[0.0, 2.0]])


def test_curves_from_answer_files(tmp_path, monkeypatch):
    """At N = 1 every curve is a plain mean; at the full pool the pick is the best one."""
    monkeypatch.setattr(judging, "main_slhf", lambda: slhf(5.0))
    monkeypatch.setattr(playing, "main_slhf", lambda: slhf(5.0))
    scale = SCALES["tiny"]
    setting = Setting(tmp_path, scale, [], ["p", "q"])
    rng = np.random.default_rng(3)

    def write(name, count):
        texts = [
            ["".join(rng.choice(list("abe"), int(rng.integers(1, 6)))) for _ in range(count)]
            for _ in range(2)
        ]
        file = setting.answers_file(name, 0)
        file.parent.mkdir(exist_ok=True)
        save_groups(file, [group(p, *row) for p, row in zip("pq", texts, strict=True)])

    for name in (START, RLOO, NASH, "slhf"):
        write(name, scale.pool)
    write(OPPONENTS, 2 * scale.samples)
    for who in playing.LONG:
        for n in range(1, scale.steps + 1):
            write(playing.chain_name(who, n), scale.chains)
    found = judging.curves(setting, PANEL, 0)
    rivals = [
        Group(g.prompt, (), g.completions[scale.samples :])
        for g in setting.load_answers(OPPONENTS, 0)
    ]
    for who, name in ((START, START), ("leader", "slhf")):
        worth = wins_over(scores(PANEL, setting.load_answers(name, 0)), scores(PANEL, rivals)).mean(
            axis=0
        )
        curve = np.array(found[f"independent, {who}"]["win_rate"])
        assert curve.shape == (2, scale.pool)
        np.testing.assert_allclose(curve[:, 0], worth.mean(axis=1), atol=1e-6)
        chain = found[f"refinement, {who}"]
        shown = worth[:, -scale.chains :].mean(axis=1)
        np.testing.assert_allclose(np.array(chain["win_rate"])[:, 0], shown, atol=1e-6)
        assert np.array(chain["last_win_rate"]).shape == (2, scale.steps + 1)
        personal = np.array(found[f"independent, {who}"]["personal"])
        assert (np.diff(personal, axis=1) >= -1e-9).all(), "choosing for oneself never hurts"


# -- who is shown what ---------------------------------------------------------------------


def test_followers_are_shown_answers_that_do_not_play(tmp_path):
    setting = Setting(tmp_path, SCALES["tiny"], [], ["p"])
    file = setting.answers_file("x", 0)
    file.parent.mkdir()
    save_groups(file, [group("p", "a", "b", "c")])
    assert [c.text for c in setting.shown("x", 0)[0].completions] == ["c"]
    assert [c.text for c in setting.shown("x", 0, 2)[0].completions] == ["b", "c"]
    for scale in SCALES.values():
        assert scale.samples + scale.chains <= scale.pool


def test_people_wrote_for_the_very_prompts(tmp_path):
    prompts = restaurant_prompts("evaluate")
    setting = Setting(tmp_path, SCALES["tiny"], [], prompts)
    groups = playing.human_answers(setting, 2)
    assert [g.prompt for g in groups] == prompts
    name = prompt_text(prompts[0]).partition("[")[2].partition("]")[0]
    assert name in groups[0].completions[0].text
    assert all(len(g.completions) == 2 and g.completions[1].text for g in groups)


def test_the_model_of_half_the_size():
    start = load_model(SHIPPED)
    small = half.halved(start)
    assert len(small.model.layers) == small.config.num_hidden_layers == 2
    assert len(start.model.layers) == start.config.num_hidden_layers == 4
    assert half.weights(small) < half.weights(start)
    first, last = small.model.layers
    for mine, theirs in ((first, start.model.layers[0]), (last, start.model.layers[3])):
        assert torch.equal(mine.mlp.up_proj.weight, theirs.mlp.up_proj.weight)
        assert mine.mlp.up_proj.weight is not theirs.mlp.up_proj.weight
    pairs = [([1, 5, 6], [7, 8, 2]), ([1, 9], [10, 2])]

    def divergence(student, chosen):
        return float(half.divergence(start, student, chosen, 0).detach())

    assert divergence(start, pairs) == pytest.approx(0.0, abs=1e-6)
    both, alone = divergence(small, pairs), [divergence(small, [p]) for p in pairs]
    # A mean over tokens, of which the first pair has three and the second two.
    assert both == pytest.approx((3 * alone[0] + 2 * alone[1]) / 5, rel=1e-4)
    assert both > 0.01
    assert small.generate(torch.tensor([[1, 5]]), max_new_tokens=2, do_sample=False).shape == (1, 4)


# -- costs ---------------------------------------------------------------------------------


def test_what_a_round_cost():
    side = {"completions": ["a", "b", "a"], "completion_ids": [[1], [1, 2], [1]]}
    found = costs._of_row(side, RLOO)
    assert found == {"prompts": 1, "samples": 3, "trained": 3, "tokens": 4, "verdicts": 2}
    nash = costs._of_row(side, NASH)
    assert (nash["samples"], nash["trained"], nash["verdicts"]) == (6, 3, 2 + 18)
    row = {
        "leader": {"completions": ["a", "b"], "completion_ids": [[1], [1, 2]]},
        "followers": [
            {"completions": ["a", "c"], "completion_ids": [[1], [1, 2, 3]]},
            {"completions": ["c", "c"], "completion_ids": [[1, 2, 3], [1, 2, 3]]},
        ],
    }
    found = costs._of_row(row, SLHF)
    # (a, a) ties without being asked, (b, c) is asked once, in both orders.
    assert found == {"prompts": 1, "samples": 6, "trained": 6, "tokens": 13, "verdicts": 4}


def test_learning_curves_have_what_every_round_has(tmp_path):
    rows = [
        {"kind": "round", "method": SLHF, "follower_win_rate": 0.25, "kl_to_reference_nats": 1.0},
        {"kind": "step", "method": SLHF, "follower_win_rate": 9.0},
        {"kind": "round", "method": SLHF, "follower_win_rate": 0.5},
    ]
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(r) + "\n" for r in rows))
    assert costs.learning_curve(tmp_path, SLHF) == {"follower_win_rate": [0.25, 0.5]}


def test_all_methods_sample_the_same_number_of_answers():
    for scale in SCALES.values():
        rloo, nash = (c.options(scale, 1e-4)["num_generations"] for c in BASELINES)
        options = slhf(5.0).options(scale, 1e-4)
        leader, follower = options["num_generations"], options["num_follower_generations"]
        assert rloo == 2 * nash == leader * (1 + follower) == scale.answers
        assert nash >= 2


# -- settings ------------------------------------------------------------------------------


def test_scales_are_possible():
    for scale in SCALES.values():
        assert scale.kappa_seeds <= scale.seeds
        assert scale.eval_prompts <= len(restaurant_prompts("evaluate"))
        assert scale.steps + 1 <= scale.pool or scale.steps < scale.pool + 3
        assert scale.rounds % scale.save_every == 0, "the last checkpoint is the end"
    assert SCALES["full"].seeds == 5
    assert SCALES["quick"].seeds == 5
    with pytest.raises(ConfigError, match="no scale 'huge'; there are: tiny, quick, full"):
        get_scale("huge")


def test_what_was_chosen_was_tried_on_other_prompts():
    found = selection()
    assert "not among the package's prompts" in found["prompts"]
    assert set(found["chosen"]) == {RLOO, NASH, SLHF, SHARED}
    tried = [(row["method"], row["options"]) for row in found["grid"]]
    assert (SLHF, found["chosen"][SLHF]) in tried
    assert (SHARED, found["chosen"][SHARED]) in tried
    assert main_slhf().options(SCALES["quick"], 1e-4)["kappa"] == found["chosen"][SLHF]["kappa"]


def test_a_piece_that_cannot_be_read_is_named(tmp_path):
    setting = Setting(tmp_path, SCALES["tiny"], [], [])
    with pytest.raises(RunDirectoryError, match=r"judged-seed-0\.json.*delete that file"):
        results.read_results(setting, [0], [0])
