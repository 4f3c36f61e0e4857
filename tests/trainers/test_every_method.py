"""What every method owes its users: it moves, it resumes to the bit, it saves a model."""

import pytest
import torch
from peft import LoraConfig, PeftModel
from transformers import AutoModelForCausalLM, TrainerCallback

from equilign.methods import TRAINED
from equilign.oracles import CallableOracle
from equilign.rollout import SamplingConfig, TransformersSampler
from tests.enumerable import tiny_model, tiny_tokenizer
from tests.trainers.test_resume import PROMPTS, Died, prefer_b

ROUNDS = 8
FAST_LORA = ("sppo", "egpo", "iterated-dpo", "ppo")
"""One per family; LoRA with the others is slow."""


def examples(data_format):
    if data_format == "prompts":
        return [{"prompt": p} for p in PROMPTS]
    return [{"prompt": p, "chosen": " b b", "rejected": " a"} for p in PROMPTS]


def build(name, folder, *, lora=False, **options):
    trainer_class, config_class = TRAINED[name].load()
    torch.manual_seed(0)
    model, tokenizer = tiny_model(seed=1, dtype=torch.float32, spread=0.3), tiny_tokenizer()
    args = config_class(
        output_dir=str(folder),
        **{
            "num_rounds": ROUNDS,
            "prompts_per_round": 3,
            "num_generations": 4,
            "max_completion_length": 3,
            "per_device_train_batch_size": 2,
            "learning_rate": 0.01,
            "optim": "adamw_torch",
            "warmup_steps": 0,
            "use_cpu": True,
            "disable_tqdm": True,
            "seed": 5,
            **options,
        },
    )
    trainer = trainer_class(
        model, args, examples(trainer_class.data_format),
        CallableOracle(prefer_b) if trainer_class.needs_oracle else None, tokenizer,
        peft_config=LoraConfig(r=4, target_modules=["q_proj", "v_proj"]) if lora else None,
    )  # fmt: skip
    assert isinstance(trainer.sampler, TransformersSampler)
    assert trainer.sampler.config == SamplingConfig(max_new_tokens=3)
    return trainer


def weights(trainer):
    return {n: p.detach().clone() for n, p in trainer.policy.named_parameters()}


class DieAfterRound(TrainerCallback):
    def __init__(self, number):
        self.number = number

    def on_epoch_begin(self, args, state, control, **kwargs):
        if round(state.epoch or 0) == self.number:
            raise Died


def cases():
    for name in TRAINED:
        yield pytest.param(name, False, id=name)
        marks = () if name in FAST_LORA else pytest.mark.slow
        yield pytest.param(name, True, id=f"{name}-lora", marks=marks)


@pytest.mark.parametrize(("name", "lora"), list(cases()))
def test_four_rounds_and_four_are_eight(tmp_path, name, lora):
    whole = build(name, tmp_path / "whole", lora=lora)
    before = weights(whole)
    whole.train()
    expected = weights(whole)
    moved = [n for n in expected if not torch.equal(expected[n], before[n])]
    assert moved, "nothing was trained"
    assert all(("lora_" in n) == lora for n in moved)
    cut = build(name, tmp_path / "cut", lora=lora)
    cut.add_callback(DieAfterRound(ROUNDS // 2))
    with pytest.raises(Died):
        cut.train()
    resumed = build(name, tmp_path / "cut", lora=lora)
    with torch.no_grad():  # nothing may be taken from what the model happens to be
        for p in resumed.policy.parameters():
            if p.requires_grad:
                p.add_(1.0)
    resumed.train(resume_from_checkpoint=True)
    found = weights(resumed)
    assert all(torch.equal(found[n], expected[n]) for n in expected)
    for path in sorted((tmp_path / "whole" / "rounds").iterdir()):
        assert (tmp_path / "cut" / "rounds" / path.name).read_bytes() == path.read_bytes()


@pytest.mark.parametrize("lora", [False, True])
def test_the_model_saved_is_the_one_trained(tmp_path, lora):
    trainer = build("sppo", tmp_path / "run", lora=lora, num_rounds=1)
    trainer.train()
    trainer.save_model(str(tmp_path / "saved"))
    ids = torch.tensor([[1, 2, 1]])
    if lora:
        base = tiny_model(seed=1, dtype=torch.float32, spread=0.3)
        loaded = PeftModel.from_pretrained(base, tmp_path / "saved")
    else:
        loaded = AutoModelForCausalLM.from_pretrained(tmp_path / "saved", dtype=torch.float32)
    with torch.no_grad():
        torch.testing.assert_close(loaded(ids).logits, trainer.policy.eval()(ids).logits)
        start = tiny_model(seed=1, dtype=torch.float32, spread=0.3)
        assert not torch.allclose(start(ids).logits, loaded(ids).logits)
