"""Missing verdicts are never made up; which responses are trained on."""

import json

import numpy as np
import pytest
import torch

from equilign.errors import ConfigError
from equilign.oracles import CallableOracle
from equilign.trainers import SPPOConfig
from equilign.trainers.judged import add_win_rates, as_game, as_json, choose_responses, harden
from tests.enumerable import tiny_model
from tests.trainers.test_resume import make, prefer_b

NAN = np.nan
GAME = np.array([[0.5, 0.9, 0.2], [0.1, 0.5, 0.6], [0.8, 0.4, 0.5]])


def row(size=3):
    return {
        "completions": ["x"] * size,
        "weights": [1 / size] * size,
        "loss_weights": [1 / size] * size,
        "win_rates": {},
    }


def test_win_rates_are_means_over_the_verdicts_there_are():
    r, uniform = row(), np.full(3, 1 / 3)
    add_win_rates(r, "current", GAME, uniform)
    np.testing.assert_allclose(r["win_rates"]["current"], GAME.mean(axis=1))
    assert r["loss_weights"] == [1 / 3] * 3
    masked = GAME.copy()
    masked[0, 1] = masked[1, 0] = NAN
    add_win_rates(r, "current", masked, uniform)
    np.testing.assert_allclose(r["win_rates"]["current"], [0.35, 0.55, GAME[2].mean()])
    assert r["loss_weights"] == [1 / 3] * 3


def test_a_response_that_nobody_judged_has_no_weight():
    masked = GAME.copy()
    masked[0, 1:] = masked[1:, 0] = NAN
    r = row()
    add_win_rates(r, "current", masked, np.full(3, 1 / 3))
    np.testing.assert_allclose(r["loss_weights"], [0, 0.5, 0.5])
    assert r["weights"] == [1 / 3] * 3, "the law of the samples is what it was"
    r = row()
    add_win_rates(r, "previous", np.full((3, 2), NAN), np.full(2, 0.5))
    assert r["loss_weights"] == [0.0] * 3
    r = row()  # against another slot's responses there is no diagonal to leave out
    add_win_rates(r, "previous", np.array([[0.7, NAN], [NAN, 0.1], [NAN, NAN]]), np.full(2, 0.5))
    np.testing.assert_allclose(r["win_rates"]["previous"], [0.7, 0.1, 0.5])
    np.testing.assert_allclose(r["loss_weights"], [0.5, 0.5, 0.0])


def test_games_survive_json():
    masked = GAME.copy()
    masked[0, 1] = NAN
    text = json.dumps(as_json(masked), allow_nan=False)
    np.testing.assert_array_equal(as_game(json.loads(text)), masked)


def test_votes():
    np.testing.assert_array_equal(
        harden(np.array([[0.5, 0.51], [NAN, 0.0]])), [[0.5, 1.0], [NAN, 0.0]]
    )


def test_best_and_worst_by_mean_win_rate():
    # mean win rates .533, .4, .567
    r = row()
    add_win_rates(r, "current", GAME, np.full(3, 1 / 3))
    choose_responses(r, GAME, "best_worst", hard=False)
    assert r["trained"] == [2, 1]
    assert r["loss_weights"] == [0.0, 0.5, 0.5]
    np.testing.assert_allclose(r["win_rates"]["current"], GAME.mean(axis=1))
    choose_responses(r, GAME, "best_worst", hard=True)
    assert (r["win_rates"]["current"][2], r["win_rates"]["current"][1]) == (1.0, 0.0)


def test_equals_are_two_different_responses_and_masked_ones_are_not_chosen():
    r = row()
    choose_responses(r, np.full((3, 3), 0.5), "best_worst", hard=False)
    assert r["trained"] == [0, 2]
    assert sum(r["loss_weights"]) == 1.0
    choose_responses(r, np.full((3, 3), 0.5), "best_worst", hard=True)
    assert sum(r["loss_weights"]) == 0.0, "a tie has no winner"
    r = row()
    r["loss_weights"] = [0.0, 0.5, 0.5]
    choose_responses(r, GAME, "best_worst", hard=False)
    assert r["trained"] == [2, 1]
    r["loss_weights"] = [0.0, 0.0, 1.0]
    choose_responses(r, GAME, "best_worst", hard=False)
    assert r["loss_weights"] == [0.0] * 3
    assert len(r["trained"]) == 2, "batches are rectangular"


class Moody:
    """`prefer_b` that does not answer for some texts."""

    abstains = True

    def __init__(self, silent):
        self.silent = silent

    def compare(self, prompts, a, b):
        verdicts = CallableOracle(prefer_b).compare(prompts, a, b)
        quiet = [self.silent(x, y) for x, y in zip(a, b, strict=True)]
        return np.where(quiet, NAN, verdicts)


def plain_step(folder, **options):
    return make(
        folder, num_rounds=1, optim="sgd", learning_rate=1.0, max_grad_norm=0.0,
        lr_scheduler_type="constant", warmup_steps=0, per_device_train_batch_size=4, **options,
    )  # fmt: skip


def rows_of(trainer):
    return [json.loads(x) for x in trainer.round_file(0).read_text().splitlines()]


def test_training_ignores_what_was_not_judged(tmp_path):
    """The step is the gradient over the judged responses alone, prompts counted as they are."""
    trainer = plain_step(tmp_path, oracle=Moody(lambda x, y: "" in (x, y)))
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    trainer.train()
    model, total = tiny_model(seed=1, dtype=torch.float32, spread=0.5), torch.zeros(())
    rows = rows_of(trainer)
    assert any(0 < sum(w == 0 for w in r["loss_weights"]) < 8 for r in rows)
    for r in rows:
        game = as_game(r["prefs"])
        for i, ids in enumerate(r["completion_ids"]):
            others = [j for j in range(8) if j != i and not np.isnan(game[i, j])]
            if not others:
                assert r["loss_weights"][i] == 0.0
                continue
            rate = np.nanmean(game[i])
            logits = model(torch.tensor([r["prompt_ids"] + ids])).logits.log_softmax(-1)[0]
            start = len(r["prompt_ids"]) - 1
            logp = sum(logits[start + k, token] for k, token in enumerate(ids))
            total = total + 2 * 3.0 * (rate - 0.5) * logp * r["loss_weights"][i] / len(rows)
    total.backward()
    for name, parameter in model.named_parameters():
        moved = dict(trainer.model.named_parameters())[name].detach() - before[name]
        torch.testing.assert_close(moved, parameter.grad, rtol=1e-3, atol=1e-5)


def test_a_silent_judge_moves_nothing(tmp_path):
    trainer = plain_step(tmp_path, oracle=Moody(lambda x, y: True))
    before = {n: p.detach().clone() for n, p in trainer.model.named_parameters()}
    trainer.train()
    for name, parameter in trainer.model.named_parameters():
        torch.testing.assert_close(parameter.detach(), before[name], rtol=0, atol=0)
    metrics = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert metrics[0]["masked_verdicts_share"] > 0.3


def test_hard_sppo_on_pairs_is_the_papers_loss(tmp_path):
    """Best and worst of K with hard labels: 1/2 [(a_w - eta/2)^2 + (a_l + eta/2)^2]."""
    trainer = plain_step(tmp_path, responses="best_worst", verdicts="hard")
    trainer.train()
    rows = rows_of(trainer)
    assert all(len(r["trained"]) == 2 for r in rows)
    step = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()][1]
    decided = np.mean([sum(r["loss_weights"]) for r in rows])
    assert decided > 0.5
    # At the anchor a_w = a_l = 0.
    assert step["loss"] == pytest.approx(decided * (3.0 / 2) ** 2, rel=1e-5)


def test_options_are_checked(tmp_path):
    with pytest.raises(ConfigError, match="responses = 'best'; use 'all' or 'best_worst'"):
        SPPOConfig(output_dir=str(tmp_path), responses="best")
    with pytest.raises(ConfigError, match="verdicts = 'firm'; use 'soft' or 'hard'"):
        SPPOConfig(output_dir=str(tmp_path), verdicts="firm")
