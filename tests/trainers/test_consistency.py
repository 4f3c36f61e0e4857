"""A language-model trainer on an enumerable policy follows the exact tabular rule."""

import numpy as np
import pytest

from equilign.games import PreferenceGame
from equilign.play import exact_feedback, log_normalise, mirror_step, start_slots
from equilign.rules import INPO, MMD, OMWU, SPPO, Slot, Step
from equilign.trainers import MirrorConfig, MirrorTrainer
from tests.enumerable import (
    EnumeratingSampler,
    MatrixOracle,
    exact_logps,
    random_prefs,
    tiny_model,
    tiny_tokenizer,
)

PROMPTS = ["a b", "b a"]  # not "a": repeated tokens alone are one state to rotary attention


@pytest.mark.parametrize(
    ("rule", "eta", "beta"), [(SPPO, 2.0, 0.0), (INPO, 1.5, 0.2), (MMD, 1.5, 0.2), (OMWU, 1.0, 0.1)]
)
def test_trainer_follows_the_exact_rule(tmp_path, rule, eta, beta):
    """Three rounds with exact expectations, fitted to convergence: the same policies."""
    games = {p: random_prefs(seed) for seed, p in enumerate(PROMPTS)}
    model, tokenizer = tiny_model(seed=3, spread=0.4), tiny_tokenizer()
    ids = {p: tokenizer(p)["input_ids"] for p in PROMPTS}
    start = {p: log_normalise(exact_logps(model, ids[p])) for p in PROMPTS}
    seen = []

    class Recording(MirrorTrainer):
        def start_round(self, index):
            seen.append({p: np.exp(exact_logps(self.model, ids[p])) for p in PROMPTS})
            super().start_round(index)

    args = MirrorConfig(
        output_dir=str(tmp_path),
        eta=eta,
        beta=beta,
        normaliser="estimated",
        num_rounds=3,
        prompts_per_round=2,
        epochs_per_round=250,
        per_device_train_batch_size=2,
        learning_rate=0.01,
        optim="adamw_torch",
        weight_decay=0.0,
        max_grad_norm=0.0,
        save_strategy="no",
        use_cpu=True,
        disable_tqdm=True,
        seed=0,
        logging_strategy="no",
    )
    trainer = Recording(
        model,
        args,
        [{"prompt": p} for p in PROMPTS],
        MatrixOracle(games),
        tokenizer,
        sampler=EnumeratingSampler(model, tokenizer),
        rule=rule,
    )
    trainer.train()
    seen.append({p: np.exp(exact_logps(model, ids[p])) for p in PROMPTS})

    for p in PROMPTS:
        game = PreferenceGame(games[p])
        slots = start_slots(start[p], start[p])
        for played in seen[1:]:
            slots = mirror_step(rule, slots, exact_feedback(game), Step(eta, beta))
            np.testing.assert_allclose(played[p], np.exp(slots[Slot.CURRENT]), atol=2e-3)
        moved = np.abs(seen[-1][p] - np.exp(start[p])).sum()
        assert moved > 0.05, "the test would pass without training"
