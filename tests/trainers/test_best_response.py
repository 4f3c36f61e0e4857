"""A best responder follows the exact gradient, and ends where the exact best response is."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from equilign.errors import ConfigError
from equilign.games import PreferenceGame, exploitability
from equilign.rollout import SamplingConfig, TransformersSampler, completion_logps
from equilign.trainers.best_response import BestResponseConfig, BestResponseTrainer
from tests.enumerable import (
    END,
    RESPONSES,
    TEXTS,
    EnumeratingSampler,
    MatrixOracle,
    random_prefs,
    tiny_model,
    tiny_tokenizer,
)
from tests.trainers.scored import PROMPTS, distance, flat_gradient, policy_of, prompt_ids, shake

GAMES = {p: random_prefs(seed) for seed, p in enumerate(PROMPTS)}


def build(folder, *, oracle=None, sampler=None, model=None, **options):
    model = tiny_model(seed=3, spread=0.4) if model is None else model
    settings = {
        "num_rounds": 1,
        "prompts_per_round": 2,
        "per_device_train_batch_size": 2,
        "max_completion_length": 2,
        "weight_decay": 0.0,
        "save_strategy": "no",
        "logging_strategy": "no",
        "use_cpu": True,
        "disable_tqdm": True,
        "seed": 0,
        **options,
    }
    tokenizer = tiny_tokenizer()
    return BestResponseTrainer(
        model,
        BestResponseConfig(output_dir=str(folder), **settings),
        [{"prompt": p} for p in PROMPTS],
        MatrixOracle(GAMES) if oracle is None else oracle,
        tokenizer,
        sampler=EnumeratingSampler(model, tokenizer) if sampler is None else sampler,
    )


def ready(trainer):
    start = policy_of(trainer.policy)
    trainer.start_round(0)
    shake(trainer.policy)
    return start


def objective(model, start, beta=0.0):
    """Mean over prompts of the win probability against the start model, minus the KL term."""
    total = 0.0
    for p in PROMPTS:
        logps = completion_logps(model, [prompt_ids(p)] * len(RESPONSES), RESPONSES, pad_id=END)
        rates = torch.tensor(GAMES[p] @ np.exp(start[p]))
        worth = rates - beta * (logps - torch.tensor(start[p]))
        total = total + (logps.exp() * worth).sum()
    return total / len(PROMPTS)


@pytest.mark.parametrize("beta", [0.0, 0.3])
def test_one_step_is_the_exact_gradient_of_the_win_rate_over_the_start(tmp_path, beta):
    trainer = build(tmp_path, beta=beta)
    start = ready(trainer)
    expected = flat_gradient(objective(trainer.policy, start, beta), trainer.policy)
    rows = trainer.play_chunk(0, 0, [0, 1])
    loss, _ = trainer.batch_loss(trainer.policy, json.loads(json.dumps(rows)))
    assert distance(-flat_gradient(loss, trainer.policy), expected) < 1e-6
    assert float(expected.norm()) > 1e-3


def test_the_opponent_is_the_start_and_not_the_policy(tmp_path):
    trainer = build(tmp_path)
    start = ready(trainer)
    for p, row in zip(PROMPTS, trainer.play_chunk(0, 0, [0, 1]), strict=True):
        np.testing.assert_allclose(row["rewards"], GAMES[p] @ np.exp(start[p]), atol=1e-6)
        assert np.abs(GAMES[p] @ np.exp(policy_of(trainer.policy)[p]) - row["rewards"]).max() > 1e-3
        assert row["opponents"] == list(TEXTS)


def test_opponents_are_fresh_samples(tmp_path):
    """Other ones than the responder's own, others in every round, the same when played again."""
    trainer = build(tmp_path, num_generations=16, num_opponents=16)
    trainer.sampler = Spelled(trainer.policy, tiny_tokenizer(), SamplingConfig(max_new_tokens=2))
    trainer.start_round(0)
    rows = [trainer.play_chunk(i, 0, [0, 1]) for i in (0, 1, 0)]
    assert rows[0] == rows[2]
    assert [r["opponents"] for r in rows[0]] != [r["opponents"] for r in rows[1]]
    assert all(len(r["opponents"]) == 16 for r in rows[0])
    assert all(r["opponents"] != r["completions"] for r in rows[0])


class Spelled(TransformersSampler):
    """Texts as the table has them, end token included."""

    def sample(self, prompts, num_samples, seed):
        groups = super().sample(prompts, num_samples, seed)
        return [replace(g, completions=tuple(map(spelled, g.completions))) for g in groups]


def spelled(answer):
    return replace(answer, text=TEXTS[RESPONSES.index(answer.ids)])


def test_pairs_without_a_verdict_count_nowhere(tmp_path):
    class Silent(MatrixOracle):
        abstains = True

        def compare(self, prompts, a, b):
            known = super().compare(prompts, a, b)
            mute = [TEXTS[0] in pair or pair[0] == TEXTS[1] for pair in zip(a, b, strict=True)]
            return np.where(mute, np.nan, known)

    trainer = build(tmp_path, oracle=Silent(GAMES))
    start = ready(trainer)
    p = PROMPTS[0]
    row = trainer.play_chunk(0, 0, [0])[0]
    law = np.exp(start[p])
    # Response 2 is judged against itself (a tie) and all but the first two.
    seen = [2, 3, 4, 5, 6]
    assert row["rewards"][2] == pytest.approx(
        GAMES[p][2, seen] @ law[seen] / law[seen].sum(), abs=1e-6
    )
    assert row["rewards"][0] == pytest.approx(0.5)  # only its own text
    loss, _ = trainer.batch_loss(trainer.policy, [row])
    assert torch.isfinite(loss)


def test_a_trained_responder_reaches_the_exact_value(tmp_path):
    """Within 0.005 of what the best response gains, on one game of seven answers."""
    prefs = random_prefs(1)
    trainer = build(
        tmp_path, oracle=MatrixOracle(dict.fromkeys(PROMPTS, prefs)), num_rounds=25,
        epochs_per_round=3, learning_rate=0.006, optim="adamw_torch", lr_scheduler_type="constant",
    )  # fmt: skip
    start = policy_of(trainer.policy)
    trainer.train()
    now, game = policy_of(trainer.policy), PreferenceGame(prefs)
    for p in PROMPTS:
        law = np.exp(start[p])
        exact = exploitability(game, law)
        reached = float(np.exp(now[p]) @ prefs @ law) - 0.5
        assert exact > 0.14
        assert exact - 0.005 <= reached <= exact + 1e-9


def test_options_out_of_range():
    with pytest.raises(ConfigError, match="num_opponents = 0"):
        BestResponseConfig(output_dir="x", num_opponents=0)
    with pytest.raises(ConfigError, match="has 'win_rate' only"):
        BestResponseConfig(output_dir="x", reward="score")
