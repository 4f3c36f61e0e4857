"""Precision, checkpointing and adapters: what is sampled and scored is what is trained."""

import copy
import dataclasses
import json
from contextlib import nullcontext

import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import TrainingArguments

from equilign.errors import ConfigError
from equilign.oracles import CallableOracle
from equilign.rollout import score_completions
from equilign.trainers import SPPOConfig, SPPOTrainer
from tests.enumerable import tiny_model, tiny_tokenizer
from tests.trainers.test_game_trainer import gradient_of_first_step
from tests.trainers.test_resume import PROMPTS, make, prefer_b


def rows(trainer):
    return [json.loads(x) for x in trainer.round_file(0).read_text().splitlines()]


def test_gradient_checkpointing_changes_nothing(tmp_path):
    _, plain = gradient_of_first_step(tmp_path / "a", per_device_train_batch_size=4)
    names = {f.name for f in dataclasses.fields(TrainingArguments)}
    new, old = "activation_checkpointing", "gradient_checkpointing"  # renamed by transformers 5
    _, saved = gradient_of_first_step(
        tmp_path / "b", per_device_train_batch_size=4, **{new if new in names else old: True}
    )
    for name in plain:
        torch.testing.assert_close(plain[name], saved[name], rtol=1e-5, atol=1e-7)
    assert max(float(w.abs().max()) for w in plain.values()) > 1e-3


def test_under_bf16_references_are_scored_as_the_policy_is_trained(tmp_path):
    """Old and new log-probabilities differ by what was learned, not by their precision."""
    trainer = make(tmp_path, num_rounds=1, bf16=True)
    trainer.train()
    assert {p.dtype for p in trainer.policy.parameters()} == {torch.float32}
    start = tiny_model(seed=1, dtype=torch.float32, spread=0.5)
    for row in rows(trainer):
        prompts = [row["prompt_ids"]] * len(row["completion_ids"])
        full = score_completions(start, prompts, row["completion_ids"], pad_id=0)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            half = score_completions(start, prompts, row["completion_ids"], pad_id=0)
        torch.testing.assert_close(row["logps"]["current"], half, rtol=1e-2, atol=2e-3)
        assert full != row["logps"]["current"]
    # The first batch is trained before anything moved: its log-ratio is rounding of bf16 alone.
    logged = [json.loads(x) for x in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert logged[1]["abs_log_ratio_to_anchor_nats"] < 0.02


@pytest.mark.parametrize(
    "peft_config", [None, LoraConfig(r=8, target_modules=["v_proj", "o_proj"])]
)
def test_under_bf16_the_reference_stays_where_it_is(tmp_path, peft_config):
    """Autocast keeps casts of weights by parameter; a reference swaps what is in them."""
    options = {"peft_config": peft_config, "num_rounds": 2}
    options |= {"learning_rate": 0.3 if peft_config else 0.05}
    trainer = make(tmp_path, bf16=True, **options)
    with trainer.policy.disable_adapter() if peft_config else nullcontext():
        start = copy.deepcopy(trainer.policy)
    trainer.train()
    second = [json.loads(x) for x in trainer.round_file(1).read_text().splitlines()]
    moved = 0.0
    for row in second:
        ids = row["completion_ids"][:1]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            [want] = score_completions(start, [row["prompt_ids"]], ids, pad_id=0)
        assert row["logps"]["reference"][0] == pytest.approx(want, rel=1e-2, abs=0.02)
        moved = max(moved, abs(row["logps"]["current"][0] - want))
    assert moved > 0.2, "stale weights would do as well"


def lora_trainer(folder, model, peft_config):
    args = SPPOConfig(
        output_dir=str(folder), eta=3.0, num_rounds=1, prompts_per_round=4, num_generations=8,
        per_device_train_batch_size=2, learning_rate=0.05, optim="adamw_torch", use_cpu=True,
        disable_tqdm=True, max_completion_length=3,
    )  # fmt: skip
    data = [{"prompt": p} for p in PROMPTS]
    oracle = CallableOracle(prefer_b)
    return SPPOTrainer(model, args, data, oracle, tiny_tokenizer(), peft_config=peft_config)


def test_peft_config_wraps_the_model_and_the_reference_is_the_adapter_disabled(tmp_path):
    config = LoraConfig(r=4, target_modules=["q_proj", "v_proj"])
    trainer = lora_trainer(tmp_path, tiny_model(seed=1, dtype=torch.float32, spread=0.5), config)
    assert isinstance(trainer.policy, PeftModel)
    before = {n: p.clone() for n, p in trainer.policy.named_parameters()}
    trainer.train()
    moved = {n for n, p in trainer.policy.named_parameters() if not torch.equal(p, before[n])}
    assert moved
    assert all("lora_" in n for n in moved)
    ids = torch.tensor([[1, 2, 1]])
    model = trainer.policy.eval()
    with torch.no_grad():
        with trainer.references.playing("reference"):
            played = model(ids).logits
        with model.disable_adapter():
            disabled = model(ids).logits
        adapted = model(ids).logits
    torch.testing.assert_close(played, disabled)
    assert (adapted - disabled).abs().max() > 1e-3
    trainer.save_model(str(tmp_path / "saved"))
    assert (tmp_path / "saved" / "adapter_model.safetensors").is_file()


def test_mistakes_are_said(tmp_path):
    config = LoraConfig(r=4, target_modules=["q_proj"])
    wrapped = lora_trainer(tmp_path, tiny_model(dtype=torch.float32), config).policy
    with pytest.raises(ConfigError, match="a PeftModel already: leave peft_config out"):
        lora_trainer(tmp_path, wrapped, config)
    args = SPPOConfig(output_dir=str(tmp_path), use_cpu=True)
    with pytest.raises(ConfigError, match="SPPOTrainer needs an oracle"):
        SPPOTrainer(tiny_model(), args, [{"prompt": "a"}], None, tiny_tokenizer())
    with pytest.raises(ConfigError, match="processing_class is missing"):
        SPPOTrainer(tiny_model(), args, [{"prompt": "a"}], CallableOracle(prefer_b))
