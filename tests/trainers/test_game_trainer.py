"""The trainer base: what is played, what is trained on, what is logged."""

import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from transformers import TrainerCallback

from equilign.errors import ConfigError, ModelError
from equilign.oracles import CallableOracle
from equilign.rollout import SamplingConfig, TransformersSampler, score_completions
from equilign.trainers import (
    GameConfig,
    MirrorConfig,
    References,
    SPPOConfig,
    SPPOTrainer,
    game_trainer,
)
from equilign.trainers.rounds import RoundPlan, derive_seed
from tests.enumerable import RESPONSES, tiny_model, tiny_tokenizer
from tests.trainers.test_resume import PROMPTS, make, prefer_b, weights


def gradient_of_first_step(tmp_path, **options):
    """Weights after one plain SGD step, which reveals the gradient."""
    trainer = make(
        tmp_path,
        num_rounds=1,
        num_generations=10,  # few draw nothing but the empty answer
        optim="sgd",
        learning_rate=1.0,
        max_grad_norm=0.0,
        lr_scheduler_type="constant",
        warmup_steps=0,
        **options,
    )
    before = weights(trainer)
    trainer.train()
    return trainer, {n: w - before[n] for n, w in weights(trainer).items()}


def test_accumulation_changes_nothing(tmp_path):
    """Batch 4 x 1 and batch 1 x 4 make the same step."""
    _, one = gradient_of_first_step(tmp_path / "a", per_device_train_batch_size=4)
    _, four = gradient_of_first_step(
        tmp_path / "b", per_device_train_batch_size=1, gradient_accumulation_steps=4
    )
    for name in one:
        torch.testing.assert_close(one[name], four[name], rtol=1e-4, atol=1e-6)
    assert max(float(w.abs().max()) for w in one.values()) > 1e-3


@pytest.mark.parametrize("normaliser", ["paper", "estimated"])
def test_first_step_is_the_policy_gradient(tmp_path, normaliser):
    """At the anchor the SPPO gradient is -2 eta/K sum_i (p_i - log Z / eta) grad log pi(y_i)."""
    trainer, moved = gradient_of_first_step(
        tmp_path, per_device_train_batch_size=4, normaliser=normaliser
    )
    rows = [json.loads(x) for x in trainer.round_file(0).read_text().splitlines()]
    model = tiny_model(seed=1, dtype=torch.float32, spread=0.5)
    eta, total = 3.0, torch.zeros(())
    for row in rows:
        rates = np.array(row["prefs"]).mean(axis=1)
        log_z = np.log(np.mean(np.exp(eta * rates))) if normaliser == "estimated" else eta / 2
        for ids, rate in zip(row["completion_ids"], rates, strict=True):
            logits = model(torch.tensor([row["prompt_ids"] + ids])).logits.log_softmax(-1)[0]
            start = len(row["prompt_ids"])
            logp = sum(logits[start - 1 + i, token] for i, token in enumerate(ids))
            total = total + 2 * (eta * rate - log_z) * logp / (len(rates) * len(rows))
    total.backward()
    for name, parameter in model.named_parameters():
        torch.testing.assert_close(moved[name], parameter.grad, rtol=1e-3, atol=1e-5)


def test_round_file_is_a_game_among_the_samples(tmp_path):
    trainer = make(tmp_path, num_rounds=1)
    trainer.train()
    rows = [json.loads(x) for x in trainer.round_file(0).read_text().splitlines()]
    assert [r["prompt"] for r in rows] == [PROMPTS[i] for i in trainer.plan.prompts(0)]
    start = tiny_model(seed=1, dtype=torch.float32, spread=0.5)
    for row in rows:
        prefs = np.array(row["prefs"])
        np.testing.assert_array_equal(prefs + prefs.T, np.ones_like(prefs))
        expected = [[prefer_b("", a, b) for b in row["completions"]] for a in row["completions"]]
        off = ~np.eye(8, dtype=bool)
        np.testing.assert_allclose(prefs[off], np.array(expected)[off], atol=1e-9)
        np.testing.assert_allclose(row["win_rates"]["current"], prefs.mean(axis=1))
        logps = score_completions(start, [row["prompt_ids"]] * 8, row["completion_ids"], pad_id=0)
        np.testing.assert_allclose(row["logps"]["current"], logps, atol=1e-5)
        assert row["logps"]["current"] == row["logps"]["reference"]  # round 1: nothing moved yet


@pytest.mark.parametrize(
    ("options", "scored"),
    [
        ({}, False),
        ({"temperature": 0.7}, False),
        ({"top_p": 0.9}, True),  # another law than the policy's
        ({"bf16": True}, True),  # a decoder rounds otherwise
    ],
)
def test_what_the_policy_sampled_is_not_scored_again(tmp_path, monkeypatch, options, scored):
    calls = []
    plain = game_trainer.score_answers

    def counted(model, groups, **how):
        calls.append([len(g.completions) for g in groups])
        return plain(model, groups, **how)

    monkeypatch.setattr(game_trainer, "score_answers", counted)
    law = {k: v for k, v in options.items() if k in ("temperature", "top_p")}

    def drawn_so(sampler):
        return dataclasses.replace(sampler, config=dataclasses.replace(sampler.config, **law))

    trainer = make(tmp_path, num_rounds=1, wrap=drawn_so, **options)
    trainer.train()
    assert bool(calls) == scored
    rows = [json.loads(x) for x in trainer.round_file(0).read_text().splitlines()]
    start = tiny_model(seed=1, dtype=torch.float32, spread=0.5)
    for row in rows:
        prompts = [row["prompt_ids"]] * len(row["completion_ids"])
        temperature = options.get("temperature", 1.0)
        with torch.autocast("cpu", torch.bfloat16, enabled="bf16" in options):
            logps = score_completions(
                start, prompts, row["completion_ids"], pad_id=0, temperature=temperature
            )
        close = 1e-2 if "bf16" in options else 1e-5
        np.testing.assert_allclose(row["logps"]["current"], logps, atol=close)


def test_a_sampler_of_another_temperature_or_model_is_not_believed(tmp_path):
    model, tokenizer = tiny_model(seed=1, dtype=torch.float32, spread=0.5), tiny_tokenizer()
    trainer = make(tmp_path / "a", num_rounds=1)
    assert trainer.sampler_tells
    warm = SamplingConfig(3, temperature=0.5)
    trainer.sampler = TransformersSampler(trainer.policy, tokenizer, warm)
    assert not trainer.sampler_tells
    trainer.sampler = TransformersSampler(model, tokenizer, SamplingConfig(3))
    assert not trainer.sampler_tells
    half = make(tmp_path / "b", num_rounds=1)
    half.policy.bfloat16()
    assert not half.sampler_tells


def test_second_round_is_anchored_at_the_moved_policy(tmp_path):
    trainer = make(tmp_path, num_rounds=2)
    trainer.train()
    rows = [json.loads(x) for x in trainer.round_file(1).read_text().splitlines()]
    assert all(len(r["logps"]["reference"]) == 1 for r in rows), "for the metric, one will do"
    gaps = [r["logps"]["current"][0] - r["logps"]["reference"][0] for r in rows]
    assert np.abs(gaps).max() > 0.01
    start = tiny_model(seed=1, dtype=torch.float32, spread=0.5)
    for row in rows:
        [logp] = score_completions(start, [row["prompt_ids"]], row["completion_ids"][:1], pad_id=0)
        assert row["logps"]["reference"][0] == pytest.approx(logp, abs=1e-5)
    logged = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    [second] = [x for x in logged if x["kind"] == "round" and x["round"] == 2]
    assert second["kl_to_reference_nats"] == pytest.approx(np.mean(gaps))


def test_policy_moves_towards_what_the_oracle_prefers(tmp_path):
    trainer = make(
        tmp_path, num_rounds=4, prompts_per_round=6, epochs_per_round=4, num_generations=12
    )
    model = trainer.model

    def b_count():
        total = 0.0
        for prompt in PROMPTS:
            ids = tiny_tokenizer()(prompt)["input_ids"]
            logps = score_completions(model, [ids] * 7, RESPONSES, pad_id=0)
            total += sum(np.exp(p) * r.count(2) for p, r in zip(logps, RESPONSES, strict=True))
        return total / len(PROMPTS)

    before = b_count()
    trainer.train()
    assert b_count() > before + 0.3


def test_references_swap_and_restore():
    model = tiny_model(dtype=torch.float32)
    references = References(model)
    references.take("start")
    ids = torch.tensor([[1, 2, 1]])
    with torch.no_grad():
        start = model(ids).logits
        for p in model.parameters():
            p.add_(0.05)
        moved = model(ids).logits
        with references.playing("start"):
            inside = model(ids).logits
        after = model(ids).logits
    assert torch.equal(inside, start)
    assert torch.equal(after, moved)
    assert not torch.equal(moved, start)


def test_references_restore_after_an_error():
    model = tiny_model(dtype=torch.float32)
    references = References(model)
    references.take("start")
    with torch.no_grad():
        for p in model.parameters():
            p.add_(0.05)
    own = {n: p.clone() for n, p in model.named_parameters()}
    with pytest.raises(RuntimeError, match="inside"), references.playing("start"):
        raise RuntimeError("inside")
    assert all(torch.equal(p, own[n]) for n, p in model.named_parameters())


def test_lora_reference_is_the_base_model_and_not_the_adapted_one(tmp_path):
    """TRL's Nash-MD took the adapted model for its reference; the difference was exactly 0."""
    base = tiny_model(dtype=torch.float32)
    ids = torch.tensor([[1, 2, 1]])
    with torch.no_grad():
        expected = base(ids).logits
    model = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj", "lm_head"]))
    references = References(model)
    references.take("reference")
    with torch.no_grad():
        for n, p in model.named_parameters():
            if "lora_B" in n:
                p.normal_(0, 0.5)
        adapted = model(ids).logits
        with references.playing("reference"):
            played = model(ids).logits
        with model.disable_adapter():
            disabled = model(ids).logits
    torch.testing.assert_close(played, expected)
    torch.testing.assert_close(disabled, expected)
    assert (adapted - expected).abs().max() > 0.1


def test_lora_trains_and_resumes(tmp_path):
    def build(folder):
        torch.manual_seed(0)
        base, tokenizer = tiny_model(seed=1, dtype=torch.float32, spread=0.5), tiny_tokenizer()
        model = get_peft_model(
            base, LoraConfig(r=4, target_modules=["q_proj", "v_proj", "up_proj"])
        )
        args = SPPOConfig(
            output_dir=str(folder),
            eta=3.0,
            num_rounds=2,
            prompts_per_round=4,
            num_generations=3,
            per_device_train_batch_size=2,
            learning_rate=0.05,
            optim="adamw_torch",
            use_cpu=True,
            disable_tqdm=True,
            max_completion_length=3,
        )
        return SPPOTrainer(
            model, args, [{"prompt": p} for p in PROMPTS], CallableOracle(prefer_b), tokenizer
        )

    whole = build(tmp_path / "a")
    before = weights(whole)
    whole.train()
    changed = {n for n, w in weights(whole).items() if not torch.equal(w, before[n])}
    assert changed
    assert all("lora_" in n for n in changed)
    half = build(tmp_path / "b")
    half.train()
    (tmp_path / "b" / "checkpoints" / "sppo" / "checkpoint-4").rename(tmp_path / "gone")
    resumed = build(tmp_path / "b")
    resumed.train(resume_from_checkpoint=True)
    assert all(torch.equal(w, weights(whole)[n]) for n, w in weights(resumed).items())
    assert resumed.references.names() == ["reference"]


def test_dropout_is_off_and_stays_off_in_training(tmp_path):
    model = tiny_model(dtype=torch.float32)
    model.config.attention_dropout = 0.9
    for layer in model.model.layers:
        layer.self_attn.attention_dropout = 0.9
    model.add_module("extra", nn.Dropout(0.5))
    trainer = SPPOTrainer(
        model,
        SPPOConfig(output_dir=str(tmp_path), use_cpu=True, num_rounds=1),
        [{"prompt": p} for p in PROMPTS],
        CallableOracle(prefer_b),
        tiny_tokenizer(),
    )
    trainer.model.train()
    ids = torch.tensor([[1, 2, 1]])
    assert torch.equal(trainer.model(ids).logits, trainer.model(ids).logits)
    assert trainer.model.extra.p == 0.0


def test_frozen_model_is_refused(tmp_path):
    model = tiny_model()
    model.requires_grad_(False)
    with pytest.raises(ModelError, match="no trainable weights"):
        SPPOTrainer(
            model,
            SPPOConfig(output_dir=str(tmp_path), use_cpu=True),
            [{"prompt": "a"}],
            CallableOracle(prefer_b),
            tiny_tokenizer(),
        )


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_generations": 1}, "num_generations = 1; it must be >= 2"),
        ({"num_rounds": 0}, "num_rounds = 0"),
        ({"temperature": 0.0}, "must be sampled"),
        ({"top_p": 0.0}, "top_p"),
        ({"eta": 0.0}, "eta = 0.0; the mirror step must be > 0"),
        ({"eta": float("nan")}, "eta"),
        ({"beta": -0.1}, "beta"),
        ({"normaliser": "exact"}, "'estimated' or 'paper'"),
        ({"prompts_per_round": 0}, "prompts_per_round"),
        ({"remove_unused_columns": True}, "remove_unused_columns"),
        ({"max_steps": 10}, "max_steps and num_train_epochs have no effect"),
        ({"num_train_epochs": 7.0}, "max_steps and num_train_epochs have no effect"),
    ],
)
def test_bad_options_name_themselves(tmp_path, options, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        MirrorConfig(output_dir=str(tmp_path), use_cpu=True, **options)


def test_too_few_prompts(tmp_path):
    make_with = SPPOConfig(output_dir=str(tmp_path), use_cpu=True, num_rounds=3)
    with pytest.raises(ConfigError, match="2 prompts cannot be shared among 3 rounds"):
        SPPOTrainer(
            tiny_model(),
            make_with,
            [{"prompt": "a"}] * 2,
            CallableOracle(prefer_b),
            tiny_tokenizer(),
        )


def test_every_option_of_ours_has_help_and_is_read():
    source = "".join(p.read_text() for p in Path("src/equilign").rglob("*.py"))
    base = {f.name for f in dataclasses.fields(GameConfig.__mro__[1])}
    for f in dataclasses.fields(MirrorConfig):
        if f.name in base:
            continue
        assert f.metadata.get("help"), f.name
        read = re.findall(rf"(?:args|config)\.{f.name}\b", source)
        assert read, f"{f.name} is never read"


def test_plan_goes_through_all_prompts_before_repeating():
    plan = RoundPlan(num_prompts=10, prompts_per_round=4, epochs_per_round=2, seed=1)
    played = [i for r in range(5) for i in plan.prompts(r)]
    assert sorted(played[:10]) == list(range(10))
    assert sorted(played[10:]) == list(range(10))
    assert plan.prompts(2) == RoundPlan(10, 4, 2, 1).prompts(2)
    assert played != [i for r in range(5) for i in RoundPlan(10, 4, 2, 2).prompts(r)]
    order = plan.order(0)
    assert sorted(order[:4]) == sorted(order[4:]) == [0, 1, 2, 3]


def test_seeds_differ_by_every_part():
    seeds = {derive_seed(s, n, r) for s in range(5) for n in ("a", "b") for r in range(5)}
    assert len(seeds) == 50
    assert all(0 <= s < 2**63 for s in seeds)
    assert derive_seed(0, "sppo", 1) == derive_seed(0, "sppo", 1)


def test_learning_rate_starts_again_every_round(tmp_path):
    trainer = make(tmp_path, num_rounds=2, warmup_steps=0)
    trainer.train()
    rates = [x["learning_rate"] for x in trainer.state.log_history if "learning_rate" in x]
    assert rates[:2] == rates[2:]
    assert rates[1] < rates[0]


@pytest.mark.parametrize(("reset", "held"), [(True, [0, 0]), (False, [0, 1])])
def test_optimiser_starts_fresh_every_round(tmp_path, reset, held):
    """State entries at the first step of each round: none, unless the reset is turned off."""
    seen = []

    class Watch(TrainerCallback):
        def on_step_begin(self, args, state, control, optimizer=None, **kwargs):
            if state.global_step % 2 == 0:
                seen.append(min(len(optimizer.state), 1))

    make(tmp_path, num_rounds=2, callbacks=[Watch()], reset_optimizer_each_round=reset).train()
    assert seen == held


def test_sampler_default_is_the_model_itself(tmp_path):
    trainer = SPPOTrainer(
        tiny_model(),
        SPPOConfig(output_dir=str(tmp_path), use_cpu=True, num_rounds=1),
        [{"prompt": "a"}],
        CallableOracle(prefer_b),
        tiny_tokenizer(),
    )
    assert isinstance(trainer.sampler, TransformersSampler)
    assert trainer.sampler.model is trainer.model
    assert trainer.sampler.config == SamplingConfig(batch_size=64)
