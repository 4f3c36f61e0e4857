"""Four rounds, a crash and four more are eight rounds, to the bit, with moving references too."""

import json

import pytest
import torch
from peft import LoraConfig

from equilign.errors import RunDirectoryError
from equilign.oracles import CallableOracle
from equilign.trainers.contrastive import (
    DPOConfig,
    DPOTrainer,
    IteratedDPOConfig,
    IteratedDPOTrainer,
    OnlineDPOConfig,
    OnlineDPOTrainer,
)
from tests.enumerable import tiny_model, tiny_tokenizer
from tests.trainers.test_resume import DieAtStep, Died, prefer_b

PAIRS = [
    {"prompt": "a b", "chosen": " a a", "rejected": ""},
    {"prompt": "b a", "chosen": " b", "rejected": " a b", "chosen_prob": 0.8},
    {"prompt": "a b b", "chosen": " b b", "rejected": " a a b"},
    {"prompt": "b a a", "chosen": " a", "rejected": " b a"},
    {"prompt": "b b", "chosen": " a b", "rejected": " a"},
    {"prompt": "a a", "chosen": " b", "rejected": ""},
]
METHODS = {
    "dpo": (DPOTrainer, DPOConfig),
    "iterated-dpo": (IteratedDPOTrainer, IteratedDPOConfig),
    "online-dpo": (OnlineDPOTrainer, OnlineDPOConfig),
}
STEPS_PER_ROUND = 2


def make(folder, name, *, lora=False, data=PAIRS, callbacks=(), **options):
    torch.manual_seed(0)
    cls, config = METHODS[name]
    args = config(
        output_dir=str(folder),
        num_rounds=8,
        prompts_per_round=4,
        num_generations=4,
        max_completion_length=4,
        labels="sampled",
        per_device_train_batch_size=2,
        chunk_prompts=2,
        **{
            "learning_rate": 0.02,
            "optim": "adamw_torch",
            "logging_steps": 1,
            "use_cpu": True,
            "disable_tqdm": True,
            "seed": 5,
            **options,
        },
    )
    adapter = LoraConfig(r=2, target_modules=["q_proj", "v_proj"]) if lora else None
    return cls(
        tiny_model(seed=1, dtype=torch.float32, spread=0.3),
        args,
        data,
        CallableOracle(prefer_b) if cls.needs_oracle else None,
        tiny_tokenizer(),
        peft_config=adapter,
        callbacks=list(callbacks),
    )


def weights(trainer):
    return {n: p.detach().clone() for n, p in trainer.policy.named_parameters()}


def metrics(folder):
    rows = [json.loads(x) for x in (folder / "metrics.jsonl").read_text().splitlines()]
    return [{k: v for k, v in r.items() if "runtime" not in k} for r in rows]


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("lora", [False, True])
def test_four_rounds_and_four_are_eight(tmp_path, name, lora):
    whole = make(tmp_path / "whole", name, lora=lora)
    before = weights(whole)
    whole.train()
    expected = weights(whole)
    assert any(not torch.equal(before[n], expected[n]) for n in expected)
    # Killed in the first step of the fifth round: the checkpoint of the fourth is the newest.
    death = DieAtStep(4 * STEPS_PER_ROUND + 1)
    with pytest.raises(Died):
        make(tmp_path / "half", name, lora=lora, callbacks=[death]).train()
    resumed = make(tmp_path / "half", name, lora=lora)
    assert resumed.last_checkpoint().endswith(f"checkpoint-{4 * STEPS_PER_ROUND}")
    with torch.no_grad():  # nothing may be taken from the weights it happens to find
        for p in resumed.policy.parameters():
            if p.requires_grad:
                p.add_(0.5)
    resumed.train(resume_from_checkpoint=True)
    found = weights(resumed)
    assert all(torch.equal(found[n], expected[n]) for n in expected)
    assert metrics(tmp_path / "half") == metrics(tmp_path / "whole")
    files = sorted((tmp_path / "whole" / "rounds").iterdir())
    assert len(files) == 8
    for path in files:
        assert (tmp_path / "half" / "rounds" / path.name).read_bytes() == path.read_bytes()


def test_other_answers_are_another_run(tmp_path):
    """The prompts are the same; the pairs are part of what a run is about."""
    make(tmp_path, "dpo").train()
    swapped = [{**r, "chosen": r["rejected"], "rejected": r["chosen"]} for r in PAIRS]
    with pytest.raises(RunDirectoryError, match="holds a run with other options"):
        make(tmp_path, "dpo", data=swapped).train(resume_from_checkpoint=True)
